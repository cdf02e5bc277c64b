"""Second-order Taylor polynomials through networks, against autograd."""

import pytest
import torch
from torch import nn

from ebflow.networks import ACTIVATIONS, Interleaved, Jet, laplacian, perceptron, through, units

from . import reference
from .bijections.cases import seeded, stirred

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
