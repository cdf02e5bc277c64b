"""Conditioners: formulas, and starts by a generator."""

import pytest
import torch
from torch.nn import functional as F

from ebflow.networks import Interleaved, Swish, ZeroConv2d, convnet, perceptron

from .bijections.cases import seeded, stirred

NETS = {
    "perceptron": lambda g: perceptron(3, 2, hidden=5, activation="swish", generator=g),
    "convnet": lambda g: convnet(3, 2, hidden=5, activation="swish", generator=g),
}
nets = pytest.mark.parametrize("name", NETS)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 5)])
def test_swish_is_the_formula_with_a_slope_a_channel(shape):
    layer, x = Swish(3), torch.randn(shape, generator=seeded())
    torch.testing.assert_close(layer(x), F.silu(x))
    beta = stirred(layer).beta
    for channel in range(3):
        part = x[:, channel]
        torch.testing.assert_close(layer(x)[:, channel], part * (beta[channel] * part).sigmoid())


def test_interleaved_takes_one_channel_of_each_in_turn():
    net = Interleaved(torch.nn.Identity(), torch.nn.Tanh())
    x = torch.randn(4, 3, 2, 2, generator=seeded())
    assert torch.equal(net(x)[:, 0::2], x) and torch.equal(net(x)[:, 1::2], x.tanh())


def test_gains_of_a_zero_convolution_are_its_own():
    layer, x = ZeroConv2d(2, 3), torch.randn(4, 2, 3, 3, generator=seeded())
    assert not layer(x).any() and layer.bias is not layer.log_gain
    stirred(layer)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected * (3 * layer.log_gain).exp())


@nets
def test_starts_come_from_the_generator_alone(name):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, same, other = (NETS[name](seeded(k)) for k in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for (path, a), b, c in zip(
        one.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        if path.startswith(("0.", "2.")):
            bound = one.get_parameter(path.split(".")[0] + ".weight")[0].numel() ** -0.5
            assert not torch.equal(a, c) and 0.5 * bound < a.abs().max() <= bound
