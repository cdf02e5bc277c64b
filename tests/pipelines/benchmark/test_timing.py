"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from ebflow.architectures import dense
from ebflow.objectives import OBJECTIVES
from pipelines.benchmark.cases import (
    ZERO_PADDED,
    Case,
    convolutional_cases,
    dense_cases,
    image_cases,
)
from pipelines.benchmark.costs import convolutional_flops, flops, gemms
from pipelines.benchmark.timing import Subject, benchmark, stepper


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


def test_images_of_growing_sides_are_padded_with_zeros():
    lists = image_cases(3, range(4, 13, 4), 3, objectives=("ml", "dsm"))
    for side, cases in zip((4, 8, 12), lists, strict=True):
        assert [case.label for case in cases] == ["ml, zero", "dsm, zero"]
        assert all(Subject(case.flow).flow.event_shape == (3, side, side) for case in cases)
    assert [case.objective for case in image_cases(1, [8], 3)[0]] == list(ZERO_PADDED)


@pytest.mark.parametrize("side", [0, 6])
def test_sides_that_the_net_cannot_halve_twice(side):
    with pytest.raises(ValueError, match=f"sides: found {side}, expected multiples of 4"):
        image_cases(1, [8, side], 3)


def test_figures_fit_each_other():
    cases = dense_cases(8, batch=10, objectives=("ml", "dsm"))
    rows = {row.label: row for row in benchmark(cases, peak=1e9, seconds=0.001, batch=10)}
    assert list(rows) == ["ml", "dsm", "dsm + anchor"]
    dsm, ml = rows["dsm"], rows["ml"]
    assert dsm.gemms == gemms("dsm", 2) and dsm.size == 8 and dsm.ms <= dsm.median_ms
    assert dsm.ml_ratio == pytest.approx(ml.ms / dsm.ms)
    rate = flops("dsm", 8, 10, 2) / (dsm.ms / 1e3)
    assert dsm.peak_fraction == pytest.approx(rate / 1e9)


def test_convolutions_have_their_share_of_the_peak():
    cases = convolutional_cases((1, 4, 4), 3, batch=2, objectives={"zero": ("dsm",)})
    (row,) = benchmark(cases, peak=1e9, seconds=0.001, batch=2)
    count = convolutional_flops("dsm", Subject(cases[0].flow).flow, 2)
    assert row.gemms is None
    assert row.peak_fraction == pytest.approx(count / (row.ms / 1e3) / 1e9)


def test_what_is_not_counted_or_compared_is_left_out():
    cases = convolutional_cases((1, 4, 4), 3, objectives={"zero": ("sml",)})
    (row,) = benchmark(cases, peak=1e9, seconds=0.001, batch=2)
    assert (row.size, row.gemms, row.peak_fraction, row.ml_ratio) == (16, None, None, None)


def test_cases_of_one_flow_share_one_training():
    built = []

    def flow(generator):
        built.append(dense((4,), generator=generator))
        return built[-1]

    cases = [Case(name, flow, name) for name in ("dsm", "ssm", "lazy_ml")]
    rows = benchmark(cases, peak=1e9, seconds=0.001, batch=4)
    assert len(built) == 1 and [row.label for row in rows] == ["dsm", "ssm", "lazy_ml"]
