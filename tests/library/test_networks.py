"""Conditioners: formulas, starts by a generator; second-order Taylor polynomials through them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ebflow.networks import (
    ACTIVATIONS,
    Interleaved,
    Jet,
    Swish,
    ZeroConv2d,
    convnet,
    laplacian,
    perceptron,
    through,
    units,
)

from . import reference
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


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="activation: found 'relu', expected one of"):
        perceptron(1, 1, hidden=2, activation="relu", generator=seeded())


CLOSE = dict(rtol=1e-10, atol=1e-10)
SMOOTH = ("swish", "elu", "softplus")


def vectors(activation="swish"):
    return stirred(perceptron(3, 2, hidden=4, depth=2, activation=activation, generator=seeded()))


NETWORKS = {
    **{name: lambda name=name: (vectors(name), (3,)) for name in SMOOTH},
    "interleaved": lambda: (Interleaved(vectors(), vectors("elu")), (3,)),
    "interleaved, linear": lambda: (Interleaved(nn.Linear(3, 2), nn.Linear(3, 2)), (3,)),
    "images": lambda: (
        nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 2, 3, padding=1),
            ACTIVATIONS["softplus"](2),
            nn.AvgPool2d(2),
            nn.Conv2d(2, 3, 2, stride=2),
            ACTIVATIONS["elu"](3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (16,),
    ),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def setting(name):
    torch.manual_seed(0)
    network, event = NETWORKS[name]()
    return network, torch.randn(4, *event, generator=seeded(1))


@networks
@pytest.mark.parametrize("bent", [False, True])
def test_a_jet_through_a_network(name, bent):
    """Value, slope and bend along parabolas, with their parameter gradients."""
    network, x = setting(name)
    v, a = (torch.randn(2, *x.shape, generator=seeded(k)) for k in (2, 3))
    found = through(network, Jet(x, v, a if bent else None))
    rows = [
        reference.along(
            lambda t, k=k: network(x + t[:, None] * v[k] + bent * (t * t / 2)[:, None] * a[k]), 4
        )
        for k in range(2)
    ]
    value, first, second = (torch.stack(parts) for parts in zip(*rows, strict=True))
    bend = torch.zeros_like(second) if found.a is None else found.a
    for one, other in zip((found.x, found.v, bend), (value[0], first, second), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
        named = list(network.parameters())
        sums = (one.square().sum() + found.x.sum(), other.square().sum() + found.x.sum())
        pairs = (reference.gradients(t, named) for t in sums)
        for p, q in zip(*pairs, strict=True):
            torch.testing.assert_close(p, q, **CLOSE)


@networks
def test_a_laplacian_and_a_jacobian_of_a_network(name):
    network, x = setting(name)
    y, first, total = laplacian(network, x)
    torch.testing.assert_close(y, network(x), **CLOSE)
    first = first.expand(-1, len(x), -1)  # of a linear network all points share it
    torch.testing.assert_close(first.movedim(0, 2), reference.jacobian(network, x), **CLOSE)
    for channel in range(y.shape[1]):
        _, h = reference.hessian(lambda z, c=channel: network(z)[:, c], x) if total is not None \
            else (None, torch.zeros(4, x.shape[1], x.shape[1]))  # fmt: skip
        trace = h.diagonal(dim1=1, dim2=2).sum(1)
        found = torch.zeros(4) if total is None else total[:, channel]
        torch.testing.assert_close(found, trace, **CLOSE)


def test_kinds_of_layers_that_are_not_known():
    jet = Jet(torch.zeros(2, 3), torch.ones(2, 3), None)
    assert through(nn.Tanh(), jet) is None
    assert through(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)), jet) is None
    assert through(Interleaved(nn.Linear(3, 1), nn.Tanh()), jet) is None
    assert laplacian(vectors("leaky_relu"), torch.zeros(2, 3)) is None


def test_units_are_the_unit_events():
    found = units(torch.zeros(2, 1, 3))
    assert found.shape == (6, 2, 1, 3)
    assert torch.equal(found.flatten(1), torch.eye(6))


def test_a_linear_network_beside_a_bent_one_keeps_the_others_bend():
    mlp = perceptron(2, 3, hidden=4, activation="swish", generator=seeded(1))
    network = Interleaved(nn.Linear(2, 3), mlp)
    x = torch.randn(4, 2, generator=seeded(2))
    found = laplacian(network, x)[2]
    rows = [torch.autograd.functional.hessian(lambda t, j=j: network(t[None])[0, j], row)
            for row in x for j in range(6)]  # fmt: skip
    expected = torch.stack([torch.diagonal(h).sum() for h in rows]).view(4, 6)
    torch.testing.assert_close(found, expected)


def test_convolutions_of_any_padding_and_swish_of_images():
    conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    network = nn.Sequential(conv, ACTIVATIONS["swish"](2))
    x, v = (torch.randn(3, 2, 2, 2, generator=seeded(k)) for k in (3, 4))
    jet = through(network, Jet(x, v, None))
    y, slope = torch.func.jvp(network, (x,), (v,))
    bend = torch.func.jvp(lambda t: torch.func.jvp(network, (t,), (v,))[1], (x,), (v,))[1]
    for found, expected in zip(jet, (y, slope, bend), strict=True):
        torch.testing.assert_close(found, expected)
