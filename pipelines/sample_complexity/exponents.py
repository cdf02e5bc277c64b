r"""The number of samples m* that an error needs, and its exponents in other quantities.

:math:`m^*(\varepsilon)` is the m from which on the median of the error over training sets stays
at or below ε; between grid points the median is linear in log m. Against a quantity R,

.. math:: \log m^* = a + b \log R

is fitted by least squares: b = 2 is the worst case in mean square, and b = 0 means that m* does
not depend on R. A bootstrap over training sets gives the standard error of b. A resample that does
not cross ε on the grid counts as the end of the grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipelines.reporting.claims import Check, Measured, Question
from pipelines.reporting.statistics import Confidence, Region, above, below, within
from pipelines.sample_complexity.config import DELTAS, EPSILON, FURTHER, ComplexityConfig, middle
from pipelines.sample_complexity.minimizer import MINIMIZER
from pipelines.sample_complexity.random_classes import CLASS, SETTINGS, closed_exponent
from pipelines.sample_complexity.rows import matrix, where

FINITE = "finite class"
NETWORKS = ("networks, noise once", "networks, noise fresh")
FRESH = NETWORKS[-1]

# The column of the error, by quantity.
ERRORS = {"m*_L2": "sigma_l2", "m*_D": f"sigma_d_{DELTAS[-1]:g}"}

EPSILONS = (0.35, 0.25, 0.18, 0.12)  # The ε of the exponent in 1/ε

RESAMPLES, BATCH = 1000, 50

HALF = 0.5  # Exponents are different if they differ by more than this

MARGIN = 0.25  # An exponent of networks may exceed that of an upper bound by this

GROWS = "the bound has d times the number of weights, which grows with d too"

# Claims on exponents of m*_D of networks, by quantity: the claim, the region, the item, the figure
# and the note. There are none in mean square, where the chance of a far sample decides.
OF_NETWORKS: dict[str, tuple[str, Region, str, str, str]] = {
    "R/σ": ("{learner}, need as many samples at any R/σ", within(HALF), "G2", "scaling", ""),
    "d": ("networks need samples as the dimension", within(HALF, of=1), "G3", "varied", GROWS),
    "1/ε": ("networks need samples as 1/ε² at most", below(2 + HALF), "G3", "varied",
            "the power of the bound, and a margin of 0.5"),
    "1/δ": ("networks need samples as 1/δ", within(HALF, of=1), "G3", "varied",
            "the power of the bound, of one far mode"),
    "P": ("networks need samples as their number of weights at most", below(1 + MARGIN), "G4",
          "networks", "the power of the bound, and a margin of 0.25; widths differ"),
    "depth": ("networks need samples as their depth at most", below(1 + MARGIN), "G4", "networks",
              "the power of the bound at equal P, and a margin of 0.25; P grows too"),
}  # fmt: skip

# The exponents of m* in R/σ that the theorem implies for a finite class, and tolerances.
CLOSED_FORMS = {"m*_L2": ("In mean square", 2.0, 0.4), "m*_D": ("At a quantile", 0.0, 0.3)}


@dataclass(frozen=True)
class Series:
    """Rows from which m* is computed at several values of a quantity."""

    against: str  #: The quantity, as R/σ
    learner: str  #: The learner
    panel: str  #: The panel of the rows
    key: str | None  #: The column of the quantity; None for 1/ε and 1/δ, whose rows are the same
    fixed: Mapping[str, Any] = field(default_factory=dict)  #: The values of other columns
    quantities: tuple[str, ...] = tuple(ERRORS)  #: m* of which errors

    @property
    def is_paired(self) -> bool:
        """True if the training sets are the same at every value."""
        return self.key is None or self.against in ("P", "depth")


def series(config: ComplexityConfig) -> list[Series]:
    """Returns all series of the study."""
    here, there = middle(config), middle(config, FURTHER)
    shape = {"width": config.learners.width, "depth": config.learners.depth}
    line = {"size": 1, **shape}
    width, depth = {"width": shape["width"]}, {"depth": shape["depth"]}
    return [
        *(Series("R/σ", learner, "networks", "ratio", line) for learner in NETWORKS),
        Series("d", FRESH, "networks", "size", {"ratio": there, **shape}),
        Series("1/ε", FRESH, "networks", None, {**line, "ratio": here}),
        Series("1/δ", FRESH, "networks", None, {**line, "ratio": here}, ("m*_D",)),
        Series("P", FRESH, "networks", "weights", {"size": 1, "ratio": here, **depth}),
        Series("depth", FRESH, "networks", "depth", {"size": 1, "ratio": here, **width}),
        Series("R/σ", FINITE, "finite", "ratio", {"size": 1}),
        *(Series(name, CLASS, "classes", "value", {"against": name}, ("m*_D",))
          for name in SETTINGS),
        Series("S", MINIMIZER, "minimizer", "height"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Exponent:
    """m* against another quantity."""

    series: Series
    quantity: str  #: ``m*_L2`` or ``m*_D``
    #: m* at each value, with columns ``at``, ``value``, ``low`` and ``high``; infinite if the
    #: error does not cross ε
    crossings: pd.DataFrame
    slopes: np.ndarray  #: b, followed by b of every resample; NaN if fewer than three values cross
    units: int  #: The number of training sets

    @property
    def slope(self) -> Confidence | None:
        """The exponent b; None if fewer than three values cross."""
        return _confidence(self.slopes, self.units)

    def minus(self, other: "Exponent") -> Confidence | None:
        """Returns b minus that of another error of the same training sets."""
        return _confidence(self.slopes - other.slopes, self.units)

    @property
    def points(self) -> pd.DataFrame:
        """The crossings that are finite."""
        return self.crossings[np.isfinite(self.crossings["value"])]

    @property
    def summary(self) -> dict[str, Any]:
        """The entry in ``summary.json``."""
        value, low, high = self.slope.interval() if self.slope else (None, None, None)
        return {
            "quantity": self.quantity, "against": self.series.against,
            "learner": self.series.learner, "fixed": self.series.fixed, "slope": value,
            "low": low, "high": high, "points": self.points.to_dict("records"),
        }  # fmt: skip


def _confidence(slopes: np.ndarray, units: int) -> Confidence | None:
    if np.isnan(slopes[0]):
        return None
    se = np.std(slopes[1:], ddof=1) * (units / (units - 1)) ** 0.5
    return Confidence(float(slopes[0]), float(se), units - 1)


def exponents(config: ComplexityConfig, rows: pd.DataFrame) -> list[Exponent]:
    """Returns the exponents of both errors in all quantities."""
    return [
        exponent(one, quantity, rows, seed=config.seed)
        for one in series(config)
        for quantity in one.quantities
    ]


def exponent(one: Series, quantity: str, rows: pd.DataFrame, *, seed: int) -> Exponent:
    """Returns m* at every value, and its exponent."""
    rows = where(rows, panel=one.panel, learner=one.learner, **one.fixed)
    values, columns, units = [], [], []
    for index, (value, errors, sizes) in enumerate(_errors(one, quantity, rows)):
        rng = np.random.default_rng([seed, 0 if one.is_paired else index])
        m = crossing(errors, sizes, 1.0)
        resampled = np.minimum(_resampled(errors, sizes, 1.0, rng), sizes[-1])
        values.append(value)
        columns.append([m, *resampled])
        units.append(len(errors))
    m = np.array(columns)
    low, high = np.quantile(m[:, 1:], (0.025, 0.975), axis=1, method="inverted_cdf")
    crossings = pd.DataFrame({"at": values, "value": m[:, 0], "low": low, "high": high})
    crosses = np.isfinite(m[:, 0])
    slopes = np.full(m.shape[1], np.nan)
    if crosses.sum() >= 3:
        slopes = slope(np.array(values)[crosses], m[crosses])
    return Exponent(one, quantity, crossings, slopes, min(units))


def _errors(
    one: Series, quantity: str, rows: pd.DataFrame
) -> Iterator[tuple[float, np.ndarray, list[int]]]:
    """Yields every value with its errors over ε, with shape (training sets, sizes), and the m."""
    if one.against == "1/ε" and one.key is None:
        for epsilon in EPSILONS:
            errors, sizes = matrix(rows, ERRORS[quantity])
            yield 1 / epsilon, errors / epsilon, sizes
    elif one.against == "1/δ" and one.key is None:
        for delta in sorted(DELTAS):
            errors, sizes = matrix(rows, f"sigma_d_{delta:g}")
            yield 1 / delta, errors / EPSILON, sizes
    else:
        column, epsilon = ERRORS[quantity], EPSILON
        if one.panel == "classes":
            column, epsilon = "over_epsilon", 1.0
        for value, some in rows.groupby(one.key):
            errors, sizes = matrix(some, column)
            yield float(value), errors / epsilon, sizes


def crossing(errors: np.ndarray, sizes: Sequence[int], epsilon: float) -> np.ndarray:
    """Returns m* for ``errors`` with shape (..., training sets, sizes), with shape (...).

    It is infinite if the last error is above ε, and the first m if all errors are below.

    Arguments:
        errors: The errors of every training set at every m.
        sizes: The increasing m.
        epsilon: ε, in the unit of the errors.
    """
    medians = np.quantile(errors, 0.5, axis=-2)
    stays = np.flip(np.logical_and.accumulate(np.flip(medians <= epsilon, -1), -1), -1)
    first = len(sizes) - stays.sum(-1)
    grid = np.log(np.append(np.asarray(sizes, float), np.inf))
    here, before = (np.minimum(k, len(sizes) - 1) for k in (first, np.maximum(first - 1, 0)))
    low, high = (np.take_along_axis(medians, k[..., None], -1)[..., 0] for k in (here, before))
    drop = high - low
    share = np.where(drop > 0, (epsilon - low) / np.where(drop > 0, drop, 1), 0)
    return np.exp(grid[first] - share * (grid[here] - grid[before]))


def slope(values: Sequence[float], crossings: np.ndarray) -> np.ndarray:
    """Returns b by least squares, for crossings with shape (values, ...)."""
    x = np.log(values) - np.mean(np.log(values))
    return np.tensordot(x, np.log(crossings), axes=1) / (x @ x)


def _resampled(
    errors: np.ndarray, sizes: Sequence[int], epsilon: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns m* of resampled training sets."""
    shape = (BATCH, len(errors))
    batches = (rng.integers(len(errors), size=shape) for _ in range(0, RESAMPLES, BATCH))
    return np.concatenate([crossing(errors[chosen], sizes, epsilon) for chosen in batches])


