"""What a reader of a run's results should not miss."""

import math
from collections.abc import Iterator, Mapping

from ebflow.data.manifest import Manifest
from pipelines.config import ModelConfig
from pipelines.density.likelihoods import better

WARNINGS = "warnings.json"
"""File of them, beside the report."""

FIT = "fit.json"
"""File of how far samples and latents are from the test rows, beside the report."""

LONGER = "train for longer (--train.steps, --train.max-seconds)"
REMEDIES = {
    ("base", "mixture"): "start from the mixture (--model.base mixture)",
    ("architecture", "coupling"): "try couplings (--model.architecture coupling)",
}
"""What may help a model that is not so already."""


def doubts(numbers: Mapping[str, float], manifest: Manifest, model: ModelConfig) -> Iterator[str]:
    """Yields warnings, a sentence each, from the metrics of a training and its evaluation."""
    if numbers["train/best_step"] == 0:
        yield (
            "no validation was better than the start: the checkpoint is the untrained flow. Lower "
            "--train.lr, train for longer, or give the anchor more weight"
        )
    if (rival := better(numbers)).difference > rival.difference_se:
        yield (
            f"the flow is worse than a {rival.name}, by {rival.difference:.2f} ± "
            f"{rival.difference_se:.2f} nats: {_remedies(model)}"
        )
    if manifest.levels is not None and numbers["test/bpd"] > math.log2(manifest.levels):
        yield (
            f"{numbers['test/bpd']:.3g} bits/dim: the flow is worse than a uniform one over "
            f"{manifest.levels} levels. With few training rows raise --preprocess.shrinkage"
        )


def _remedies(model: ModelConfig) -> str:
    tried = {*((name, getattr(model, name)) for name, _ in REMEDIES)}
    return ", or ".join([LONGER, *(text for what, text in REMEDIES.items() if what not in tried)])
