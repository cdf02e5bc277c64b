"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from ebflow.architectures import dense
from ebflow.objectives import OBJECTIVES
from pipelines.paper.benchmark.cases import Case, convolutional_cases, dense_cases
from pipelines.paper.benchmark.costs import convolutional_flops, flops
from pipelines.paper.benchmark.timing import Subject, benchmark, stepper
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.stages.steps import OBJECTIVES as CONVOLUTIONAL
from pipelines.paper.stages.steps import cases as cases_of


def test_every_objective_steps():
    cases = dense_cases(4, batch=5)
    assert set(OBJECTIVES) <= {case.label for case in cases}
    for case in cases:
        step = stepper(case, 5)
        step()
        step()


@pytest.mark.parametrize("padding", ["zero", "circular", "masked"])
def test_convolutions_step(padding):
    names = CONVOLUTIONAL if padding == "zero" else ("ml", "dsm")
    cases = convolutional_cases((1, 8, 8), 3, objectives=names, padding=padding)
    assert [case.label for case in cases] == list(names)
    for case in cases:
        stepper(case, 2)()


VARIANTS = [
    ("FC", "plain", (*OBJECTIVES, "dsm + anchor", "ssm + anchor")),
    ("FC", "spline", ("ml", "lazy_ml", "dsm", "dsm + anchor")),
    ("CNN", "plain", CONVOLUTIONAL),
    ("CNN", "circular", ("ml", "dsm")),
    ("CNN", "masked", ("ml", "dsm")),
]


@pytest.mark.parametrize("net, variant, labels", VARIANTS)
def test_nets_of_growing_images(net, variant, labels):
    for side in (12, 16):
        config = StepsConfig(net=net, variant=variant, channels=3, side=side)
        cases = cases_of(config)
        assert {case.label for case in cases} == set(labels)
        stepper(cases[0], 2)()
        flow = Subject(cases[0].flow).flow
        assert flow.event_shape == ((3, side, side) if net == "CNN" else (3 * side**2,))
        kinds = {type(layer).__name__ for layer in flow.layers}
        assert ("MonotoneSpline" in kinds) == (variant == "spline")
        paddings = {getattr(layer, "padding", None) for layer in flow.layers} - {None}
        assert paddings == ({"zero" if variant == "plain" else variant} if net == "CNN" else set())


def test_every_net_of_a_short_run_can_be_made():
    for cell in EXPERIMENTS["runtime"].cells(PaperConfig(experiment="runtime", scale="smoke")):
        assert cases_of(cell.config)


def test_figures_fit_each_other():
    cases = dense_cases(8, batch=10, objectives=("ml", "dsm"))
    rows = {row.label: row for row in benchmark(cases, peak=1e9, seconds=0.001, batch=10)}
    assert list(rows) == ["ml", "dsm", "dsm + anchor"]
    dsm = rows["dsm"]
    assert dsm.size == 8
    rate = flops("dsm", 8, 10, 2) / (dsm.ms / 1e3)
    assert dsm.peak_fraction == pytest.approx(rate / 1e9)


def test_convolutions_have_their_share_of_the_peak():
    cases = convolutional_cases((1, 4, 4), 3, batch=2, objectives=("dsm",))
    (row,) = benchmark(cases, peak=1e9, seconds=0.001, batch=2)
    count = convolutional_flops("dsm", Subject(cases[0].flow).flow, 2)
    assert row.peak_fraction == pytest.approx(count / (row.ms / 1e3) / 1e9)


def test_what_is_not_counted_is_left_out():
    cases = convolutional_cases((1, 4, 4), 3, objectives=("sml",))
    (row,) = benchmark(cases, peak=1e9, seconds=0.001, batch=2)
    assert (row.size, row.peak_fraction) == (16, None)


def test_cases_of_one_flow_share_one_training():
    built = []

    def flow(generator):
        built.append(dense((4,), generator=generator))
        return built[-1]

    cases = [Case(name, flow, name) for name in ("dsm", "ssm", "lazy_ml")]
    rows = benchmark(cases, peak=1e9, seconds=0.001, batch=4)
    assert len(built) == 1 and [row.label for row in rows] == ["dsm", "ssm", "lazy_ml"]
