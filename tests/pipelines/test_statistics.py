"""Intervals, equivalence, and corrections for many claims."""

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.reporting.statistics import (
    above,
    below,
    bootstrap,
    holm,
    rank_correlation,
    student,
    within,
)

RNG = np.random.default_rng


def test_an_interval_is_students():
    found = student([1.0, 2.0, 4.0]).interval()
    assert found.value == pytest.approx(7 / 3)
    half = 4.302653 * math.sqrt(7 / 3) / math.sqrt(3)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))


def test_a_single_unit_shows_nothing():
    one = student([1.0])
    assert one.value == 1.0 and math.isnan(one.interval().low)
    for region in (above(0), below(2), within(0.1, of=1)):
        assert all(math.isnan(p) for p in (region.inside(one), region.outside(one)))
    assert math.isnan(bootstrap(np.mean, [[1.0, 2.0]]).se)


def test_two_units_that_agree_decide_nothing():
    same = student([1.0, 1.0])
    assert within(0.1, of=1).inside(same) == 0.5 == within(0.1).outside(same)
    assert above(1.0).inside(same) == 1


def test_an_interval_covers_the_mean_in_19_of_20_samples():
    """False alarms of this test: below 1e-4 (binomial, 1000 samples, 4 standard deviations)."""
    found = [student(values).interval() for values in RNG(0).normal(3.0, 2.0, (1000, 4))]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


def test_splits_of_the_same_rows_are_correlated():
    """False alarms as above; taken for independent, they would cover the mean in 4 of 5."""
    draws, overlap = RNG(6).normal(size=(2000, 1 + 5)), 0.2
    rho = overlap / (1 + overlap)
    samples = math.sqrt(rho) * draws[:, :1] + math.sqrt(1 - rho) * draws[:, 1:]
    found = [student(values, overlap=overlap).interval() for values in samples]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("values", [[0.01, 0.03, -0.01, 0.02], [0.2, 0.9, -0.4], [1.0, 1.1, 1.2]])
@pytest.mark.parametrize("region", [above(0.05), below(0.05), within(0.04), within(0.5, of=1)])
def test_p_is_that_of_the_interval(values, region):
    found = student(values)
    for level in (0.5, 0.9, 0.95):
        _, low, high = found.interval(level)
        inside, outside = region.inside(found), region.outside(found)
        assert (region.low < low and high < region.high) == (inside < 1 - level)
        assert (high < region.low or low > region.high) == (outside < 1 - level)


def test_inside_is_two_one_sided_tests():
    values = [0.01, 0.03, -0.01, 0.02]
    sides = [
        stats.ttest_1samp(values, end, alternative=side).pvalue
        for end, side in ((-0.04, "greater"), (0.04, "less"))
    ]
    assert within(0.04).inside(student(values)) == pytest.approx(2 * max(sides))


@pytest.mark.parametrize(("region", "truth"), [(above(1.0), 1.0), (within(0.5), 0.5)])
def test_a_truth_on_the_border_is_found_inside_in_1_of_40(region, truth):
    """False alarms of this test: below 1e-4 (binomial, 2000 samples, 4 standard deviations)."""
    samples = RNG(1).normal(truth, 0.1, (2000, 4))
    rate = np.mean([region.inside(student(one)) <= 0.05 for one in samples])
    assert abs(rate - 0.025) < 4 * math.sqrt(0.025 * 0.975 / 2000)


@pytest.mark.parametrize("units", [4, 30])
def test_a_bootstrap_of_a_mean_is_students(units):
    values = RNG(3).normal(size=units)
    found, exact = bootstrap(np.mean, values), student(values)
    assert found.value == exact.value and found.df == exact.df
    assert found.se == pytest.approx(exact.se, rel=0.08)
    assert bootstrap(np.mean, values) == found


def test_what_a_unit_has_stays_together():
    """Ten cells of a cluster that are all alike are worth one."""
    clusters = np.repeat(RNG(5).normal(size=(12, 1)), 10, axis=1)
    assert bootstrap(np.mean, clusters).se == pytest.approx(student(clusters[:, 0]).se, rel=0.1)


def test_a_statistic_that_is_not_finite_in_a_resample_is_an_error():
    with pytest.raises(ValueError, match=r"statistic: found \d+ of 2000 resampled values"):
        bootstrap(lambda values: 1.0 if values.any() else math.nan, [0, 0, 1])


def test_holm():
    assert holm([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1]) and holm([0.01, math.nan])[0] == 0.01
    assert holm([0.9, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_a_margin_is_above_zero():
    with pytest.raises(ValueError, match="margin: found 0, expected one above 0"):
        within(0)


def test_a_region_is_told():
    assert str(above(0.05)) == "more than 0.05" and str(below(1)) == "less than 1"
    assert str(within(0.1, of=1)) == "0.9 to 1.1"


def test_ranks_are_those_of_each_row_alone():
    """A shift of a whole row, and what is constant in it, tells nothing."""
    x = np.array([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0]])
    assert rank_correlation(x, x + [[0], [100]]) == pytest.approx([1, 1])
    assert rank_correlation(x, -x) == pytest.approx([-1, -1])
    assert rank_correlation(x, np.ones((2, 3))) == pytest.approx([0, 0])


def test_the_worst_value_is_the_furthest_from_its_region():
    values = np.array([-3.0, 0.5, 2.0])
    assert above(1).worst(values) == -3 and below(1).worst(values) == 2
    assert within(0.1, of=0.4).worst(values) == -3 and within(0.1, of=-2.9).worst(values) == 2


@pytest.mark.parametrize(("units", "p"), [(5, 1 / 16), (6, 1 / 32), (30, 2.0**-29)])
def test_equal_values_are_no_proof(units, p):
    """The two-sided sign test: five of five on one side have p = 1/16."""
    found = student([0.4] * units)
    assert above(0.1).inside(found) == pytest.approx(p) == below(0.1).outside(found)
    assert above(0.1).outside(found) == 1 == above(0.4).inside(found)