def about_networks(exponents: Sequence[Exponent]) -> Iterator[Measured]:
    """Yields the claims about networks with their numbers."""
    both: dict[str, Exponent] = {}
    for one in exponents:
        against, learner = one.series.against, one.series.learner
        if (against, learner) == ("R/σ", FRESH):
            both[one.quantity] = one
        if one.quantity == "m*_D" and learner in NETWORKS and against in OF_NETWORKS:
            claim, region, item, figure, note = OF_NETWORKS[against]
            yield Question(
                f"At a quantile {claim.format(learner=learner)}",
                f"exponent of m*_D in {against}", region, figure=figure, note=note, item=item,
            ), one.slope  # fmt: skip
    yield Question(
        f"In mean square {FRESH}, need samples as a higher power of R/σ than at a quantile",
        "exponent of m*_L2 in R/σ less that of m*_D", above(HALF), figure="scaling",
        note="the far mode has the weight at which missing it costs 2 ε; the same networks",
        item="G2",
    ), both["m*_L2"].minus(both["m*_D"])  # fmt: skip


def about_classes(config: ComplexityConfig, exponents: Sequence[Exponent]) -> Iterator[Measured]:
    """Yields the claims about random classes and about empirical minimizers."""
    logarithm = round(closed_exponent(config.classes.sizes), 2)
    regions = {
        "log |H|": ("samples as log |H|", within(HALF, of=logarithm),
                    f"{logarithm:g} is the power of the closed form for these |H|; 1 as |H| → ∞"),
        "d": ("samples as a smaller power of the dimension than the bound's", below(1.0),
              "the bound has 1, the closed form of this class 0"),
        "1/ε": ("samples as 1/ε²", within(HALF, of=2), "the power of the bound"),
        "1/δ": ("samples as 1/δ", within(HALF, of=1), "the power of the bound"),
    }  # fmt: skip
    for one in exponents:
        against = one.series.against
        if one.series.learner == CLASS:
            claim, region, note = regions[against]
            yield Question(
                f"At a quantile a random class needs {claim}",
                f"exponent of m*_D in {against}", region, figure="varied", note=note, item="G3",
            ), one.slope  # fmt: skip
        if one.series.learner == MINIMIZER and one.quantity == "m*_L2":
            yield Question(
                "In mean square the minimizer needs samples as the squared height S of the step",
                "exponent of m*_L2 in S", within(HALF, of=2), figure="minimizer", item="G6",
                note="the mass beyond the step is ε² / (σ S)²",
            ), one.slope  # fmt: skip


def closed_forms(exponents: Sequence[Exponent]) -> Iterator[Check]:
    """Yields checks of the theorem for a finite class, in which only a far sample decides."""
    for one in exponents:
        if one.series.learner == FINITE:
            place, power, tolerance = CLOSED_FORMS[one.quantity]
            yield Check.of(
                f"{place} a finite class needs samples as (R/σ) to the power {power:g}",
                f"exponent of {one.quantity} in R/σ", one.slope and one.slope.value,
                within(tolerance, of=power),
                "Gupta, Parulekar, Price and Xun (2023): a lower bound in mean square, an upper "
                "bound at a quantile.", "G2",
            )  # fmt: skip
