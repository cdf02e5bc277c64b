"""What a reader of a run's results should not miss."""

import math
from collections.abc import Iterator, Mapping

from pipelines.config import ModelConfig
from pipelines.data.manifest import Manifest
from pipelines.density.likelihoods import better

LEAST = 0.01
"""Nats by which a flow is worse than a baseline to be warned of: the last digit shown."""


def doubts(numbers: Mapping[str, float], manifest: Manifest, model: ModelConfig) -> Iterator[str]:
    """Yields warnings, a sentence each, from the metrics of a training and its evaluation."""
    if numbers["train/best_step"] == 0:
        yield (
            "no validation was better than the start: the checkpoint is the untrained flow. Lower "
            "--train.lr, train for longer, or give the anchor more weight"
        )
    rival = better(numbers)
    error = rival.difference_se
    if error is not None and rival.difference > max(error, LEAST):
        remedies = ", or ".join(_remedies(model, manifest.width))
        yield (
            f"the flow is worse than a {rival.name}, by {rival.difference:.2f} ± "
            f"{error:.2f} nats: {remedies}"
        )
    if manifest.levels is not None and numbers["test/bpd"] > math.log2(manifest.levels):
        yield (
            f"{numbers['test/bpd']:.3g} bits/dim: the flow is worse than a uniform one over "
            f"{manifest.levels} levels. With few training rows raise --preprocess.shrinkage"
        )


def _remedies(model: ModelConfig, width: int) -> Iterator[str]:
    """Yields what may help a model that is not so already; couplings need two features."""
    yield "train for longer (--train.steps, --train.max-seconds)"
    if model.base != "mixture":
        yield "start from the mixture (--model.base mixture)"
    if model.architecture != "coupling" and width > 1:
        yield "try couplings (--model.architecture coupling)"
