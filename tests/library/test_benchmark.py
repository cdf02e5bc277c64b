"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from ebflow.benchmark import Timing, benchmark, growth, steppers
from ebflow.costs import flops, gemms
from ebflow.objectives import OBJECTIVES


def test_every_objective_steps():
    steps = steppers(4, 2, 5, tuple(OBJECTIVES))
    assert set(OBJECTIVES) <= set(steps)
    for step in steps.values():
        step()
        step()


def test_figures_fit_each_other():
    found = benchmark(8, peak=1e9, seconds=0.001, objectives=("dsm",), batch=10)
    rows = {r.objective: r for r in found}
    assert {"ml", "dsm"} <= set(rows)
    dsm, ml = rows["dsm"], rows["ml"]
    assert dsm.gemms == gemms("dsm", 2) and dsm.size == 8 and dsm.ms <= dsm.median_ms
    assert dsm.ml_ratio == pytest.approx(ml.ms / dsm.ms)
    rate = flops("dsm", 8, 10, 2) / (dsm.ms / 1e3)
    assert dsm.peak_fraction == pytest.approx(rate / 1e9)


def test_growth_is_the_exponent():
    rows = [Timing(d, "dsm", 3e-6 * d**2.1, 0.0, 11, 0.0, 1.0) for d in (256, 784, 1536, 3072)]
    assert growth(rows) == {"dsm": pytest.approx(2.1)}
    assert growth(rows[:2]) == {}
