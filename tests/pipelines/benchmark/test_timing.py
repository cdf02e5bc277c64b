"""The benchmark's steps are those of training; its figures fit each other. No time is asserted."""

import math

import pytest
import torch

from ebflow.anchor import Anchor
from ebflow.architectures import convolutional, dense
from ebflow.randomness import generator
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig
from pipelines.paper.runtime import benchmark, step_flops, training_steps
from pipelines.training.flow_training import build_flow

CELLS = EXPERIMENTS["runtime"].all_cells(PaperConfig(experiment="runtime", scale="smoke"))


def made_of(config):
    return build_flow(config.model, config.shape, generator=generator(0), dtype=torch.float32)


@pytest.mark.parametrize("cell", CELLS[:1] + CELLS[3:4] + CELLS[9:], ids=lambda cell: cell.title)
def test_every_objective_of_a_net_steps(cell):
    flow = made_of(cell.config)
    for step in training_steps(flow, cell.config.objectives, 2, Anchor(flow)).values():
        step()
        step()


def test_nets_are_those_of_their_names():
    for cell in CELLS:
        flow, (name, images, side) = made_of(cell.config), cell.labels.values()
        channels = 1 if images == "grey" else 3
        assert math.prod(flow.event_shape) == channels * int(side) ** 2
        kinds = {type(layer).__name__ for layer in flow.layers}
        assert ("MonotoneSpline" in kinds) == ("spline" in name)
        assert ("Convolution" in kinds) == ("CNN" in name)


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


def test_what_is_not_counted_is_left_out():
    flow = convolutional((1, 4, 4))
    (row,) = benchmark(flow, ("sml",), peak=1e9, seconds=0.001, batch=2)
    assert (row["size"], row["peak_fraction"]) == (16, None)
