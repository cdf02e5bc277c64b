"""What is measured: a classifier, and all that stands beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ebflow.alignment.logit import Classifier
from ebflow.alignment.reference import Normalised, Reference, Scores
from ebflow.randomness import generator
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.references import Points

Found = dict[str, float | np.ndarray]
"""Numbers, and arrays for figures."""


@dataclass(frozen=True)
class Subject:
    """A classifier to be measured, and what it is measured with.

    Attributes:
        config: What is measured.
        network: The classifier.
        baseline: The one without a regulariser, of the same seed.
        judge: One of another architecture that was trained independently.
        shape: The shape of an example.
        points: Test points.
        scores: The reference's there.
        reference: The reference.
        blind: Class-blind densities by name.
        randomised: The classifier with parameters drawn anew, some draws of each kind.
    """

    config: MeasureConfig
    network: Classifier
    baseline: Classifier
    judge: Classifier
    shape: Sequence[int]
    points: Points
    scores: Scores
    reference: Reference
    blind: Mapping[str, Normalised]
    randomised: Mapping[str, Sequence[Classifier]]

    def draws(self, *purpose: str | int) -> torch.Generator:
        """Returns the random numbers of a purpose, from their start."""
        return generator(self.config.seed, *purpose, device=self.config.device)
