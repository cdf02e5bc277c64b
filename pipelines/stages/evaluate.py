"""From a trained flow to its exact likelihood, beside that of a Gaussian."""

__all__ = ["evaluate"]

import json
from pathlib import Path

from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.data.manifest import SELECTION
from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, gaussian
from pipelines.config import EvaluateConfig
from pipelines.front import GAUSSIAN, NUMBERS
from pipelines.tracking import StageRun

PREFIXES = {
    "test": ("test/", "baseline/gaussian_"),
    "validation": ("best/val_", "baseline/gaussian_val_"),
    SELECTION: ("select/", "baseline/gaussian_select_"),
}
"""Of the metrics of the flow and of the Gaussian, by the splits that there may be."""


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
    """Writes ``evaluation.json``: likelihoods of the flow and of a full-covariance Gaussian.

    The Gaussian is fitted by maximum likelihood to the same training split behind the same
    dequantisation and logit, and evaluated with the same draws. Where its covariance is singular
    it gets the preprocessing's shrinkage, or a least one: ``baseline/gaussian_shrinkage``.
    """
    run.log_params({"evaluate": config.model_dump()})
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    flows = load(trained / "checkpoint"), gaussian(Preprocessing.load(front / GAUSSIAN))
    metrics = json.loads((front / NUMBERS).read_text())
    for split, prefixes in PREFIXES.items():
        if split in dataset.manifest.counts:
            metrics |= _metrics(split, prefixes, flows, dataset, config)
    (output / "evaluation.json").write_text(json.dumps(metrics, indent=1) + "\n")
    run.log_metrics(metrics)


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
        score = Likelihood.of(found, split.width)
        metrics |= {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
    paired = Likelihood.of(ours - theirs, split.width)
    metrics[f"{prefixes[0]}gain"], metrics[f"{prefixes[0]}gain_se"] = -paired.nll, paired.nll_se
    return metrics
