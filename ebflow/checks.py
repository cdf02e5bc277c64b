r"""Checks of synthetic rows against real ones.

* **C2ST**, the classifier two-sample test: gradient boosting learns to distinguish synthetic from
  real rows. The score is :math:`1 - (2 \max(A, \tfrac12) - 1)`, with the mean over three folds, of
  the area A under the ROC curve of rows that were not learned. It is 1 if they look the same.
* **Column shapes** and **pair trends**, as SDMetrics defines them: the complement of the
  Kolmogorov-Smirnov distance of numbers, and of the total variation of categories; the similarity
  of correlations, and of contingency tables if one of the two columns is a category.
* **Copies**: the share of synthetic rows that are nearer to a training row than to any of as many
  held-out rows. It is ½ if the model copies no training rows.
* **Prediction**: a random forest learns a column from the others of synthetic rows, and is tested
  on real ones.

Sources: Revisiting Classifier Two-Sample Tests (Lopez-Paz, Oquab, 2017), arXiv:1610.06545;
SDMetrics (DataCebo), https://docs.sdv.dev/sdmetrics.
"""

__all__ = ["LEAST", "Check", "Line", "check"]

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from .tables import ArrayLike, Columns, detect_columns
from .tables.frames import columns_of, read

LEAST = 20
"""Rows of a check at least."""

LEVELS = 254
"""Levels of a category that trees distinguish; rarer ones are one level."""

BINS = 10
"""Bins of a number beside a category, between the ends of its own table, as in SDMetrics."""

CHUNK = 500
"""Rows whose distances to all others are computed at a time."""

DISCRETE = ("category", "boolean")
"""Kinds of columns whose values are compared as levels."""

Scores = Mapping[str, float]


class Line(NamedTuple):
    """One figure of a check.

    Attributes:
        name: Its name.
        value: The value of the synthetic rows.
        real: The same for real rows in their place; None: there is none.
        note: What the value means, or where it is worst.
    """

    name: str
    value: float
    real: float | None
    note: str


