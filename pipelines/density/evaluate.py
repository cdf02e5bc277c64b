"""From a trained flow to its exact likelihood, beside that of a Gaussian and of a mixture."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.checkpoint import load
from ebflow.evaluation import Likelihood, log_probs
from ebflow.preprocessing import Preprocessing, density
from pipelines.config import EvaluateConfig
from pipelines.data.dataset import Dataset
from pipelines.density.likelihoods import BASELINES, SPLITS, prefix
from pipelines.density.truth import divergences
from pipelines.inference.reference import Reference
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import GAUSSIAN, MIXTURE, NUMBERS

# Metrics of the training that a comparison of trainings needs.
LENGTH = ("train/steps", "train/time_limited")

# File of the flow's log-densities of every row, by split; of the training split a sample.
LOG_PROBS = "log_probs.npz"


def evaluate(
    config: EvaluateConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json``, the likelihoods of the flow and of the baselines.

    Further files are ``log_probs.npz``, and ``reference.safetensors`` with the rows and the
    log-densities that new rows are compared with.

    A full-covariance Gaussian is fitted by maximum likelihood to the same training split behind
    the same dequantization and logit. If its covariance is singular, it gets the preprocessing's
    shrinkage, or a least one: ``baseline/gaussian_shrinkage``. A mixture of Gaussians stands
    behind the same. If there are contexts, the Gaussian is a linear regression on them, and the
    mixture, fitted to both, is conditioned on them. All are evaluated with the same noise.

    For a named toy distribution, divergences from its exact density are among the metrics: see
    ``truth``.
    """
    torch.set_num_threads(1)
    run.log_params({"evaluate": config.model_dump()})
    dataset, options = Dataset(data), config.model_dump()
    run.log_input(dataset.manifest, "testing")
    densities = {"flow": (flow := load(trained / "checkpoint"))}
    for name, file in (("gaussian", GAUSSIAN), ("mixture", MIXTURE)):
        densities[name] = density(Preprocessing.load(preprocessed / file))
    metrics, of_flow = json.loads((trained / NUMBERS).read_text()), {}
    training = json.loads((trained / "training.json").read_text())
    metrics |= {name: training["metrics"][name] for name in LENGTH}
    metrics |= divergences(flow, dataset.manifest, training["smoothing"], config.seed)
    for name in (split for split in SPLITS if split in dataset.manifest.counts):
        split = dataset.split(name)
        found = {what: log_probs(one, split, **options) for what, one in densities.items()}
        for what, values in found.items():
            metrics |= likelihood(prefix(what, name), values, split.width)
        metrics |= _gains(found, name, split.width)
        of_flow[name] = found["flow"].numpy()
    splits = map(dataset.split, ("train", "test"))
    reference = Reference.of(flow, *splits, batch_size=config.batch_size)
    reference.save(run.output, trained / "checkpoint")
    np.savez(run.output / LOG_PROBS, **of_flow, train=reference.train.numpy())
    run.write_metrics(metrics)


def _gains(found: Mapping[str, Tensor], split: str, width: int) -> dict[str, float]:
    """Returns the metrics of the flow's gain over each baseline, from log-densities by density."""
    metrics, at = {}, prefix("flow", split)
    for what, gain in BASELINES.items():
        paired = Likelihood.of(found["flow"] - found[what], width)
        metrics |= {f"{at}{gain}": -paired.nll, f"{at}{gain}_se": paired.nll_se}
    return metrics


def likelihood(prefix: str, found: Tensor, width: int) -> dict[str, float]:
    """Returns the metrics of log-densities with shape (N,) of rows of a width."""
    score = Likelihood.of(found, width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
