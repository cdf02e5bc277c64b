"""Fits of step times to exact power laws, and where two of them cross."""

import numpy as np
import pytest
from scipy import stats

from pipelines.paper.runtime import LEAST, crossover, exponent

SIZES = (64, 256, 784, 1536, 3072)


def times(ms, sizes=SIZES):
    return {d: ms(d) for d in sizes}


@pytest.mark.parametrize("power", [2.1, 2.8])
def test_a_power_law_is_fitted_exactly(power):
    found = exponent(times(lambda d: 3e-6 * d**power)).interval()
    assert found == pytest.approx((power,) * 3, abs=1e-6)


def test_small_sizes_are_left_out():
    """Below the least D a step has a floor that is no power of D."""
    assert exponent(times(lambda d: max(0.3, 3e-6 * d**2.1))).value == pytest.approx(2.1)


@pytest.mark.parametrize("sizes", [(64, 784, 1536), ()])
def test_below_three_sizes_there_is_no_fit(sizes):
    assert exponent(times(lambda d: d**2.0, sizes)) is None


def test_the_interval_is_students():
    """By the textbook: b ± t s / √Sxx, s² = residual sum of squares / (n − 2)."""
    rng = np.random.default_rng(0)
    timings = times(lambda d: 3e-6 * d**2.1 * np.exp(0.1 * rng.standard_normal()))
    x, y = np.log([pair for pair in timings.items() if pair[0] >= LEAST]).T
    slope, intercept = np.polyfit(x, y, 1)
    spread = np.sum((y - slope * x - intercept) ** 2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2)
    reach = stats.t.ppf(0.95, len(x) - 2) * spread**0.5
    assert exponent(timings).interval(0.9) == pytest.approx((slope, slope - reach, slope + reach))


def test_the_interval_covers_as_often_as_it_says():
    """1000 fits; the binomial deviation of the count is 0.7 %, and 4 of it are let pass."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        found = exponent(times(lambda d: d**2.0 * np.exp(0.2 * rng.standard_normal()))).interval()
        hits += found.low < 2.0 < found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.028)


def test_the_crossover_is_the_least_size_from_which_on_a_step_is_faster():
    dsm, ml = times(lambda d: (d / 500) ** 2.0), times(lambda d: (d / 500) ** 2.8)
    assert crossover(dsm, ml) == 784
    assert crossover(ml, dsm) is None
    ratios = dict(zip(SIZES, (0.5, 2.0, 0.5, 0.25, 0.5), strict=True))
    assert crossover(ratios, times(lambda d: 1.0)) == 784, "the last crossing counts"


def test_only_sizes_of_both_are_compared():
    dsm = times(lambda d: (d / 500) ** 2.0)
    assert crossover(dsm, times(lambda d: 9.0, sizes=(64,))) == 64
