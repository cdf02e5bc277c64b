"""An anomaly detector as an estimator of scikit-learn."""

import datetime
from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import Tensor

from .detection import Score, p_values
from .encoder import Encoder, Table
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
    ignored. New kinds of values are another value of a constant, a new level, and the first
    missing value of a column. In a column with rare levels a new level is one of these. If a share
    of held-out rows has new kinds of values, a row with them is at least as anomalous as the same
    share of held-out rows by their scores. If no held-out row has as many, the row is more
    anomalous than all others.

    A fifth of the rows, at most 2,000, are held out for p-values: nothing is fitted to them, and
    their levels are not known. A normal row then has a p-value of at most α with probability α at
    most, also if it has a level or a missing value that no row had before. Fewer than 1,000 rows
    are held out in five parts in turn. The p-values are then approximate: means of five scores are
    compared with single held-out scores.

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
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._fit(X, used, weights, seed)
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
        X = self._checked(X, reset=False)
        scores, violations = zip(*(score(X) for score in self.scores_), strict=True)
        return -self._combined(np.mean(scores, 0), np.mean(violations, 0))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Returns ``score_samples`` minus the threshold: negative values are anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Returns −1 for anomalies, whose p-value is at most ``alpha``, and 1 for other rows."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """Returns the p-value of every row with shape (N,), if it is normal."""
        return p_values(-self.score_samples(X), self.held_out_scores_)

    def _fit(self, X: ArrayLike, used: np.ndarray, weights: Tensor | None, seed: int) -> None:
        """Fits a score without each part that is held out, and scores that part."""
        random = np.random.default_rng(generator(seed, "held out").initial_seed())
        parts = np.array_split(random.permutation(used), FOLDS)
        single = len(used) >= FEW and not self.references
        parts = [part[:HELD_OUT] for part in parts[: 1 if single else FOLDS]]
        table = Table(X, used)
        self.scores_, held_out = [], []
        for part in parts:
            others = np.setdiff1d(used, part)
            if weights is not None:
                others = others[copies(weights[others], seed).numpy()]
                part = part[copies(weights[part], seed).numpy()]
            encoder = Encoder(table, others)
            chosen = np.sort(random.permutation(others)[:REFERENCES])
            rows = table.training[chosen]
            if few := self.references:
                first = [
                    _score(encoder, random.permutation(rows)[:few], seed) for _ in range(FOLDS)
                ]
                order = np.argsort(_mean(encoder, first, rows), kind="stable")
                rows = random.permutation(rows[order[: max(LEAST, len(rows) // 2)]])[:few]
            fitted = FittedScore(encoder, _score(encoder, rows, seed))
            self.scores_.append(fitted)
            held_out.append(fitted.of_numbers(table.training[part]))
        scores, violations = map(np.concatenate, zip(*held_out, strict=True))
        self._scores, self._violations = np.sort(scores), np.sort(violations)
        self.held_out_scores_ = np.sort(self._combined(scores, violations))

    def _combined(self, scores: np.ndarray, violations: np.ndarray) -> np.ndarray:
        """Returns scores that include new kinds of values, each with shape (N,).

        If k held-out rows have at least as many of them as a row, its score is at least the k-th
        largest of the held-out rows.
        """
        held = len(self._scores)
        count = held - np.searchsorted(self._violations, violations)
        as_rare = np.maximum(scores, self._scores[np.minimum(held - count, held - 1)])
        new = np.where(count > 0, as_rare, scores + NEW * violations)
        return np.where(violations > 0, new, scores)


@dataclass(frozen=True)
class FittedScore:
    """A score and the encoder of rows, both fitted to the same rows."""

    encoder: Encoder
    score: Score

    def __call__(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Returns the score of every row, and its number of new kinds of values: (N,) each."""
        return self.of_numbers(self.encoder.numbers(X))

    def of_numbers(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same for rows as the encoder's numbers, with shape (N, D)."""
        return _mean(self.encoder, [self.score], numbers), self.encoder.violations(numbers)


def _score(encoder: Encoder, numbers: np.ndarray, seed: int) -> Score:
    return Score(encoder.elements(numbers), encoder.ranges, seed=seed)


def _mean(encoder: Encoder, scores: list[Score], numbers: np.ndarray) -> np.ndarray:
    """Returns the mean of scores; it encodes few rows at a time."""
    parts = np.array_split(numbers, range(PART, len(numbers), PART))
    elements = (encoder.elements(part) for part in parts)
    return np.concatenate([np.mean([score(x) for score in scores], 0) for x in elements])


def _has_kinds(X: ArrayLike) -> bool:
    """Returns True for frames, and for arrays that contain text or times."""
    if is_frame(X):
        return True
    array, kinds = np.asarray(X), (str, datetime.date)
    objects = array.dtype.kind == "O" and any(isinstance(value, kinds) for value in array.flat)
    return objects or array.dtype.kind in "UTMm"
