"""Finite classes: the claims and checks on rows of small cells."""

import math

import pytest

from pipelines.reporting.claims import decide
from pipelines.sample_complexity.config import ClassCell, StepCell, TwoPointCell
from pipelines.sample_complexity.learn import measured
from pipelines.sample_complexity.minimizer import about_minimizers, check_quantiles
from pipelines.sample_complexity.rows import matrix
from pipelines.sample_complexity.two_points import about_two_points, check_chances


@pytest.fixture(scope="module")
def two():
    return measured(TwoPointCell(seed=0, count=150, ratios=(8.0, 16.0)))


def test_two_densities_are_confused_as_often_as_the_closed_form_says(two):
    check = check_chances(two)
    assert check.passed and check.item == "G1"
    flipped = two.assign(wrong=~two["wrong"])
    assert not check_chances(flipped).passed


def test_mean_square_sees_the_missed_mode_and_the_quantile_does_not(two):
    first, _ = decide(list(about_two_points(two, two)))
    assert first.item == "G1" and first.value == pytest.approx(0.5 / math.e, abs=0.06)
    blind = two.assign(sigma_l2=0.0)
    assert decide(list(about_two_points(blind, blind)))[0].verdict == "does not hold"


def test_every_minimizer_of_an_easy_truth_fails():
    rows = measured(StepCell(seed=0, count=150, places=(2.0, 2.5)))
    (claim,) = decide(list(about_minimizers(rows)))
    assert claim.verdict == "holds" and claim.item == "G6"
    assert check_quantiles(rows).passed
    right = rows.assign(sigma_l2=0.0, **{"sigma_d_0.1": 1.0})
    assert decide(list(about_minimizers(right)))[0].verdict == "does not hold"
    assert not check_quantiles(right).passed


def test_a_class_finds_the_truth_from_its_crossing_on():
    rows = measured(ClassCell(seed=0, count=100, against="log |H|", values=(100,)))
    errors, sizes = matrix(rows, "over_epsilon")
    assert set(rows["value"]) == {math.log(100)} and set(errors.flat) == {0.0, 2.0}
    wrong = (errors > 1).mean(0)
    assert wrong[0] > 0.9 and wrong[-1] < 0.05 and sizes[0] == 2
