"""Flows as denoisers: their scores are those of the flows, and they learn."""

import pytest
import torch

from ebflow.architectures import dense
from ebflow.complexity.flows import FlowDenoisers, spline_flows
from ebflow.randomness import generator

from ..conftest import double_precision  # noqa: F401

SIGMA = 0.7


def flows(count):
    options = {"depth": 2, "activation": "spline", "noise": 0.3, "dtype": torch.float64}
    return [dense((2,), generator=generator(seed), **options) for seed in range(count)]


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_scores_are_those_of_the_flows_of_scaled_data(scale):
    each, x = flows(3), 3 * torch.randn(5, 2, generator=generator(9))
    for flow in each:
        flow.layers[-1].log_slopes.data.normal_(0, 0.3, generator=generator(8))
    expected = torch.stack([flow.score(x / scale) / scale for flow in each])
    found = FlowDenoisers(each, scale=scale)
    torch.testing.assert_close(found.score(x, SIGMA), expected)
    assert found.size == sum(p.numel() for p in each[0].parameters())


def test_gradients_are_those_of_single_flows():
    each, x = flows(2), torch.randn(2, 4, 2, generator=generator(9))
    both = FlowDenoisers(each, scale=1.0)
    both(x, SIGMA).square().sum().backward()
    again = flows(2)
    for index, flow in enumerate(again):
        (x[index] + SIGMA**2 * flow.score(x[index])).square().sum().backward()
    for weight, *parameters in zip(both.weights, *(f.parameters() for f in again), strict=True):
        for index, parameter in enumerate(parameters):
            torch.testing.assert_close(weight.grad[index], parameter.grad)


def test_networks_differ_at_the_start():
    net = spline_flows(2, 2, depth=2, scale=1.0, generator=generator(0))
    scores = net.score(torch.ones(3, 2, dtype=torch.float32), SIGMA)
    assert scores.shape == (2, 3, 2) and not torch.equal(scores[0], scores[1])
