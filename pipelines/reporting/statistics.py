r"""Estimates and tests from few independent units, such as seeds or training sets.

An estimate is a *confidence distribution*, :math:`\hat\theta + \text{se} \cdot t_\nu`. Its
quantiles are the ends of intervals. Its mass on the wrong side of a bound is a one-sided p-value.
The standard error is that of a mean, or of a bootstrap over units.

A test asks if :math:`\theta` lies in a region that was fixed beforehand. The region of an effect
ends at the smallest effect that matters, not at zero. Two one-sided tests show *inside* (TOST; one
test if the region has one end), one test shows *outside*. Both p are doubled: if p is at most
0.05, the interval of 95 % is inside, or outside. A wide interval shows neither.

Source: A comparison of the two one-sided tests procedure and the power approach (Schuirmann,
1987); Confidence distribution (Xie, Singh, 2013); A simple sequentially rejective multiple test
procedure (Holm, 1979).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

RESAMPLES = 2000  # Resamples of a bootstrap, for a standard error to 2 %


class Interval(NamedTuple):
    """An estimate with an interval of confidence."""

    value: float  #: The estimate
    low: float  #: The lower end of the interval
    high: float  #: The upper end


@dataclass(frozen=True)
class Confidence:
    """A confidence distribution: that of value + se · t."""

    value: float  #: The estimate
    se: float  #: Its standard error; NaN of a single unit, which shows none
    df: float  #: The degrees of freedom of t, the independent units less one

    def interval(self, level: float = 0.95) -> Interval:
        """Returns the estimate and its interval; NaN ends of a single unit."""
        half = self.se * float(scipy.special.stdtrit(self.df, (1 + level) / 2))
        return Interval(self.value, self.value - half, self.value + half)

    def below(self, bound: float) -> float:
        """Returns the confidence in θ ≤ ``bound``: p against it, as the null hypothesis.

        Equal values of n units have no spread. Their p is that of a sign test, 2⁻ⁿ at least.
        """
        gap = bound - self.value
        if self.se:
            return float(scipy.special.stdtr(self.df, gap / self.se))
        least = 0.5 ** (self.df + 1)
        return 0.5 if not gap else least if gap < 0 else 1 - least


def student(values: ArrayLike, *, overlap: float = 0.0) -> Confidence:
    r"""Returns the mean of values, one for each unit.

    Units that split the same rows anew are not independent, as their training rows overlap. With
    the correlation :math:`n_\text{test} / (n_\text{test} + n_\text{train})` between two of n such
    units, the variance of the mean is not s² / n but, from their own variance s²,

    .. math:: s^2 \left(\frac1n + \frac{n_\text{test}}{n_\text{train}}\right).

    Arguments:
        values: With shape (n,).
        overlap: :math:`n_\text{test} / n_\text{train}` of such splits; 0: units are independent.

    Source: Inference for the generalization error (Nadeau, Bengio, 2003).
    """
    values = np.asarray(values, float)
    units = len(values)
    if units > 1 and not np.ptp(values):
        return Confidence(float(values[0]), 0.0, units - 1)
    se = float(values.std(ddof=1)) * math.sqrt(1 / units + overlap) if units > 1 else math.nan
    return Confidence(float(values.mean()), se, units - 1)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of each row, 0 where one of both is constant."""
    x, y = (scipy.stats.rankdata(part, axis=1) for part in (x, y))
    x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (x, y))
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return (x * y).sum(1) / np.where(size > 0, size, 1)


def bootstrap(
    statistic: Callable[[np.ndarray], float], values: ArrayLike, *, resamples: int = RESAMPLES
) -> Confidence:
    """Returns a statistic with the standard error of a bootstrap over independent units.

    The interval is symmetric: take a skewed statistic by its logarithm.

    Arguments:
        statistic: A function of values to a number; called ``resamples`` times.
        values: An array whose first axis is the units.
        resamples: Number of resamples.

    Raises:
        ValueError: If the statistic of a resample is not finite.
    """
    values = np.asarray(values)
    value, units = float(statistic(values)), len(values)
    if units < 2:
        return Confidence(value, math.nan, 0)
    chosen = np.random.default_rng(0).integers(units, size=(resamples, units))
    resampled = np.array([statistic(values[rows]) for rows in chosen])
    if not np.isfinite(resampled).all():
        raise ValueError(
            f"statistic: found {(~np.isfinite(resampled)).sum()} of {resamples} resampled values "
            "that are not finite, expected none"
        )
    se = float(resampled.std(ddof=1)) * math.sqrt(units / (units - 1))
    return Confidence(value, se, units - 1)


@dataclass(frozen=True)
class Region:
    """The expected range of a number, fixed before it is measured."""

    low: float  #: The lower end; −∞ without one
    high: float  #: The upper end; ∞ without one

    def inside(self, found: Confidence) -> float:
        """Returns p for θ inside: of TOST, doubled; NaN of a single unit."""
        p = max(found.below(self.low), 1 - found.below(self.high))
        return float(np.minimum(1.0, 2 * p))

    def outside(self, found: Confidence) -> float:
        """Returns p for θ outside, doubled; NaN of a single unit."""
        p = min(1 - found.below(self.low), found.below(self.high))
        return float(np.minimum(1.0, 2 * p))

    def worst(self, values: np.ndarray) -> float:
        """Returns the value that is the furthest from where it should be."""
        if math.isinf(self.low):
            return float(values.max())
        if math.isinf(self.high):
            return float(values.min())
        return float(values[np.abs(values - (self.low + self.high) / 2).argmax()])

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"more than {self.low:g}"
        if math.isinf(self.low):
            return f"less than {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


def above(bound: float) -> Region:
    """Returns θ > ``bound``."""
    return Region(bound, math.inf)


def below(bound: float) -> Region:
    """Returns θ < ``bound``."""
    return Region(-math.inf, bound)


def within(margin: float, *, of: float = 0.0) -> Region:
    """Returns |θ − ``of``| < ``margin``: equality, as far as it matters."""
    if not margin > 0:
        raise ValueError(f"margin: found {margin:g}, expected one above 0")
    return Region(of - margin, of + margin)


def holm(p: Iterable[float]) -> list[float]:
    """Returns p-values adjusted for their number, so that at most one study in 20 errs at 0.05.

    One that is NaN was not tested, and does not count.
    """
    p = np.array([*p], float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = np.full(len(p), math.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()
