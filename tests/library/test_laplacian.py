"""The exact trace: the closed form, and D directions, against the autograd Hessian."""

from functools import partial

import pytest
import torch

from ebflow import laplacian
from ebflow.bijections import Affine, Dense, Reshape, SmoothLeakyReLU
from ebflow.flow import Flow, Observed

from . import reference
from .bijections.cases import matrix, seeded
from .test_flow import custom, net

CLOSE = dict(rtol=1e-9, atol=1e-9)


def whitened():
    """Returns a chain with fixed layers in front and behind: one layer alone is bent."""
    scale = torch.linspace(0.5, 2, 4)
    layers = [
        Affine(torch.ones(4), scale, (4,)),
        Dense(matrix(4), None, trainable=False),
        Dense(matrix(4, 1), torch.ones(4)),
        SmoothLeakyReLU(0.3, residual=True),
        Dense(matrix(4, 2), torch.ones(4)),
        Affine(0.0, scale, (4,), trainable=True),
    ]
    return Flow((4,), layers)


CLOSED = {
    "1 layer": lambda: net((4,), depth=1),
    "2 layers": lambda: net((4,), depth=2, bias=0.3),
    "image": lambda: net((1, 2, 2), depth=2),
    "fixed layers": whitened,
    "activation first": lambda: Flow((4,), [SmoothLeakyReLU(0.3), Dense(matrix(4), None)]),
    "activation last": lambda: Flow((4,), [Dense(matrix(4), None), SmoothLeakyReLU(0.3)]),
    "activation on images": lambda: Flow(
        (1, 2, 2),
        [
            Affine(0.5, 2.0, (1, 2, 2)),
            SmoothLeakyReLU(0.1),
            Reshape((1, 2, 2), (4,)),
            Dense(matrix(4), None),
        ],
    ),
    "no layer": lambda: Flow((4,), []),
}
OPEN = {
    "3 layers": lambda: net((4,), depth=3),
    "every kind of layer": custom,
    "a bent layer that mixes": lambda: Flow(
        (4,), [Dense(matrix(4), None), custom().layers[4], Dense(matrix(4), None)]
    ),
}
FLOWS = {**CLOSED, **OPEN}


def at(flow, batch=5):
    return torch.randn(batch, *flow.event_shape, generator=seeded(3))


def hessian_trace(flow, x):
    s, h = reference.hessian(partial(reference.log_prob, flow), x)
    return s.view(x.shape), h.diagonal(dim1=1, dim2=2).sum(1)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("observed", [False, True])
def test_value_and_gradient(name, observed):
    flow = FLOWS[name]()
    x = at(flow)
    density = Observed(flow) if observed else flow
    score, found = density.score_and_laplacian(x)
    expected_score, expected = hessian_trace(flow, x)
    assert found.shape == (len(x),)
    torch.testing.assert_close(score, expected_score, **CLOSE)
    torch.testing.assert_close(found, expected, **CLOSE)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    if parameters:
        weights = torch.linspace(0.5, 2, len(x))
        a, b = (
            reference.gradients((weights * t).sum() + (s**3).sum(), parameters)
            for s, t in ((score, found), (expected_score, expected))
        )
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("name", FLOWS)
def test_without_gradient(name):
    flow = FLOWS[name]()
    x = at(flow)
    with torch.no_grad():
        found = flow.score_and_laplacian(x)[1]
    torch.testing.assert_close(found, hessian_trace(flow, x)[1].detach(), **CLOSE)


@pytest.mark.parametrize("name", FLOWS)
def test_directions_are_needed_where_there_is_no_closed_form(name, monkeypatch):
    def never(curvature, x):
        raise AssertionError("D directions")

    monkeypatch.setattr("ebflow.flow.trace", never)
    flow = FLOWS[name]()
    if name in CLOSED:
        flow.score_and_laplacian(at(flow))
    else:
        with pytest.raises(AssertionError, match="D directions"):
            flow.score_and_laplacian(at(flow))


@pytest.mark.parametrize("elements", [1, 41, 10**9])
def test_parts_of_any_size_sum_to_the_trace(elements, monkeypatch):
    """Directions one by one, two at a time, and all at once."""
    flow = net((4,), depth=3)
    x = at(flow)
    expected = hessian_trace(flow, x)[1]
    monkeypatch.setattr(laplacian, "ELEMENTS", elements)
    torch.testing.assert_close(flow.score_and_laplacian(x)[1], expected, **CLOSE)


def test_the_gradient_may_be_differentiated():
    flow = net((3,), depth=2)
    x, (weight, *_) = at(flow), flow.parameters()

    def loss(w):
        weights = {"flow.layers.0.weight": w}
        return torch.func.functional_call(Traced(flow), weights, (x,)).sum()

    assert torch.autograd.gradgradcheck(loss, weight.detach().clone().requires_grad_())


class Traced(torch.nn.Module):
    """A flow as a module whose value is its exact trace."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.score_and_laplacian(x)[1]
