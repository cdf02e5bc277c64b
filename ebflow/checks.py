r"""Checks of synthetic rows against real ones.

* **C2ST**, the classifier two-sample test: gradient boosting learns to distinguish synthetic from
  real rows. The score is :math:`1 - (2 \max(A, \tfrac12) - 1)`, with the mean over three folds, of
  the area A under the ROC curve of rows that were not learned. It is 1 if they look the same.
* **Column shapes** and **pair trends**, as SDMetrics defines them. Shapes: the complement of the
  Kolmogorov-Smirnov distance of numbers, and of the total variation of categories. Trends: the
  similarity of correlations, and of contingency tables if a column is a category.
* **Copies**: each synthetic row has a nearest real one. The rate t of a training row to be it,
  and h of a held-out row, give t / (t + h). It is ½ if the model copies no training rows.
* **Prediction**: a random forest learns a column from the others of synthetic rows, and is tested
  on real ones.

Sources: Revisiting Classifier Two-Sample Tests (Lopez-Paz, Oquab, 2017), arXiv:1610.06545;
SDMetrics (DataCebo), https://docs.sdv.dev/sdmetrics.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp
from sklearn import ensemble
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from .tables import ArrayLike, Columns, detect_columns

LEAST = 20  # Rows of a check at least
LEVELS = 254  # Codes of a category that trees distinguish at most
BINS = 10  # Bins of a number beside a category, between the ends of its own table, as in SDMetrics
TRAINING = 10  # Most training rows that are compared to find copies, over ``rows``
PAIRS, CHUNK = 300_000_000, 10_000_000  # Most distances between rows, in all and at a time
DISCRETE = ("category", "boolean")  # Kinds of columns whose values are compared as levels

Scores = Mapping[str, float]


class Line(NamedTuple):
    """One figure of a check."""

    name: str
    value: float  #: The value of the synthetic rows
    real: float | None  #: The same for real rows in their place; None: there is none
    note: str  #: What the value means, or where it is worst


@dataclass(frozen=True)
class Check:
    """The comparison of synthetic rows with real ones; ``print`` shows the table."""

    lines: tuple[Line, ...]
    shapes: Scores  #: The similarity of each column, by name
    trends: Scores  #: The similarity of each pair of columns, as ``age × income``

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

    The column ``real`` of the table has the same figures of random halves of all real rows. As
    many rows are used of each table, except to find copies. Identifiers, constants and linear
    functions of other columns are not compared. If only real rows have missing values, the
    classifier sees synthetic rows with the same gaps. A column that is empty in synthetic rows
    alone has the score 0, and so has a pair without a correlation there.

    Cost: about ten seconds for 10,000 rows and 11 columns on one core.

    Arguments:
        real: Real rows; best such that the model was not trained on.
        train: The model's training rows, to find copies, at most ten times ``rows``; or None.
        columns: The columns, as ``flow.columns``; None: those that are detected in ``real``.
        target: The column that is predicted; None: the last category, or the last column.
        rows: Rows of each table that are used at most.

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
    tables = {name: columns.encode(f, name) for name, f in frames.items() if f is not None}
    count = min(rows, *map(len, tables.values()))
    if count < LEAST:
        raise ValueError(f"real, synthetic: found {count} rows, expected {LEAST} or more of each")
    tables = {name: random.permutation(table) for name, table in tables.items()}
    x, y = (tables[name][:count] for name in ("real", "synthetic"))
    known = tables.get("train", x[:0])[: TRAINING * rows]
    halves = np.array_split(random.permutation(np.r_[x, known[:count]]), 2)
    (shapes, trends), others = ([measure(*pair, names, kinds) for measure in (_shapes, _trends)]
                                for pair in ((x, y), halves))  # fmt: skip
    found = zip(("column shapes", "pair trends"), (shapes, trends), others, strict=True)
    means = [_mean(*each) for each in found if each[1]]
    centre, spread = _scale(x, kinds)
    x, y, known, *halves = ((rows - centre) / spread for rows in (x, y, known, *halves))
    z, size = np.where(np.isnan(x) & ~np.isnan(y).any(0), np.nan, y), len(halves[1])
    scores = (_c2st(*pair, kinds, seed) for pair in ((x[:size], z[:size]), halves))
    lines = [Line(f"C2ST ({_booster()})", *scores, "1: a classifier finds no difference"), *means]
    if len(names) > 1:
        k = names.index(target) if target else max(np.flatnonzero(kinds), default=len(names) - 1)
        learned, tested = (known[:count], x) if len(known) else halves
        found = [_predicted(rows, tested, k, is_level=kinds[k])
                 for rows in (z[: len(learned)], learned)]  # fmt: skip
        score = "accuracy" if kinds[k] else "R²"
        note = f"{score} on real rows, after learning from synthetic or real ones"
        note += "; NaN: no values" * any(map(math.isnan, found))
        lines.append(Line(f"prediction of {names[k]}", *found, note))
    if len(known):
        lines.append(_copies(known, x, y, kinds))
    return Check(tuple(lines), shapes, trends)


def _mean(name: str, scores: Mapping[Any, float], real: Mapping[Any, float]) -> Line:
    """Returns the mean of scores, and the names of the lowest."""
    lowest = min(scores, key=scores.__getitem__)
    means = (float(np.mean([*each.values()])) if each else math.nan for each in (scores, real))
    return Line(name, *means, f"lowest: {lowest} {scores[lowest]:.3f}")


def _shapes(x: np.ndarray, y: np.ndarray, names: Sequence[str], kinds: np.ndarray) -> Scores:
    """Returns the similarity of each column, without missing values."""
    scores = {}
    for k, name in enumerate(names):
        one, other = (rows[~np.isnan(rows[:, k]), k] for rows in (x, y))
        if len(one) and len(other):
            distance = _variation(one, other) if kinds[k] else ks_2samp(one, other).statistic
            scores[name] = float(1 - distance)
        elif len(one):
            scores[name] = 0.0
    return scores


def _scale(x: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns medians and spreads of numbers: forests and XGBoost round to single precision."""
    x = np.where(kinds | np.isnan(x).all(0), 0.0, x)
    spread = np.nanstd(x, 0)
    return np.nanmedian(x, 0), np.where(spread > 0, spread, 1.0)