@dataclass(frozen=True)
class Check:
    """The comparison of synthetic rows with real ones; ``print`` shows the table.

    Attributes:
        lines: The figures.
        shapes: The similarity of each column, by name.
        trends: The similarity of each pair of columns, as ``age × income``.
    """

    lines: tuple[Line, ...]
    shapes: Scores
    trends: Scores

    def __getitem__(self, name: str) -> float:
        return next(line.value for line in self.lines if line.name == name)

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """The cells of a table, its headings first."""
        cells = [("", "synthetic", "real", "")]
        for name, value, real, note in self.lines:
            cells.append((name, f"{value:.3f}", "" if real is None else f"{real:.3f}", note))
        return cells

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures, JSON-able."""
        lines = {line.name: line._asdict() for line in self.lines}
        return {"lines": lines, "column shapes": self.shapes, "pair trends": self.trends}

    def __str__(self) -> str:
        first = max(len(row[0]) for row in self.rows)
        return "\n".join(f"{a:<{first}}  {b:>9}  {c:>6}  {d}".rstrip() for a, b, c, d in self.rows)


def check(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    train: ArrayLike | None = None,
    columns: Columns | None = None,
    target: str | None = None,
    rows: int = 10_000,
    seed: int = 0,
) -> Check:
    """Compares synthetic rows with real ones.

    The column ``real`` of the table has the same figures of real rows in place of synthetic ones:
    of random halves of all real rows. As many rows are used of each table. Identifiers, constants
    and linear functions of other columns are left out. If only real rows have missing values, the
    classifier sees synthetic rows with the same gaps.

    Cost: about ten seconds for 10,000 rows and 11 columns on one core.

    Arguments:
        real: Real rows; best such that the model was not trained on.
        synthetic: Synthetic rows with the same columns.
        train: The rows that the model was trained on, to find copies. None: this is left out.
        columns: The columns, as ``flow.columns``; None: those that are detected in ``real``.
        target: The column that is predicted; None: the last category, or the last column.
        rows: Rows of each table that are used at most.
        seed: The seed of folds and halves.

    Raises:
        ValueError: if a column is missing, or no column varies.

    Example:
        >>> rows = {"a": np.arange(40.0) % 7, "b": np.arange(40) % 2}
        >>> print(ebflow.check(rows, rows)["column shapes"])
        1.0
    """
    random = np.random.default_rng(seed)
    columns = detect_columns(real, what="real") if columns is None else columns
    names, kinds = columns.features, np.array([c.kind in DISCRETE for c in columns.modelled])
    if not names or target not in (None, *names):
        raise ValueError(f"target: found {target!r}, expected one of {', '.join(names) or 'none'}")
    frames = {"real": real, "synthetic": synthetic, "train": train}
    tables = _numbers({name: f for name, f in frames.items() if f is not None}, columns)
    count = min(rows, *map(len, tables.values()))
    if count < LEAST:
        raise ValueError(f"real, synthetic: found {count} rows, expected {LEAST} or more of each")
    tables = {name: random.permutation(table)[:count] for name, table in tables.items()}
    x, y, known = (tables.get(name) for name in frames)
    halves = np.array_split(random.permutation(x if known is None else np.r_[x, known]), 2)
    gaps = np.isnan(x) & ~np.isnan(y).any(0)
    z = np.where(gaps, np.nan, y)
    shapes, trends = _shapes(x, y, names, kinds), _trends(x, y, names, kinds)
    scores = (_c2st(*pair, kinds, seed) for pair in ((x, z), halves))
    lines = [
        Line(f"C2ST ({_booster()})", *scores, "1: a classifier finds no difference"),
        _mean("column shapes", shapes, _shapes(*halves, names, kinds)),
    ]
    if len(names) > 1:
        lines.append(_mean("pair trends", trends, _trends(*halves, names, kinds)))
        k = names.index(target) if target else max(np.flatnonzero(kinds), default=len(names) - 1)
        learned, tested = halves if known is None else (known, x)
        found = (
            _predicted(rows, tested, k, is_level=kinds[k]) for rows in (z[: len(learned)], learned)
        )
        score = "accuracy" if kinds[k] else "R²"
        note = f"{score} on real rows, after learning from synthetic or real ones"
        lines.append(Line(f"prediction of {names[k]}", *found, note))
    if known is not None:
        lines.append(_copies(known, x, y, kinds))
    return Check(tuple(lines), shapes, trends)


def _numbers(frames: Mapping[str, ArrayLike], columns: Columns) -> dict[str, np.ndarray]:
    """Returns the numbers of each frame, (N, D); the codes of categories are by frequency."""
    tables = {name: columns_of(frame, name) for name, frame in frames.items()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in frames}
    for column in columns.modelled:
        for name, table in tables.items():
            if column.name not in table:
                raise ValueError(
                    f"{name}: found no column {column.name!r}, expected it as in real"
                )
        series = {name: read(table[column.name], column.name) for name, table in tables.items()}
        if column.kind == "category":
            texts = {name: one.texts for name, one in series.items()}
            counts = Counter(t for each in texts.values() for t in each if t is not None)
            codes = {text: code for code, (text, _) in enumerate(counts.most_common())}
            for name, each in texts.items():
                found[name].append(np.array([codes.get(text, np.nan) for text in each]))
        else:
            for name, one in series.items():
                found[name].append(column.encode(one, name))
    return {name: np.stack(arrays, 1) for name, arrays in found.items()}


def _mean(name: str, scores: Mapping[Any, float], real: Mapping[Any, float]) -> Line:
    """Returns the mean of scores, and the names of the lowest."""
    lowest = min(scores, key=scores.__getitem__)
    means = (float(np.mean([*each.values()])) for each in (scores, real))
    return Line(name, *means, f"lowest: {lowest} {scores[lowest]:.3f}")


def _shapes(x: np.ndarray, y: np.ndarray, names: Sequence[str], kinds: np.ndarray) -> Scores:
    """Returns the similarity of each column, without missing values."""
    scores = {}
    for k, name in enumerate(names):
        one, other = (rows[~np.isnan(rows[:, k]), k] for rows in (x, y))
        if len(one) and len(other):
            scores[name] = 1 - (_variation if kinds[k] else _kolmogorov)(one, other)
    return scores


def _trends(x: np.ndarray, y: np.ndarray, names: Sequence[str], kinds: np.ndarray) -> Scores:
    """Returns the similarity of each pair of columns; a missing value is a level of its own."""
    one, other = _binned(x, kinds), _binned(y, kinds)
    width, scores = max(one.max(), other.max()) + 1, {}
    for j, k in combinations(range(len(names)), 2):
        if kinds[j] or kinds[k]:
            distance = _variation(*(rows[:, j] * width + rows[:, k] for rows in (one, other)))
        else:
            distance = abs(_correlation(x[:, [j, k]]) - _correlation(y[:, [j, k]])) / 2
        if not math.isnan(distance):
            scores[f"{names[j]} × {names[k]}"] = float(1 - distance)
    return scores


def _binned(rows: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Returns whole numbers from 0: one more than codes, and bins of numbers."""
    codes = np.where(np.isnan(rows), 0, rows + 1)
    for k in np.flatnonzero(~kinds):
        edges = np.histogram_bin_edges(rows[~np.isnan(rows[:, k]), k], BINS)
        codes[:, k] = np.digitize(rows[:, k], edges)
    return codes.astype(int)


def _kolmogorov(x: np.ndarray, y: np.ndarray) -> float:
    return float(ks_2samp(x, y).statistic)


