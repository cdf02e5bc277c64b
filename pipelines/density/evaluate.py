"""From a trained flow to its exact likelihood, beside that of a Gaussian and of a mixture."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, density
from pipelines.config import EvaluateConfig
from pipelines.data.dataset import Dataset
from pipelines.density import classifier
from pipelines.density.likelihoods import BASELINES, SPLITS, prefix
from pipelines.inference.reference import Reference
from pipelines.tracking.run import StageRun
from pipelines.training.architectures import load
from pipelines.training.preprocessing import GAUSSIAN, MIXTURE, NUMBERS
from pipelines.training.stage_reports import write_metrics

LOG_PROBS = "log_probs.npz"
"""File of the flow's log-densities of every row, by split; of the training split ``ROWS``."""


def evaluate(
    config: EvaluateConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json``: likelihoods of the flow and of what is beside it.

    And ``log_probs.npz``, the flow's log-density of every row, by split, of random rows of the
    training split; ``reference.safetensors``, those beside which a row is scored; and of a flow
    given classes ``posteriors.npz``, what it makes of test rows by Bayes' rule.

    A full-covariance Gaussian is fitted by maximum likelihood to the same training split behind
    the same dequantization and logit. Where its covariance is singular it gets the preprocessing's
    shrinkage, or a least one: ``baseline/gaussian_shrinkage``. A mixture of Gaussians stands
    behind the same. Of data with contexts, the Gaussian is a linear regression on them, and the
    mixture, over both, is conditioned on them. All are evaluated with the same draws.
    """
    torch.set_num_threads(1)
    run.log_params({"evaluate": config.model_dump()})
    dataset, options = Dataset(data), config.model_dump()
    run.log_input(dataset.manifest, "testing")
    flow = load(trained / "checkpoint")
    densities = {"flow": flow, **_baselines(preprocessed)}
    metrics, known = json.loads((preprocessed / NUMBERS).read_text()), {}
    for name in SPLITS:
        if name in dataset.manifest.counts:
            split = dataset.split(name)
            found = {what: log_probs(each, split, **options) for what, each in densities.items()}
            metrics |= _compared(found, name, split.width)
            known[name] = found["flow"].numpy()
    metrics |= classifier.measured(densities, dataset, run.output, options)
    splits = map(dataset.split, ("train", "test"))
    reference = Reference.of(flow, *splits, batch_size=config.batch_size)
    reference.save(run.output, trained / "checkpoint")
    np.savez(run.output / LOG_PROBS, **known, train=reference.train.numpy())
    write_metrics(metrics, run)


def _baselines(preprocessed: Path) -> dict[str, Flow]:
    """Returns the baselines by name."""
    files = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
    return {name: density(Preprocessing.load(preprocessed / files[name])) for name in files}


def _compared(found: Mapping[str, Tensor], split: str, width: int) -> dict[str, float]:
    """Returns the metrics of log-densities of a split by density, how the flow differs too."""
    metrics, at = {}, prefix("flow", split)
    for what, values in found.items():
        metrics |= likelihood(prefix(what, split), values, width)
        if gain := BASELINES.get(what):
            paired = Likelihood.of(found["flow"] - values, width)
            metrics |= {f"{at}{gain}": -paired.nll, f"{at}{gain}_se": paired.nll_se}
    return metrics


def likelihood(prefix: str, found: Tensor, width: int) -> dict[str, float]:
    """Returns the metrics of log-densities with shape (N,) of rows of a width."""
    score = Likelihood.of(found, width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
