"""From a trained flow to its exact likelihood, beside that of a Gaussian."""

__all__ = ["baseline", "evaluate"]

import json
from pathlib import Path

from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.data.preprocessing import SingularCovariance, gaussian
from ebflow.data.schema import SELECTION
from ebflow.evaluate import Evaluation, log_probs
from ebflow.flow import Flow
from pipelines.config import EvaluateConfig, PreprocessConfig
from pipelines.tracking import StageRun

LEAST_SHRINKAGE = 1e-6

PREFIXES = {
    "test": ("test/", "baseline/gaussian_"),
    "validation": ("best/val_", "baseline/gaussian_val_"),
    SELECTION: ("select/", "baseline/gaussian_select_"),
}
"""Of the metrics of the flow and of the Gaussian, by the splits that there may be."""


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
    flows = load(trained / "checkpoint"), reference
    metrics = {"baseline/gaussian_shrinkage": shrinkage}
    for split, prefixes in PREFIXES.items():
        if split in dataset.manifest.counts:
            metrics |= _metrics(split, prefixes, flows, dataset, config)
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
    name: str,
    prefixes: tuple[str, str],
    flows: tuple[Flow, Flow],
    dataset: Dataset,
    config: EvaluateConfig,
) -> dict[str, float]:
    """Returns the likelihoods of the flow and of the Gaussian on a split, and how they differ."""
    split = dataset.split(name)
    ours, theirs = (log_probs(flow, split, **config.model_dump()) for flow in flows)
    metrics = {}
    for prefix, found in zip(prefixes, (ours, theirs), strict=True):
        score = Evaluation.of(found, split.width)
        metrics |= {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
    paired = Evaluation.of(ours - theirs, split.width)
    metrics[f"{prefixes[0]}gain"], metrics[f"{prefixes[0]}gain_se"] = -paired.nll, paired.nll_se
    return metrics
