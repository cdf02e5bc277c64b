"""Crossing points and their growth, on errors made up by exact laws."""

import math

import numpy as np
import pytest

from pipelines.sample_complexity.crossing import crossing, growth, slope

SIZES = (1, 2, 4, 8)


@pytest.mark.parametrize(
    "row, expected",
    [((2, 2, 0, 0), 2 * 2**0.5), ((0, 9, 0, 9), math.inf), ((0, 0, 0, 0), 1), ((0, 9, 5, 1), 8)],
)
def test_from_the_crossing_on_the_error_stays_below(row, expected):
    """Between two points the error falls along a line in log m: from 2 to 0 it is 1 half-way."""
    errors = np.tile(np.array(row, float), (3, 1))
    assert crossing(errors, SIZES, 1.0) == pytest.approx(expected)


def test_a_power_of_m_crosses_where_it_does():
    """Errors of m^−½ on a grid in steps of two: off by 3 % at most, and not by a step."""
    sizes = 2 ** np.arange(12)
    for epsilon in (0.3, 0.21, 0.1):
        found = crossing((sizes**-0.5)[None], sizes, epsilon)
        assert found == pytest.approx(epsilon**-2, rel=0.04)


def test_the_quantile_over_trials_decides():
    errors = np.array([[5.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert crossing(errors, (1, 2), 1.0, level=0.75) == 1
    assert crossing(errors, (1, 2), 1.0, level=0.95) == pytest.approx(2**0.75)


def test_a_slope_is_least_squares():
    values, crossings = np.array([8.0, 16, 32, 64]), np.array([3.0, 20, 40, 400])
    expected = np.polyfit(np.log(values), np.log(crossings), 1)[0]
    assert slope(values, crossings) == pytest.approx(expected)
    both = slope(values, np.stack([crossings, values**2], 1))
    assert both == pytest.approx([expected, 2.0])


def far_mode_errors(eta, sizes, trials, rng):
    """Returns errors of 1 until the first sample of the far mode, which comes at η a sample."""
    first = rng.geometric(eta, size=(trials, 1))
    return np.where(first > np.asarray(sizes), 1.0, 0.0)


def grid(eta):
    return sorted({round(m) for m in np.geomspace(1, 8 / eta, 40)})


def grown(draw, values=(8, 16, 32, 64, 128), trials=60, **options):
    rng = np.random.default_rng(draw)
    etas = [2 / value**2 for value in values]
    errors = [far_mode_errors(eta, grid(eta), trials, rng) for eta in etas]
    return growth(values, errors, [grid(eta) for eta in etas], 0.5, **options)


def test_a_mode_of_weight_r_to_the_minus_two_has_slope_two():
    """m* is the quantile of a geometric law: log 4 / η at q = 0.75."""
    found = grown(0, trials=4000, resamples=50)
    assert found.slope.value == pytest.approx(2, abs=0.05)
    for value, m in zip((8, 16, 32, 64, 128), found.crossings, strict=True):
        assert m.value == pytest.approx(math.log(4) * value**2 / 2, rel=0.2)


def test_the_interval_covers_as_often_as_it_says():
    """60 studies; a binomial deviation of the count is 1.7, and 3 of it are let pass."""
    hits = 0
    for seed in range(60):
        found = grown(seed, trials=40, resamples=100, seed=seed).slope.interval()
        hits += found.low <= 2 <= found.high
    assert hits >= 57 - 5


def test_what_does_not_cross_is_left_out_and_too_few_have_no_slope():
    errors = [np.ones((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))]
    found = growth((1, 2, 3), errors, [(1, 2, 3)] * 3, 0.5, resamples=10)
    assert found.crossings[0].value == math.inf and found.slope is None


def test_paired_trials_are_drawn_together():
    """Of the same trials, every one twice as late at twice the value, the slope has no spread."""
    first = np.random.default_rng(0).geometric(0.1, size=(20, 1))
    values = (1.0, 2.0, 4.0)
    sizes = [[round(m * value) for m in range(1, 80)] for value in values]
    errors = [
        (first * value > np.array(m)).astype(float) for value, m in zip(values, sizes, strict=True)
    ]
    alone, paired = (
        growth(values, errors, sizes, 0.5, resamples=200, paired=together).slope
        for together in (False, True)
    )
    assert (paired.value, paired.se) == pytest.approx((1, 0)) and alone.se > 0.02


def test_growths_of_the_same_trials_are_compared_without_what_they_share():
    """Errors of the same trials, one kind of which crosses twice as late at twice the value."""
    first = np.random.default_rng(0).geometric(0.1, size=(20, 1))
    values, sizes = (1.0, 2.0, 4.0), np.arange(1, 400)
    late, same = (
        growth(values, [(first * v**power > sizes).astype(float) for v in values], [sizes] * 3,
               0.5, resamples=200, paired=True)
        for power in (1, 0)
    )  # fmt: skip
    gap = late.minus(same)
    assert gap.value == pytest.approx(late.slope.value - same.slope.value)
    assert gap.se < 0.02 < 0.05 + late.slope.se
    assert late.minus(growth((1, 2, 3), [np.ones((4, 3))] * 3, [(1, 2, 3)] * 3, 0.5)) is None


def test_the_same_seed_gives_the_same_intervals():
    assert grown(3, resamples=50) == grown(3, resamples=50)
