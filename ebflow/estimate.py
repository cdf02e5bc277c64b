"""Estimates with what is uncertain of them: standard errors of means, and intervals."""

__all__ = ["Estimate", "Interval", "student"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import NonFinite

if TYPE_CHECKING:
    from torch import Tensor


class Interval(NamedTuple):
    """An estimate with an interval of confidence.

    Attributes:
        value: The estimate.
        low: The lower end of the interval.
        high: The upper end.
    """

    value: float
    low: float
    high: float


def student(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Returns the mean of n independent values, ± t s / √n by Student's law.

    The ends are NaN for a single value, which shows no interval.
    """
    from scipy import stats

    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + level) / 2, count - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean.

    Attributes:
        value: The mean.
        se: Its standard error over examples; NaN of a single one.
        count: The number of examples.
    """

    value: float
    se: float
    count: int

    @classmethod
    def of(cls, terms: "Tensor", *, name: str) -> "Estimate":
        """Averages ``terms`` with shape (N,), in float64.

        Raises:
            NonFinite: if one of them is infinite or NaN, naming the first.
        """
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            raise NonFinite(f"{name}: found {terms[bad[0, 0]]} at example {bad[0, 0]}")
        terms, count = terms.double(), len(terms)
        spread = float(terms.std()) if count > 1 else math.nan
        return cls(float(terms.mean()), spread / math.sqrt(count), count)

    def __add__(self, constant: float) -> "Estimate":
        return Estimate(self.value + constant, self.se, self.count)
