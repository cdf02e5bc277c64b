"""Costs of steps: PyTorch's counts against the formulas in the docstrings of objectives."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.architectures import convolutional, dense
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import generator as derive
from pipelines.paper.timing import ANCHORED, measured_peak, step_flops, training_steps

BATCH, SIZE = 6, 5
UNIT = 2 * BATCH * SIZE**2

# GEMMs of 2 B D²; of ``sml`` without the triangular solutions, which PyTorch does not count
FORMULAS = {
    "ml": lambda depth: 3 * depth - 1, "lazy_ml": lambda depth: 3 * depth - 1,
    "relative_ml": lambda depth: 4 * depth - 1, "dsm": lambda depth: 6 * depth - 1,
    "ssm": lambda depth: 9 * depth - 5, "ssm_vr": lambda depth: 9 * depth - 2,
    "fd_ssm": lambda depth: 9 * depth - 3, "taylor_sm": lambda depth: 9 * depth - 2,
    "sml": lambda depth: 6 * depth - 2,
}  # fmt: skip

SLICES = {
    "ssm": lambda depth, slices: 6 * depth + slices * (3 * depth - 1) - 4,
    "ssm_vr": lambda depth, slices: 6 * depth + slices * (3 * depth - 1) - 1,
    "taylor_sm": lambda depth, slices: 6 * depth - 1 + slices * (3 * depth - 1),
}


def counted(flow, objective, **options):
    """Returns the FLOP of matrix products and convolutions of one step."""
    if objective == "lazy_ml":
        options["anchor"] = Anchor(flow)
        options["anchor"].follow(0)
    x = torch.randn(BATCH, *flow.event_shape, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        loss = OBJECTIVES[objective](flow, x, generator=derive(0), **options).mean()
        loss.backward(inputs=list(flow.parameters()))
    return counter.get_total_flops()


def gemms(depth, objective, **options):
    return counted(dense((SIZE,), depth=depth), objective, **options) / UNIT


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("objective", FORMULAS)
def test_gemms_are_those_of_the_formulas(objective, depth):
    assert gemms(depth, objective) == FORMULAS[objective](depth)


@pytest.mark.parametrize("shape", [(SIZE,), (1, SIZE, 1)])
def test_the_exact_trace_of_two_layers_costs_two_products_of_matrices(shape):
    """The order of pixels costs no further product."""
    expected = 14 * UNIT + 12 * SIZE**3
    assert counted(dense(shape), "exact_sm") == expected


@pytest.mark.parametrize("depth", [3, 4])
def test_the_exact_trace_of_more_layers_costs_a_tangent_for_every_dimension(depth):
    found = gemms(depth, "exact_sm") - 4 * SIZE**3 / UNIT  # the unit vectors in the first layer
    assert found == pytest.approx(6 * depth - 1 + 3 * SIZE * (depth - 1))


@pytest.mark.parametrize("slices", [2, 3, 8])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("objective", SLICES)
def test_gemms_of_slices_are_those_of_the_formulas(objective, depth, slices):
    assert gemms(depth, objective, slices=slices) == SLICES[objective](depth, slices)


def of_step(flow, label):
    """Returns the FLOP of a step of the benchmark, no refresh of an anchor among them."""
    anchor = Anchor(flow)
    anchor.refresh()
    return step_flops(flow, label, BATCH, training_steps(flow, [label], BATCH, anchor)[label])


@pytest.mark.parametrize("label", [*OBJECTIVES, f"dsm{ANCHORED}", f"ssm{ANCHORED}"])
def test_a_step_adds_what_is_not_counted(label):
    """LU, and of ml the inverse, of two layers; of sml two triangular solutions."""
    more = {"ml": 2 * (8 / 3) * SIZE**3, "sml": 2 * (2 / 3) * SIZE**3 + 2 * UNIT}
    expected = counted(dense((SIZE,)), label.removesuffix(ANCHORED)) + more.get(label, 0)
    assert of_step(dense((SIZE,)), label) == pytest.approx(expected)


# FLOP of a step, by those of the forward pass of the first layer and of all of them
CONVOLUTIONS = {
    "lazy_ml": lambda first, all: 3 * all - first,
    "dsm": lambda first, all: 6 * all - first,
    "ssm": lambda first, all: 9 * all - 5 * first,
    "ssm_vr": lambda first, all: 9 * all - 2 * first,
    "fd_ssm": lambda first, all: 9 * all - 3 * first,
    "taylor_sm": lambda first, all: 9 * all - 2 * first,
}


def cnn():
    """Returns a net of blocks of 2×4×4 and 8×2×2 events, two layers each."""
    return convolutional((2, 4, 4), kernel_size=3, blocks=2)


UNITS = [2 * BATCH * 32 * 2 * 9] * 2 + [2 * BATCH * 32 * 8 * 9] * 2


@pytest.mark.parametrize("objective", CONVOLUTIONS)
def test_convolutions_take_the_place_of_gemms(objective):
    assert of_step(cnn(), objective) == CONVOLUTIONS[objective](UNITS[0], sum(UNITS))


@pytest.mark.parametrize("objective", ["ml", "sml"])
def test_what_is_not_counted(objective):
    assert of_step(cnn(), objective) is None


def test_peak_is_a_rate():
    """Between 0.1 GFLOP/s and 1 PFLOP/s: a check of units, not of the machine."""
    assert 1e8 < measured_peak(sizes=(64,), seconds=0.02) < 1e15
