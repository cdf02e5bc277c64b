"""The cost model against what PyTorch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.architectures import convolutional, dense
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import generator as derive
from pipelines.paper.benchmark import costs

BATCH, SIZE = 6, 5
UNIT = 2 * BATCH * SIZE**2

FORMULAS = {
    "ml": lambda depth: 3 * depth - 1,
    "lazy_ml": lambda depth: 3 * depth - 1,
    "relative_ml": lambda depth: 4 * depth - 1,
    "dsm": lambda depth: 6 * depth - 1,
    "ssm": lambda depth: 9 * depth - 5,
    "ssm_vr": lambda depth: 9 * depth - 2,
    "fd_ssm": lambda depth: 9 * depth - 3,
    "taylor_sm": lambda depth: 9 * depth - 2,
}


def counted(objective, depth, **options):
    """Returns the GEMMs of one step, forward and backward, by PyTorch's counter."""
    gemms, rest = divmod(counted_flops(objective, depth, **options), UNIT)
    assert rest == 0
    return gemms


def counted_flops(objective, depth, **options):
    return counted_of(dense((SIZE,), depth=depth), objective, **options)


def counted_of(flow, objective, **options):
    """Returns the FLOP of matrix products and convolutions of one step."""
    if objective == "lazy_ml":
        options["anchor"] = Anchor(flow)
        options["anchor"].follow(0)
    x = torch.randn(BATCH, *flow.event_shape, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        loss = OBJECTIVES[objective](flow, x, generator=derive(0), **options).mean()
        loss.backward(inputs=list(flow.parameters()))
    return counter.get_total_flops()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("objective", FORMULAS)
def test_gemms_are_counted(objective, depth):
    found = counted(objective, depth)
    assert found == costs.gemms(objective, depth)
    assert found == FORMULAS[objective](depth)


@pytest.mark.parametrize("slices", [2, 3, 8])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("objective", ["ssm", "ssm_vr", "taylor_sm"])
def test_gemms_of_slices_are_counted(objective, depth, slices):
    found = counted(objective, depth, slices=slices)
    assert found == costs.gemms(objective, depth, slices)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gemms_of_pairs_are_counted(depth):
    assert counted("dsm", depth, antithetic=True) == costs.gemms("dsm", depth, 2)
    both = counted("taylor_sm", depth, estimator="two_sided", slices=3)
    assert both == costs.gemms("taylor_sm", depth, 6)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_flop_of_an_exact_trace_is_counted(depth):
    expected = costs.flops("exact_sm", SIZE, BATCH, depth, slices=SIZE)
    assert counted_flops("exact_sm", depth) == expected


def test_an_exact_trace_of_two_layers_is_14_products_and_8_of_weights():
    assert costs.gemms("exact_sm", 2) == 14 and costs.cubic("exact_sm", 2) == 8


@pytest.mark.parametrize("depth", [2, 3])
def test_sampling_solves_by_factors_beside_its_products(depth):
    """PyTorch does not count the L triangular solves, which the model does."""
    assert counted("sml", depth) == costs.gemms("sml", depth) - depth


PADDINGS = pytest.mark.parametrize("padding", ["zero", "circular", "masked"])
CONVOLUTIONS = {
    "lazy_ml": lambda first, all: 3 * all - first,
    "dsm": lambda first, all: 6 * all - first,
    "ssm": lambda first, all: 9 * all - 5 * first,
    "ssm_vr": lambda first, all: 9 * all - 2 * first,
    "fd_ssm": lambda first, all: 9 * all - 3 * first,
    "taylor_sm": lambda first, all: 9 * all - 2 * first,
}
"""FLOP of a step, by those of the forward pass of the first layer and of all of them."""


def cnn(padding="zero"):
    """Returns a net of blocks of 2×4×4 and 8×2×2 events, two layers each."""
    return convolutional((2, 4, 4), kernel_size=3, padding=padding, blocks=2)


UNITS = [2 * BATCH * 32 * 2 * 9] * 2 + [2 * BATCH * 32 * 8 * 9] * 2


@PADDINGS
@pytest.mark.parametrize("objective", CONVOLUTIONS)
def test_convolutions_are_counted(objective, padding):
    found = counted_of(cnn(padding), objective)
    assert found == costs.convolutional_flops(objective, cnn(padding), BATCH)
    assert found == CONVOLUTIONS[objective](UNITS[0], sum(UNITS))


@pytest.mark.parametrize("slices", [2, 3])
@pytest.mark.parametrize("objective", ["ssm", "ssm_vr", "taylor_sm"])
def test_convolutions_of_slices_are_counted(objective, slices):
    found = counted_of(cnn(), objective, slices=slices)
    assert found == costs.convolutional_flops(objective, cnn(), BATCH, slices)


def test_exact_likelihood_eliminates_every_convolution_by_strips():
    """PyTorch counts the products; not the inverses (2 m³) and log-determinants (8/3 m³)."""
    found = costs.convolutional_flops("ml", cnn(), BATCH)
    factorised = (2 + 2 / 3 + 2) * 2 * (4 * 8**3 + 2 * 16**3)
    assert found == pytest.approx(counted_of(cnn(), "ml") + factorised)
    products, corners = 2 * 16 * (3 * 8**3 + 16**3), 2 * 16 * 9 * (8**2 * 2 + 16**2 * 8)
    assert found == pytest.approx(3 * sum(UNITS) - UNITS[0] + corners + products + factorised)


def test_masked_convolutions_need_no_matrix():
    found = costs.convolutional_flops("ml", cnn("masked"), BATCH)
    assert found == counted_of(cnn("masked"), "ml") == 3 * sum(UNITS) - UNITS[0]


def test_what_is_not_counted():
    assert costs.convolutional_flops("ml", cnn("circular"), BATCH) is None
    for objective in ("exact_sm", "relative_ml", "sml"):
        assert costs.convolutional_flops(objective, cnn(), BATCH) is None


def test_every_objective_has_a_cost():
    assert set(costs.OBJECTIVE_COSTS) == set(OBJECTIVES)


def test_flop_of_a_step():
    assert costs.flops("dsm", SIZE, BATCH, 2) == 11 * UNIT
    assert costs.flops("ml", SIZE, BATCH, 2) == pytest.approx(5 * UNIT + 2 * (8 / 3) * SIZE**3)
    assert costs.cubic("ssm", 3) == 0


def test_peak_is_a_rate():
    """Between 0.1 GFLOP/s and 1 PFLOP/s: a check of units, not of the machine."""
    assert 1e8 < costs.measured_peak(sizes=(64,), seconds=0.02) < 1e15
