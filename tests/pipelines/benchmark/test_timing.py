"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import pytest

from docs.measurements.runtime import crossover
from ebflow.anchor import Anchor
from ebflow.architectures import convolutional, dense
from pipelines.paper.timing import benchmark, step_flops, training_steps


@pytest.mark.parametrize("made", [lambda: dense((8,)), lambda: convolutional((1, 4, 4))])
def test_figures_fit_each_other(made):
    flow = made()
    names = ("ml", "dsm", "dsm + anchor", "lazy_ml")
    rows = {row["label"]: row for row in benchmark(flow, names, peak=1e9, seconds=0.001, batch=10)}
    assert tuple(rows) == names
    dsm = rows["dsm"]
    assert dsm["size"] == sum(p.numel() for p in [flow.sample(1)])
    step = training_steps(flow, ["dsm"], 10, Anchor(flow))["dsm"]
    rate = step_flops(flow, "dsm", 10, step) / (dsm["ms"] / 1e3)
    assert dsm["peak_fraction"] == pytest.approx(rate / 1e9)


def test_the_crossover_is_the_least_size_from_which_on_a_step_is_faster():
    """Of the sizes of both; the last crossing counts."""
    dsm, ml = {64: 0.5, 256: 2.0, 784: 0.5, 1536: 0.25}, dict.fromkeys((64, 256, 784, 1536), 1.0)
    assert crossover(dsm, ml) == 784 and crossover(ml, ml) is None
    assert crossover(dsm, {64: 9.0}) == 64


def test_what_is_not_counted_is_left_out():
    flow = convolutional((1, 4, 4))
    (row,) = benchmark(flow, ("sml",), peak=1e9, seconds=0.001, batch=2)
    assert (row["size"], row["peak_fraction"]) == (16, None)