def _trends(x: np.ndarray, y: np.ndarray, names: Sequence[str], kinds: np.ndarray) -> Scores:
    """Returns the similarity of each pair of columns; a missing value is a level of its own."""
    one, other = _binned(x, kinds), _binned(y, kinds)
    width, scores = max(one.max(), other.max()) + 1, {}
    for j, k in combinations(range(len(names)), 2):
        if kinds[j] or kinds[k]:
            distance = _variation(*(rows[:, j] * width + rows[:, k] for rows in (one, other)))
        else:
            real, found = (_correlation(rows[:, [j, k]]) for rows in (x, y))
            distance = real if math.isnan(real) else np.nan_to_num(abs(real - found) / 2, nan=1.0)
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
        return ensemble.HistGradientBoostingClassifier(categorical_features=kinds, random_state=0)
    from xgboost import XGBClassifier

    types = ["c" if discrete else "q" for discrete in kinds]
    return XGBClassifier(feature_types=types, enable_categorical=True, random_state=0)


def _c2st(x: np.ndarray, y: np.ndarray, kinds: np.ndarray, seed: int) -> float:
    """Returns the score of the classifier two-sample test."""
    rows = np.concatenate([x, y])
    rows = np.where(kinds, np.minimum(rows, LEVELS), rows)
    label = np.arange(len(rows)) < len(x)
    options = {"cv": StratifiedKFold(3, shuffle=True, random_state=seed), "error_score": "raise",
               "scoring": make_scorer(roc_auc_score, response_method="predict_proba")}  # fmt: skip
    areas = cross_val_score(_classifier(kinds), rows, label, **options)
    return float(1 - np.mean(2 * np.maximum(areas, 0.5) - 1))


def _predicted(learned: np.ndarray, tested: np.ndarray, k: int, *, is_level: bool) -> float:
    """Returns the accuracy, or R², of a random forest's predictions of a column."""
    learned, tested = (rows[~np.isnan(rows[:, k])] for rows in (learned, tested))
    if min(len(learned), len(tested)) < 2:
        return math.nan
    forest = ensemble.RandomForestClassifier if is_level else ensemble.RandomForestRegressor
    model = forest(min_samples_leaf=5, max_features=1 / 3, random_state=0)
    model.fit(np.delete(learned, k, 1), learned[:, k])
    return float(model.score(np.delete(tested, k, 1), tested[:, k]))


def _copies(
    train: np.ndarray, held_out: np.ndarray, synthetic: np.ndarray, kinds: np.ndarray
) -> Line:
    """Returns the rate of training rows among nearest ones, and its range by chance.

    By chance, all real rows are divided anew at random. A real row that is the nearest of many
    synthetic ones widens the range. Rows at equal distances share a synthetic row.
    """
    first, real = len(train), np.r_[train, held_out]
    synthetic = synthetic[: max(1, PAIRS // len(real))]
    counts, nearest = np.zeros(len(real)), []
    for part in np.array_split(synthetic, math.ceil(len(synthetic) * len(real) / CHUNK)):
        distances = _distances(part, real, kinds)
        hits = distances == distances.min(1, keepdims=True)
        counts += (hits / hits.sum(1, keepdims=True)).sum(0)
        nearest.append([distances[:, :first].min(1), distances[:, first:].min(1)])
    rates, size = (counts[:first].mean(), counts[first:].mean()), len(real)
    error = counts.std() / counts.mean() / 4 * size / math.sqrt((size - 1) * first * len(held_out))
    one, other = (f"{median:.3g}" for median in np.median(np.concatenate(nearest, 1), 1))
    note = f"½ ± {1.96 * error:.3f} by chance; median distances: {one}, to a held-out row {other}"
    return Line("nearer to a training row", float(rates[0] / sum(rates)), None, note)


def _distances(x: np.ndarray, y: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Returns the sums of differences of numbers, and 2 for each category that differs."""
    x, y = (np.nan_to_num(np.where(kinds & np.isnan(rows), -1, rows)) for rows in (x, y))
    distances = cdist(x[:, ~kinds], y[:, ~kinds], "cityblock")
    if kinds.any():
        distances += 2 * kinds.sum() * cdist(x[:, kinds], y[:, kinds], "hamming")
    return distances
