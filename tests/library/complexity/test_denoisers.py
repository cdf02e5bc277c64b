"""Ensembles of denoisers: their formulas, independence and scales."""

import math

import pytest
import torch

from ebflow.complexity.denoisers import (
    PreconditionedDenoisers,
    RectifiedDenoisers,
    ResidualNetwork,
)
from ebflow.complexity.instances import HALF
from ebflow.randomness import generator

from ..conftest import double_precision  # noqa: F401


def residual(count, size):
    source = generator(0)
    networks = [ResidualNetwork(size, 8, 3, source) for _ in range(count)]
    return PreconditionedDenoisers(networks).double()


def stirred(count, size=16):
    """Returns an ensemble in which no layer is 0."""
    net = residual(count, size)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    return net


def test_the_network_has_the_documented_formula():
    net = RectifiedDenoisers(2, 3, radius=4.0, generator=generator(0)).double()
    x = torch.randn(2, 5, 3)
    sigma, variance = 1.3, HALF**2 + 1.3**2
    features = torch.cat(
        [x / 4, x / (3 * variance**0.5), torch.full((2, 5, 1), 1.3 / HALF).log()], -1
    )
    for e in range(2):
        h = features[e]
        for index in range(0, len(net.weights), 2):
            weight, bias = net.weights[index][e], net.weights[index + 1][e]
            h = (h.relu() if index else h) @ weight.mT + bias
        expected = 4 * h + x[e] * HALF**2 / variance
        torch.testing.assert_close(net(x, sigma)[e], expected)
        torch.testing.assert_close(net.score(x, sigma)[e], (expected - x[e]) / sigma**2)


def test_an_untrained_residual_network_is_the_best_linear_one():
    """F is 0: D is the mean of x₀ given x of N(0, I)."""
    net, x = residual(2, 4), torch.randn(4, 4, generator=generator(1))
    torch.testing.assert_close(net.denoise(x, 1.1)[1], x / (1 + 1.21))


def test_networks_and_points_are_independent():
    net, x = stirred(3), torch.randn(4, 16, generator=generator(2), dtype=torch.float64)
    sigma = torch.tensor([0.1, 1.0, 3.0, 9.0], dtype=torch.float64)[None, :, None]
    whole = net(x.expand(3, -1, -1), sigma)
    for index in range(4):
        alone = net.denoise(x[index : index + 1], float(sigma[0, index, 0]))
        torch.testing.assert_close(whole[:, index : index + 1], alone)
    assert (whole[0] - whole[1]).abs().mean() > 1e-2
    whole[1].square().sum().backward()
    for parameter in net.parameters():
        assert not parameter.grad[[0, 2]].any() and parameter.grad[1].any()


@pytest.mark.parametrize("sigma", (0.05, 1.0, 20.0))
def test_the_weight_makes_the_loss_that_of_unit_targets(sigma):
    """λ c_out² = 1."""
    net = stirred(1)
    c_out = sigma / math.hypot(sigma, 1)
    assert net.weight(sigma) * c_out**2 == pytest.approx(1)
