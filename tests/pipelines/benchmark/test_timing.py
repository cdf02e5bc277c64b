"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from ebflow.architectures import convolutional, dense
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.runtime import KINDS
from pipelines.paper.steps import Subject, benchmark, net, step_flops


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_objective_of_a_net_steps(kind):
    name, channels, variant = kind
    subject = Subject(net(StepsConfig(net=name, channels=channels, variant=variant, side=12)))
    for label in KINDS[kind][1]:
        step = subject.stepper(label, 2)
        step()
        step()


@pytest.mark.parametrize("kind, variant", [kind[::2] for kind in KINDS], ids=str)
def test_nets_of_growing_images(kind, variant):
    for side in (12, 16):
        flow = net(StepsConfig(net=kind, variant=variant, channels=3, side=side))
        assert flow.event_shape == ((3, side, side) if kind == "CNN" else (3 * side**2,))
        kinds = {type(layer).__name__ for layer in flow.layers}
        assert ("MonotoneSpline" in kinds) == (variant == "spline")
        paddings = {getattr(layer, "padding", None) for layer in flow.layers} - {None}
        zero = "zero" if variant == "plain" else variant
        assert paddings == ({zero} if kind == "CNN" else set())


def test_every_net_of_a_short_run_can_be_made():
    for cell in EXPERIMENTS["runtime"].all_cells(PaperConfig(experiment="runtime", scale="smoke")):
        assert net(cell.config).event_shape and cell.config.objectives


@pytest.mark.parametrize("made", [lambda: dense((8,)), lambda: convolutional((1, 4, 4))])
def test_figures_fit_each_other(made):
    flow = made()
    names = ("ml", "dsm", "dsm + anchor", "lazy_ml")
    rows = {row["label"]: row for row in benchmark(flow, names, peak=1e9, seconds=0.001, batch=10)}
    assert tuple(rows) == names
    dsm = rows["dsm"]
    assert dsm["size"] == sum(p.numel() for p in [flow.sample(1)])
    rate = step_flops(flow, "dsm", 10, Subject(flow).stepper("dsm", 10)) / (dsm["ms"] / 1e3)
    assert dsm["peak_fraction"] == pytest.approx(rate / 1e9)


def test_what_is_not_counted_is_left_out():
    flow = convolutional((1, 4, 4))
    (row,) = benchmark(flow, ("sml",), peak=1e9, seconds=0.001, batch=2)
    assert (row["size"], row["peak_fraction"]) == (16, None)
