"""The detector as one of pyod's, which has the extra ``ebflow[pyod]``."""

from typing import Self

import numpy as np
from pyod.models.base import BaseDetector
from sklearn.utils.validation import check_is_fitted

from . import detector


class FlowDetector(BaseDetector):
    """The detector of ``ebflow.sklearn`` with pyod's interface: high scores are anomalies.

    Arguments:
        contamination: The share of anomalies in the training rows, which decides the threshold.
        references: The number of reference rows of a score; None: the training rows are normal.

    Attributes:
        decision_scores_: The scores of the training rows, with shape (N,).
        threshold_: The threshold of ``predict``.
        labels_: 1 for the training rows that are anomalies, else 0.
        detector_: The detector of ``ebflow.sklearn``.
    """

    def __init__(
        self, contamination: float = 0.1, *, references: int | None = 64, random_state: int = 0
    ) -> None:
        super().__init__(contamination=contamination)
        self.references = references
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: object = None) -> Self:
        """Fits the detector to rows with shape (N, D); ``y`` is not used."""
        self._set_n_classes(y)
        self.detector_ = detector.FlowDetector(
            references=self.references, random_state=self.random_state
        ).fit(X)
        self.decision_scores_ = -self.detector_.score_samples(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Returns the anomaly scores of rows with shape (N,)."""
        check_is_fitted(self, ["decision_scores_", "threshold_", "labels_"])
        return -self.detector_.score_samples(X)
