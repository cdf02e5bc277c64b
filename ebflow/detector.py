"""An anomaly detector as an estimator of scikit-learn."""

__all__ = ["Encoder", "FlowDetector"]

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from .detection import Score, p_values
from .errors import warn
from .randomness import generator
from .tables import ArrayLike, detect_columns
from .tables.adapter import is_table
from .tables.column import Column
from .tables.frames import columns_of, is_frame, is_positional, read
from .tables.gathering import LEAST, copies, row_weights

FOLDS, FEW = 5, 1_000
"""Parts of the rows, and the number of rows below which each part is held out in turn."""

HELD_OUT = 2_000
"""Most held-out rows."""


class FlowDetector(OutlierMixin, BaseEstimator):
    """A detector of anomalies, fitted to normal rows, with p-values.

    Rows may be those of a frame with text, categories, times and missing values. Identifiers are
    left out. A row that differs in a column that is constant in the training rows is more
    anomalous than all rows that do not.

    A fifth of the rows, at most 2,000, are held out for p-values. A normal row then has a p-value
    of at most α with probability α. Fewer than 1,000 rows are held out in five parts in turn, and
    the p-values are approximate.

    The score is described in ``ebflow.detection``.

    Arguments:
        alpha: The false-alarm rate of ``predict``.
        references: The number of reference rows of a score, for training rows with anomalies
            among them. Few rows, such as 64, cannot hold a cluster of anomalies that explains
            itself. Five scores of other random rows are averaged. None: all rows are normal.
        max_seconds: Most seconds of the flow's training. 0: a mixture of Gaussians takes the place
            of the flow.
        random_state: The source of randomness: a seed, a ``RandomState``, or None.

    Attributes:
        offset_: The threshold: rows with lower ``score_samples`` are anomalies.
        held_out_scores_: The scores of the held-out rows, ascending.
        scores_: The fitted scores, one for each part that was held out.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if they have any.

    Example:
        >>> from ebflow.sklearn import FlowDetector
        >>> detector = FlowDetector(max_seconds=0).fit(X)
        >>> detector.predict([[0.0, 0.1, 0.2], [40.0, 0.0, 0.0]])
        array([ 1, -1])
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        references: int | None = None,
        max_seconds: float = 8.0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.alpha = alpha
        self.references = references
        self.max_seconds = max_seconds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Returns what scikit-learn has to know: values may be missing."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,  # noqa: ANN401
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fits the score to normal rows ``X`` with shape (N, D); ``y`` is not used.

        Arguments:
            X: The rows.
            y: Not used.
            sample_weight: The weight of each row, with shape (N,).

        Raises:
            ValueError: if there are fewer than five rows, or ``alpha`` is out of its range.
        """
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha: found {self.alpha}, expected a rate from 0 to below 1")
        X = self._checked(X, reset=True)
        self._encoder = Encoder(X)
        rows = self._encoder(X)
        weights = row_weights(sample_weight, len(rows))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        used = np.arange(len(rows)) if weights is None else np.flatnonzero(weights.numpy())
        self._fit(rows, used, weights, seed)
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
        rows = self._encoder(self._checked(X, reset=False))
        return -np.mean([score(rows) for score in self.scores_], 0)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Returns ``score_samples`` minus the threshold: negative values are anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Returns −1 for anomalies, whose p-value is at most ``alpha``, and 1 for other rows."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """Returns the p-value of every row with shape (N,), if it is normal."""
        return p_values(-self.score_samples(X), self.held_out_scores_)

    def _fit(self, rows: np.ndarray, used: np.ndarray, weights: Any, seed: int) -> None:  # noqa: ANN401
        """Fits a score without each part that is held out, and scores that part."""
        random = np.random.default_rng(generator(seed, "held out").initial_seed())
        parts = np.array_split(random.permutation(used), FOLDS)
        single = len(used) >= FEW and not self.references
        parts = [part[:HELD_OUT] for part in parts[: 1 if single else FOLDS]]
        self.scores_, held_out = [], []
        for part in parts:
            others = random.permutation(np.setdiff1d(used, part))[: self.references]
            if weights is not None:
                others = others[copies(weights[others], seed)]
                part = part[copies(weights[part], seed)]
            seconds = self.max_seconds / len(parts)
            self.scores_.append(Score(rows[others], seconds=seconds, seed=seed))
            held_out.append(self.scores_[-1](rows[part]))
        self.held_out_scores_ = np.sort(np.concatenate(held_out))

    def _checked(self, X: ArrayLike, *, reset: bool) -> ArrayLike:
        """Returns frames and arrays of objects as they are, and other rows as finite numbers."""
        if is_frame(X) or (not reset and self._encoder.columns is not None):
            return validate_data(self, X, reset=reset, skip_check_array=True)
        options = {"ensure_min_samples": LEAST} if reset else {}
        return validate_data(self, X, reset=reset, dtype=np.float64,
                             ensure_all_finite="allow-nan", **options)  # fmt: skip


class Encoder:
    """Encodes a table as finite numbers.

    Categories are one-hot, and a new level has a column of its own. Missing values are the
    column's median, and a column that lacks values has an indicator.

    Arguments:
        X: The training rows.
    """

    def __init__(self, X: ArrayLike) -> None:
        self.columns = detect_columns(X) if is_table(X) else None
        numbers = self._numbers(X)
        self.lacking = np.isnan(numbers).any(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of columns without any value
            self.medians = np.nan_to_num(np.nanmedian(numbers, 0))

    def __call__(self, X: ArrayLike) -> np.ndarray:
        """Returns numbers with shape (N, C)."""
        numbers = self._numbers(X)
        missing = np.isnan(numbers)
        return np.hstack([np.where(missing, self.medians, numbers), missing[:, self.lacking]])

    def _numbers(self, X: ArrayLike) -> np.ndarray:
        if self.columns is None:
            return np.asarray(X, np.float64)
        columns = columns_of(X)
        if is_positional(X):
            columns = dict(zip(self.columns.names, columns.values(), strict=True))
        used = (column for column in self.columns if column.dropped != "identifier")
        parts = [_encoded(column, columns[column.name]) for column in used]
        rows = len(next(iter(columns.values())))
        return np.hstack([np.empty((rows, 0)), *parts])  # all columns may be identifiers


def _encoded(column: Column, values: Any) -> np.ndarray:  # noqa: ANN401
    """Returns a column of numbers with shape (N, 1), or the levels of a category (N, K + 1)."""
    numbers = column.encode(read(values, column.name))[:, None]
    if column.size < 2:
        return numbers
    return np.where(np.isnan(numbers), np.nan, numbers == np.arange(column.size + 1))
