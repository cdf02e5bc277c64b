"""An anomaly detector as an estimator of scikit-learn."""

import datetime
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import Tensor

from .detection import Score, p_values
from .encoder import Encoder
from .errors import BadInput, warn
from .randomness import generator
from .tables import ArrayLike
from .tables.frames import is_frame, library_of
from .tables.gathering import LEAST, check_count, copies, row_weights

FOLDS = 5  # Parts of the rows
FEW = 1_000  # Rows below which each part is held out in turn
REFERENCES, HELD_OUT = 10_000, 2_000  # Most reference rows and held-out rows
PART = 1_000  # Rows that are scored at once
NEW = 1e6  # Score of a new kind of value; other scores are below 1e4


class TableEstimator(BaseEstimator):
    """An estimator of rows, in which values may be missing."""

    def __sklearn_tags__(self) -> Tags:
        """Returns what scikit-learn has to know: values may be missing."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _checked(self, X: ArrayLike, *, reset: bool) -> ArrayLike:
        """Returns tables with text or times as they are, and other rows as an array of numbers."""
        if library_of(X) == "dict":
            raise TypeError("X: found a mapping, expected a frame: pandas.DataFrame(X)")
        if _has_kinds(X):
            return validate_data(self, X, reset=reset, skip_check_array=True)
        options = {"ensure_min_samples": LEAST} if reset else {}
        return validate_data(self, X, reset=reset, ensure_all_finite=False, **options)


class FlowDetector(OutlierMixin, TableEstimator):
    """A detector of anomalies, fitted to normal rows, with p-values.

    Rows may be those of a frame with text, categories, times and missing values. Identifiers are
    ignored. A new kind of value makes a row more anomalous than all rows without one. Such values
    are another value of a constant, a new level, and the first missing value of a column.

    A fifth of the rows, at most 2,000, are held out for p-values. A normal row then has a p-value
    of at most α with probability α. Fewer than 1,000 rows are held out in five parts in turn. The
    p-values are then approximate: means of five scores are compared with single held-out scores.

    The score is described in ``ebflow.detection``.

    Arguments:
        alpha: The false-alarm rate of ``predict``.
        references: The number of reference rows of a score, for training rows with anomalies
            among them. Few rows, such as 64, cannot hold a cluster of anomalies that explains
            itself. They come from the more normal half of the rows by five first scores, which
            have other references. Five such scores are averaged. None: all rows are normal.
        random_state: The source of randomness: a seed, a ``RandomState``, or None.

    Attributes:
        offset_: The threshold: rows with lower ``score_samples`` are anomalies.
        held_out_scores_: The scores of the held-out rows, ascending.
        scores_: The fitted scores, one for each part that was held out.

    Example:
        >>> from ebflow.sklearn import FlowDetector
        >>> detector = FlowDetector().fit(X)
        >>> detector.predict([[0.0, 0.1, 0.2], [40.0, 0.0, 0.0]])
        array([ 1, -1])
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        references: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.alpha = alpha
        self.references = references
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fits the score to normal rows ``X`` (N, D) of some weights (N,); ``y`` is not used.

        Raises:
            ValueError: if fewer than five rows have a weight; a parameter is out of its range; a
                number is infinite or beyond 1e100; all columns are identifiers.
        """
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha: found {self.alpha}, expected a rate from 0 to below 1")
        if self.references is not None and self.references < LEAST:
            raise ValueError(f"references: found {self.references}, expected {LEAST} or more")
        X = self._checked(X, reset=True)
        rows = check_count(X)
        weights = row_weights(sample_weight, rows)
        used = np.arange(rows) if weights is None else np.flatnonzero(weights.numpy())
        if len(used) < LEAST:
            found = f"{len(used)} rows with a weight above zero"
            raise BadInput(option="sample_weight", found=found, expected=f"{LEAST} or more")
        self._encoder = Encoder(X, used)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._fit(self._encoder.numbers(X), used, weights, seed)
        held = len(self.held_out_scores_)
        allowed = int(self.alpha * (held + 1) + 1e-9)
        if not allowed:
            warn(f"alpha: found {self.alpha}, which no row can reach by {held} held-out rows")
        largest = self.held_out_scores_[-allowed] if allowed else np.finfo(float).max
        self.offset_ = -float(largest)
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Returns the negative anomaly score of every row with shape (N,): higher is normal."""
        check_is_fitted(self)
        numbers = self._encoder.numbers(self._checked(X, reset=False))
        return -self._mean(self.scores_, numbers) - NEW * self._encoder.violations(numbers)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Returns ``score_samples`` minus the threshold: negative values are anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Returns −1 for anomalies, whose p-value is at most ``alpha``, and 1 for other rows."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """Returns the p-value of every row with shape (N,), if it is normal."""
        return p_values(-self.score_samples(X), self.held_out_scores_)

    def _fit(
        self, numbers: np.ndarray, used: np.ndarray, weights: Tensor | None, seed: int
    ) -> None:
        """Fits a score without each part that is held out, and scores that part."""
        random = np.random.default_rng(generator(seed, "held out").initial_seed())
        parts = np.array_split(random.permutation(used), FOLDS)
        single = len(used) >= FEW and not self.references
        parts = [part[:HELD_OUT] for part in parts[: 1 if single else FOLDS]]
        self.scores_, held_out = [], []
        for part in parts:
            others = np.setdiff1d(used, part)
            if weights is not None:
                others = others[copies(weights[others], seed).numpy()]
                part = part[copies(weights[part], seed).numpy()]
            rows = numbers[np.sort(random.permutation(others)[:REFERENCES])]
            if few := self.references:
                first = [self._score(random.permutation(rows)[:few], seed) for _ in range(FOLDS)]
                order = np.argsort(self._mean(first, rows), kind="stable")
                rows = random.permutation(rows[order[: max(LEAST, len(rows) // 2)]])[:few]
            self.scores_.append(self._score(rows, seed))
            held_out.append(self._mean(self.scores_[-1:], numbers[part]))
        self.held_out_scores_ = np.sort(np.concatenate(held_out))

    def _score(self, numbers: np.ndarray, seed: int) -> Score:
        return Score(self._encoder.elements(numbers), self._encoder.ranges, seed=seed)

    def _mean(self, scores: list[Score], numbers: np.ndarray) -> np.ndarray:
        """Returns the mean of scores; it encodes few rows at a time."""
        parts = np.array_split(numbers, range(PART, len(numbers), PART))
        elements = (self._encoder.elements(part) for part in parts)
        return np.concatenate([np.mean([score(x) for score in scores], 0) for x in elements])


def _has_kinds(X: ArrayLike) -> bool:
    """Returns True for frames, and for arrays that contain text or times."""
    if is_frame(X):
        return True
    array, kinds = np.asarray(X), (str, datetime.date)
    objects = array.dtype.kind == "O" and any(isinstance(value, kinds) for value in array.flat)
    return objects or array.dtype.kind in "UTMm"