def _variation(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the total variation of two samples of whole numbers."""
    x, y = (rows.astype(int) for rows in (x, y))
    size = max(x.max(), y.max()) + 1
    one, other = (np.bincount(rows, minlength=size) / len(rows) for rows in (x, y))
    return 0.5 * float(abs(one - other).sum())


def _correlation(pair: np.ndarray) -> float:
    """Returns the correlation of complete rows of two columns; NaN of a constant one."""
    pair = pair[~np.isnan(pair).any(1)]
    if len(pair) < 2 or not np.ptp(pair, 0).all():
        return math.nan
    return float(np.corrcoef(pair.T)[0, 1])


def _booster() -> str:
    return "XGBoost" if find_spec("xgboost") else "HistGradientBoosting"


def _classifier(kinds: np.ndarray) -> Any:  # noqa: ANN401
    """Returns XGBoost with its default settings if it is installed, else scikit-learn's trees."""
    if _booster() == "HistGradientBoosting":
        return HistGradientBoostingClassifier(categorical_features=kinds, random_state=0)
    from xgboost import XGBClassifier

    types = ["c" if discrete else "q" for discrete in kinds]
    return XGBClassifier(feature_types=types, enable_categorical=True, random_state=0)


def _c2st(x: np.ndarray, y: np.ndarray, kinds: np.ndarray, seed: int) -> float:
    """Returns the score of the classifier two-sample test."""
    rows = np.concatenate([x, y])
    rows = np.where(kinds, np.minimum(rows, LEVELS), rows)
    label, advantages = np.arange(len(rows)) < len(x), []
    for learned, tested in StratifiedKFold(3, shuffle=True, random_state=seed).split(rows, label):
        model = _classifier(kinds).fit(rows[learned], label[learned])
        area = roc_auc_score(label[tested], model.predict_proba(rows[tested])[:, 1])
        advantages.append(2 * max(area, 0.5) - 1)
    return float(1 - np.mean(advantages))


def _predicted(learned: np.ndarray, tested: np.ndarray, k: int, *, is_level: bool) -> float:
    """Returns the accuracy, or R², of a random forest's predictions of a column."""
    learned, tested = (rows[~np.isnan(rows[:, k])] for rows in (learned, tested))
    forest = RandomForestClassifier if is_level else RandomForestRegressor
    model = forest(min_samples_leaf=5, max_features=1 / 3, random_state=0)
    model.fit(np.delete(learned, k, 1), learned[:, k])
    return float(model.score(np.delete(tested, k, 1), tested[:, k]))


def _copies(
    train: np.ndarray, held_out: np.ndarray, synthetic: np.ndarray, kinds: np.ndarray
) -> Line:
    """Returns the share of rows nearer to a training row, and its range by chance.

    By chance, all real rows are divided anew at random. A real row that is the nearest of many
    synthetic ones widens the range.
    """
    mean, scale = np.nanmean(train, 0), np.nanstd(train, 0)
    scale[scale == 0] = 1
    train, held_out, synthetic = (
        np.where(kinds, np.nan_to_num(rows, nan=-1), np.nan_to_num((rows - mean) / scale))
        for rows in (train, held_out, synthetic)
    )
    near, far = _nearest(synthetic, train, kinds), _nearest(synthetic, held_out, kinds)
    share = 0.5 * (1 + np.sign(far.distance - near.distance))
    sides = ((near.row, share), (far.row, 1 - share))
    counts = np.concatenate([np.bincount(*side, len(train)) for side in sides])
    size = len(counts)
    error = size / len(share) * math.sqrt(counts.var() / (4 * (size - 1)))
    one, other = (f"{np.median(found.distance):.3g}" for found in (near, far))
    note = f"½ ± {1.96 * error:.3f} by chance; median distances: {one}, to a held-out row {other}"
    return Line("nearer to a training row", float(share.mean()), None, note)


class Nearest(NamedTuple):
    """The nearest of other rows: its number and its distance, with shape (N,) each."""

    row: np.ndarray
    distance: np.ndarray


def _nearest(x: np.ndarray, y: np.ndarray, kinds: np.ndarray) -> Nearest:
    """Returns the row of ``y`` nearest to each of ``x``.

    The distance is the sum of differences of numbers, and 2 for each category that differs.
    """
    found = []
    for part in np.array_split(x, math.ceil(len(x) / CHUNK)):
        distances = cdist(part[:, ~kinds], y[:, ~kinds], "cityblock")
        if kinds.any():
            distances += 2 * kinds.sum() * cdist(part[:, kinds], y[:, kinds], "hamming")
        found.append((distances.argmin(1), distances.min(1)))
    return Nearest(*map(np.concatenate, zip(*found, strict=True)))
