"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from ebflow.benchmark import (
    Timing,
    benchmark,
    convolutional_cases,
    dense_cases,
    growth,
    stepper,
)
from ebflow.costs import flops, gemms
from ebflow.objectives import OBJECTIVES


def test_every_objective_steps():
    cases = dense_cases(4, batch=5)
    assert set(OBJECTIVES) <= {case.label for case in cases}
    for case in cases:
        step = stepper(case, 5)
        step()
        step()


def test_exact_score_matching_is_timed_where_it_has_a_closed_form():
    assert "exact_sm" not in {case.label for case in dense_cases(4, depth=3)}


def test_convolutions_step():
    cases = convolutional_cases((1, 8, 8), 3)
    assert cases[0].label == "ml, zero"
    assert {"lazy_ml, zero", "ssm, zero", "ml, circular", "dsm, masked"} <= {
        case.label for case in cases
    }
    for case in cases:
        stepper(case, 2)()


def test_figures_fit_each_other():
    cases = dense_cases(8, batch=10, objectives=("dsm",))
    rows = {row.label: row for row in benchmark(cases, peak=1e9, seconds=0.001, batch=10)}
    assert list(rows) == ["ml", "dsm", "dsm + anchor"]
    dsm, ml = rows["dsm"], rows["ml"]
    assert dsm.gemms == gemms("dsm", 2) and dsm.size == 8 and dsm.ms <= dsm.median_ms
    assert dsm.ml_ratio == pytest.approx(ml.ms / dsm.ms)
    rate = flops("dsm", 8, 10, 2) / (dsm.ms / 1e3)
    assert dsm.peak_fraction == pytest.approx(rate / 1e9)


def test_what_is_not_counted_is_left_out():
    cases = convolutional_cases((1, 4, 4), 3)[:1]
    (row,) = benchmark(cases, peak=1e9, seconds=0.001, batch=2)
    assert (row.size, row.gemms, row.peak_fraction, row.ml_ratio) == (16, None, None, 1.0)


def test_growth_is_the_exponent():
    rows = [Timing(d, "dsm", 3e-6 * d**2.1, 0.0, 11, 0.0, 1.0) for d in (256, 784, 1536, 3072)]
    assert growth(rows) == {"dsm": pytest.approx(2.1)}
    assert growth(rows[:2]) == {}
