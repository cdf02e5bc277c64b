r"""How many samples are needed, and how that number grows.

:math:`m^*(\varepsilon)` is the m from which on the q-quantile over trials of the error stays at or
below ε; between the points of a grid that quantile is taken as linear in log m. Against a quantity
R it is fitted as

.. math:: \log m^* = a + b \log R,

b = 2 being the worst case in mean square, and b = 0 a number that does not depend on R. The
standard error of b is that of a bootstrap over the trials, which are drawn anew for every R unless
they are ``paired``; a resample that does not cross on the grid counts with the grid's end. A trial
is a training set, nested in m, with all that was learnt from it.
"""

__all__ = ["Growth", "crossing", "growth", "slope"]

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from pipelines.reporting.statistics import Confidence, Interval


class Growth(NamedTuple):
    """How m* grows.

    Attributes:
        crossings: m* with its interval by the bootstrap, for every value of the quantity; infinite
            where the error does not cross on the grid.
        slopes: b, and behind it that of every resample; empty where less than three values cross.
        units: The number of trials, of which they are resampled.
    """

    crossings: list[Interval]
    slopes: list[float]
    units: int

    @property
    def slope(self) -> Confidence | None:
        """b; None where less than three values cross."""
        return _confidence(self.slopes, self.units) if self.slopes else None

    def minus(self, other: "Growth") -> Confidence | None:
        """Returns b less that of another, of other errors of the same trials."""
        if not (self.slopes and other.slopes):
            return None
        return _confidence(np.subtract(self.slopes, other.slopes), self.units)


def crossing(
    errors: np.ndarray, sizes: Sequence[int], epsilon: float, level: float = 0.75
) -> np.ndarray:
    """Returns m* for ``errors`` with shape (..., trials, sizes), with shape (...); inf for none.

    An error that is below ε on the whole grid has m* at its first point.

    Arguments:
        errors: The errors of every trial at every m.
        sizes: The grid of m, rising.
        epsilon: ε, in the unit of the errors.
        level: q.
    """
    found = np.quantile(errors, level, axis=-2)
    stays = np.flip(np.logical_and.accumulate(np.flip(found <= epsilon, -1), -1), -1)
    first = len(sizes) - stays.sum(-1)
    grid = np.log(np.append(np.asarray(sizes, float), np.inf))
    here, before = (np.minimum(k, len(sizes) - 1) for k in (first, np.maximum(first - 1, 0)))
    low, high = (np.take_along_axis(found, k[..., None], -1)[..., 0] for k in (here, before))
    drop = high - low
    share = np.where(drop > 0, (epsilon - low) / np.where(drop > 0, drop, 1), 0)
    return np.exp(grid[first] - share * (grid[here] - grid[before]))


def slope(values: Sequence[float], crossings: np.ndarray) -> np.ndarray:
    """Returns b by least squares, for crossings with shape (values, ...)."""
    x = np.log(values) - np.mean(np.log(values))
    return np.tensordot(x, np.log(crossings), axes=1) / (x @ x)


def growth(
    values: Sequence[float],
    errors: Sequence[np.ndarray],
    sizes: Sequence[Sequence[int]],
    epsilon: float,
    *,
    level: float = 0.75,
    resamples: int = 1000,
    seed: int = 0,
    paired: bool = False,
) -> Growth:
    """Returns m* and its growth, with 95 % intervals.

    Arguments:
        values: R, |H| or d.
        errors: The errors for each of them, with shape (trials, sizes).
        sizes: The grid of m of each.
        epsilon: ε.
        level: q.
        resamples: Of the bootstrap.
        seed: Its seed.
        paired: Whether the trials are the same for all values, and so are drawn together.
    """
    pairs = zip(errors, sizes, strict=True)
    found = np.array([float(crossing(*pair, epsilon, level)) for pair in pairs])
    seeds = [[seed, 0 if paired else index] for index in range(len(values))]
    drawn = _bootstrap(errors, sizes, epsilon, level, resamples, seeds)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=1, method="inverted_cdf")
    crossings = [Interval(*map(float, three)) for three in zip(found, low, high, strict=True)]
    units = min(map(len, errors))
    return Growth(crossings, _slopes(np.asarray(values, float), found, drawn), units)


def _slopes(values: np.ndarray, found: np.ndarray, drawn: np.ndarray) -> list[float]:
    known = np.isfinite(found)
    if known.sum() < 3:
        return []
    return slope(values[known], np.column_stack([found, drawn])[known]).tolist()


def _confidence(slopes: Sequence[float] | np.ndarray, units: int) -> Confidence:
    se = np.std(slopes[1:], ddof=1) * (units / (units - 1)) ** 0.5
    return Confidence(float(slopes[0]), float(se), units - 1)


def _bootstrap(
    errors: Sequence[np.ndarray],
    sizes: Sequence[Sequence[int]],
    epsilon: float,
    level: float,
    resamples: int,
    seeds: Sequence[Sequence[int]],
) -> np.ndarray:
    """Returns m* of resampled trials, with shape (values, resamples)."""
    rows = []
    for trials, grid, seed in zip(errors, sizes, seeds, strict=True):
        statistic = partial(_resampled, trials, grid, epsilon, level)
        found = stats.bootstrap(
            (np.arange(len(trials)),), statistic, n_resamples=resamples,
            rng=np.random.default_rng(seed), method="percentile", vectorized=True, batch=100,
        )  # fmt: skip
        rows.append(found.bootstrap_distribution)
    return np.stack(rows)


def _resampled(
    errors: np.ndarray,
    sizes: Sequence[int],
    epsilon: float,
    level: float,
    trials: np.ndarray,
    axis: int,
) -> np.ndarray:
    """Returns m* of some of the trials, at most the grid's end."""
    assert axis == -1
    return np.minimum(crossing(errors[trials], sizes, epsilon, level), sizes[-1])
