"""Rows of a split that a classifier was not trained on, beside the reference's scores there."""

from pathlib import Path

from torch import nn

from ebflow.alignment import metrics
from ebflow.alignment.logit import accuracy
from ebflow.data.loader import Dataset
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.gradient_alignment.references import open_reference, points

MOST = 1000
"""Points at most."""


class Held:
    """Labelled points with the noise of the study, and the reference at them.

    Arguments:
        config: Seed and noise of the points.
        dataset: Prepared data with classes.
        reference: What the reference stage wrote for them.
        split: Which rows.
    """

    def __init__(
        self, config: ClassifierConfig, dataset: Dataset, reference: Path, split: str
    ) -> None:
        found = points(dataset, split, MOST, config.smoothing, config.seed)
        self.points = found.to(config.device)
        self.scores = open_reference(reference, config.device).at(self.points.noisy)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Returns ``accuracy`` (of clean rows), ``A1`` … ``A3`` and ``dsm_residual``.

        Beside a reference of all rows, A2 alone. Leaves the classifier in evaluation mode.
        """
        held = self.points
        found = metrics.gradients(network.eval(), held.noisy, held.labels)
        cosines = metrics.alignments(found, self.scores)
        return {
            "accuracy": accuracy(network, held.clean, held.labels),
            **{name: float(values.mean()) for name, values in cosines.items()},
            "dsm_residual": metrics.dsm(found.own, held.noise, held.sigma)[1].value,
        }
