"""From a trained flow to its exact likelihood, beside that of a Gaussian and of a mixture."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow import mixtures
from ebflow.checkpoint import load
from ebflow.data.loader import Dataset, Split
from ebflow.data.manifest import SELECTION
from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, gaussian
from pipelines.answers.reference import Reference
from pipelines.config import EvaluateConfig
from pipelines.density import classifier
from pipelines.density.likelihoods import BASELINES
from pipelines.tracking import StageRun
from pipelines.training.preprocessing import GAUSSIAN, MIXTURE, NUMBERS, REGRESSION

LOG_PROBS = "log_probs.npz"
"""File of the flow's log-densities of every row, by split; of the training split ``ROWS``."""

PREFIXES = {
    "test": ("test/", ""),
    "validation": ("best/val_", "val_"),
    SELECTION: ("select/", "select_"),
}
"""Of the flow's metrics, and what follows a baseline's name, by the splits that there may be."""


def evaluate(
    config: EvaluateConfig,
    data: Path,
    preprocessed: Path,
    trained: Path,
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``evaluation.json``: likelihoods of the flow and of what is beside it.

    And ``log_probs.npz``, the flow's log-density of every row, by split, of random rows of the
    training split; ``reference.safetensors``, those beside which a row is scored; and of a flow
    given classes ``posteriors.npz``, what it makes of test rows by Bayes' rule.

    A full-covariance Gaussian is fitted by maximum likelihood to the same training split behind
    the same dequantisation and logit. Where its covariance is singular it gets the preprocessing's
    shrinkage, or a least one: ``baseline/gaussian_shrinkage``. A mixture of Gaussians stands
    behind the same. Of data with contexts, the Gaussian is a linear regression on them, and the
    mixture, over both, is conditioned on them. All are evaluated with the same draws.
    """
    torch.set_num_threads(1)
    run.log_params({"evaluate": config.model_dump()})
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    flow, baselines = load(trained / "checkpoint"), _baselines(preprocessed)
    metrics, known = json.loads((preprocessed / NUMBERS).read_text()), {}
    for name, prefixes in PREFIXES.items():
        if name in dataset.manifest.counts:
            split = dataset.split(name)
            ours = log_probs(flow, split, **config.model_dump())
            metrics |= _metrics(prefixes, ours, baselines, split, config)
            known[name] = ours.numpy()
    densities = {"flow": flow, **baselines}
    metrics |= classifier.measured(
        densities, dataset, output / classifier.FILE, config.model_dump()
    )
    splits = map(dataset.split, ("train", "test"))
    reference = Reference.of(flow, *splits, batch_size=config.batch_size)
    reference.save(output, trained / "checkpoint")
    np.savez(output / LOG_PROBS, **known, train=reference.train.numpy())
    (output / "evaluation.json").write_text(json.dumps(metrics, indent=1) + "\n")
    run.log_metrics(metrics)


def _baselines(preprocessed: Path) -> dict[str, Flow]:
    """Returns the baselines by name."""
    chain = Preprocessing.load(preprocessed / GAUSSIAN)
    given = (preprocessed / REGRESSION).exists()
    plain = _behind(preprocessed / REGRESSION, chain) if given else gaussian(chain)
    return {"gaussian": plain, "mixture": _behind(preprocessed / MIXTURE, chain)}


def _behind(mixture: Path, chain: Preprocessing) -> Flow:
    return mixtures.density(mixtures.load(mixture), chain)


def _metrics(
    prefixes: tuple[str, str],
    ours: Tensor,
    baselines: Mapping[str, Flow],
    split: Split,
    config: EvaluateConfig,
) -> dict[str, float]:
    """Returns the likelihoods of the flow and of the baselines on a split, how they differ too."""
    metrics = likelihood(prefixes[0], ours, split.width)
    for what, density in baselines.items():
        theirs = log_probs(density, split, **config.model_dump())
        metrics |= likelihood(f"baseline/{what}_{prefixes[1]}", theirs, split.width)
        paired, at = Likelihood.of(ours - theirs, split.width), f"{prefixes[0]}{BASELINES[what]}"
        metrics |= {at: -paired.nll, f"{at}_se": paired.nll_se}
    return metrics


def likelihood(prefix: str, found: Tensor, width: int) -> dict[str, float]:
    """Returns the metrics of log-densities with shape (N,) of rows of a width."""
    score = Likelihood.of(found, width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
