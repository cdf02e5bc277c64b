"""From a trained flow to its exact likelihood, beside that of a Gaussian and of a mixture."""

__all__ = ["evaluate"]

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ebflow import mixtures
from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.data.splits import SELECTION
from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, gaussian
from pipelines.config import EvaluateConfig
from pipelines.front import GAUSSIAN, MIXTURE, NUMBERS
from pipelines.tracking import StageRun

PREFIXES = {
    "test": ("test/", ""),
    "validation": ("best/val_", "val_"),
    SELECTION: ("select/", "select_"),
}
"""Of the flow's metrics, and what follows a baseline's name, by the splits that there may be."""


def evaluate(
    config: EvaluateConfig,
    data: Path,
    front: Path,
    trained: Path,
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``evaluation.json``: likelihoods of the flow and of what is beside it.

    A full-covariance Gaussian is fitted by maximum likelihood to the same training split behind
    the same dequantisation and logit. Where its covariance is singular it gets the preprocessing's
    shrinkage, or a least one: ``baseline/gaussian_shrinkage``. A mixture of Gaussians stands
    behind the same. All are evaluated with the same draws.
    """
    run.log_params({"evaluate": config.model_dump()})
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    flow, baselines = load(trained / "checkpoint"), _baselines(front)
    metrics = json.loads((front / NUMBERS).read_text())
    for split, prefixes in PREFIXES.items():
        if split in dataset.manifest.counts:
            metrics |= _metrics(split, prefixes, flow, baselines, dataset, config)
    (output / "evaluation.json").write_text(json.dumps(metrics, indent=1) + "\n")
    run.log_metrics(metrics)


def _baselines(front: Path) -> dict[str, tuple[str, Flow]]:
    """Returns the baselines by name, each with how the flow's gain over it is called."""
    return {
        "gaussian": ("gain", gaussian(Preprocessing.load(front / GAUSSIAN))),
        "mixture": ("gain_over_mixture", mixtures.density(
            mixtures.load(front / MIXTURE), Preprocessing.load(front / GAUSSIAN)
        )),
    }  # fmt: skip


def _metrics(
    name: str,
    prefixes: tuple[str, str],
    flow: Flow,
    baselines: Mapping[str, tuple[str, Flow]],
    dataset: Dataset,
    config: EvaluateConfig,
) -> dict[str, float]:
    """Returns the likelihoods of the flow and of the baselines on a split, how they differ too."""
    split, options = dataset.split(name), config.model_dump()
    ours = log_probs(flow, split, **options)
    metrics = _likelihood(prefixes[0], ours, split.width)
    for what, (gain, density) in baselines.items():
        theirs = log_probs(density, split, **options)
        metrics |= _likelihood(f"baseline/{what}_{prefixes[1]}", theirs, split.width)
        paired, at = Likelihood.of(ours - theirs, split.width), f"{prefixes[0]}{gain}"
        metrics |= {at: -paired.nll, f"{at}_se": paired.nll_se}
    return metrics


def _likelihood(prefix: str, found: Tensor, width: int) -> dict[str, float]:
    score = Likelihood.of(found, width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
