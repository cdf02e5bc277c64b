"""Fits of step times to exact power laws, and where two of them cross."""

import numpy as np
import pytest
from scipy import stats

from pipelines.paper.benchmark.scaling import crossover, exponent
from pipelines.paper.benchmark.timing import Timing

SIZES = (64, 256, 784, 1536, 3072)


def rows(label, ms, sizes=SIZES):
    return [Timing(d, label, ms(d), None) for d in sizes]


def test_a_power_law_is_fitted_exactly():
    timings = rows("dsm", lambda d: 3e-6 * d**2.1) + rows("ml", lambda d: 1e-8 * d**2.8)
    for label, power in (("dsm", 2.1), ("ml", 2.8)):
        assert exponent(timings, label) == pytest.approx((power,) * 3, abs=1e-6)


def test_small_sizes_are_left_out():
    """Below the least D a step has a floor that is no power of D."""
    timings = rows("dsm", lambda d: max(1.0, 3e-6 * d**2.1))
    assert exponent(timings, "dsm").value == pytest.approx(2.1)
    assert exponent(timings, "dsm", least=64).value < 2.0


@pytest.mark.parametrize("sizes", [(64, 784, 1536), (784, 784, 1536), ()])
def test_below_three_sizes_there_is_no_fit(sizes):
    assert exponent(rows("dsm", lambda d: d**2.0, sizes), "dsm") is None


def test_the_interval_is_students():
    """By the textbook: b ± t s / √Sxx, s² = residual sum of squares / (n − 2)."""
    rng = np.random.default_rng(0)
    timings = rows("dsm", lambda d: 3e-6 * d**2.1 * np.exp(0.1 * rng.standard_normal()))
    x, y = np.log([[row.size, row.ms] for row in timings]).T
    slope, intercept = np.polyfit(x, y, 1)
    spread = np.sum((y - slope * x - intercept) ** 2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2)
    reach = stats.t.ppf(0.95, len(x) - 2) * spread**0.5
    found = exponent(timings, "dsm", least=64, level=0.9)
    assert found == pytest.approx((slope, slope - reach, slope + reach))


def test_the_interval_covers_as_often_as_it_says():
    """1000 fits; the binomial deviation of the count is 0.7 %, and 4 of it are let pass."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        timings = rows("dsm", lambda d: d**2.0 * np.exp(0.2 * rng.standard_normal()))
        found = exponent(timings, "dsm", least=64)
        hits += found.low < 2.0 < found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.028)


@pytest.mark.parametrize("size", [100.0, 784.0, 2000.0])
def test_the_crossover_of_two_power_laws_is_where_they_meet(size):
    timings = rows("dsm", lambda d: (d / size) ** 2.0) + rows("ml", lambda d: (d / size) ** 2.8)
    assert crossover(timings, "dsm") == pytest.approx(size)
    assert crossover(timings, "ml", "dsm") is None


def test_what_is_always_faster_or_never_has_no_crossover():
    timings = rows("dsm", lambda d: d**2.0) + rows("ml", lambda d: 2 * d**2.1)
    assert crossover(timings, "dsm") is None
    assert crossover(timings, "ml", "dsm") is None
    assert crossover(timings, "ml", "ml") is None


def test_the_last_crossing_counts():
    """Where times cross more than once, from there on it stays the faster one."""
    ratios = dict(zip(SIZES, (2.0, 0.5, 4.0, 0.25, 0.5), strict=True))
    timings = rows("dsm", ratios.get) + rows("ml", lambda d: 1.0)
    assert crossover(timings, "dsm") == pytest.approx((784 * 1536) ** 0.5)


def test_the_least_time_of_a_size_counts():
    slow = rows("dsm", lambda d: 100.0 * d**2.0)
    fast, ml = rows("dsm", lambda d: (d / 500) ** 2.0), rows("ml", lambda d: (d / 500) ** 2.8)
    for dsm in (slow + fast, fast + slow):
        assert crossover(dsm + ml, "dsm") == pytest.approx(500)


def test_only_sizes_of_both_are_compared():
    timings = rows("dsm", lambda d: (d / 500) ** 2.0) + rows("ml", lambda d: 9.0, sizes=(64,))
    assert crossover(timings, "dsm") is None
