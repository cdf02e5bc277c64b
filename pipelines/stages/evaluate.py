"""From a trained flow to its exact likelihood, beside that of a Gaussian."""

__all__ = ["baseline", "evaluate"]

import json
from pathlib import Path

from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.data.preprocessing import SingularCovariance, gaussian
from ebflow.evaluate import evaluate as likelihood
from ebflow.flow import Flow
from pipelines.config import EvaluateConfig, PreprocessConfig
from pipelines.tracking import StageRun

LEAST_SHRINKAGE = 1e-6


def evaluate(
    config: EvaluateConfig,
    front: PreprocessConfig,
    data: Path,
    trained: Path,
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``evaluation.json``: likelihoods of the flow and of a full-covariance Gaussian.

    The Gaussian is fitted by maximum likelihood to the same training split behind the same
    dequantisation and logit, and evaluated with the same draws. Where its covariance is singular
    it gets the preprocessing's shrinkage, or a least one: ``baseline/gaussian_shrinkage``.
    """
    run.log_params({"evaluate": config.model_dump(), "preprocess": front.model_dump()})
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    reference, shrinkage = baseline(dataset, front)
    metrics = {
        "baseline/gaussian_shrinkage": shrinkage,
        **_metrics(("test/", "best/val_"), load(trained / "checkpoint"), dataset, config),
        **_metrics(("baseline/gaussian_", "baseline/gaussian_val_"), reference, dataset, config),
    }
    (output / "evaluation.json").write_text(json.dumps(metrics, indent=1) + "\n")
    run.log_metrics(metrics)


def baseline(dataset: Dataset, front: PreprocessConfig) -> tuple[Flow, float]:
    """Returns the Gaussian of greatest likelihood, and the shrinkage that it needed; mostly 0."""
    train, chain = dataset.split("train"), {"margin": front.logit, "scale": front.scale}
    try:
        return gaussian(train, **chain), 0.0
    except SingularCovariance:
        shrinkage = front.shrinkage or LEAST_SHRINKAGE
        return gaussian(train, shrinkage=shrinkage, **chain), shrinkage


def _metrics(
    names: tuple[str, str], flow: Flow, dataset: Dataset, config: EvaluateConfig
) -> dict[str, float]:
    metrics = {}
    for split, name in zip(("test", "validation"), names, strict=True):
        found = likelihood(flow, dataset.split(split), **config.model_dump())
        metrics |= {f"{name}{key}": getattr(found, key) for key in ("nll", "nll_se", "bpd")}
    return metrics
