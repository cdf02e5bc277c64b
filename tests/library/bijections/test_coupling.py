"""Couplings against the formulas of their papers."""

import pytest
import torch

from ebflow.architectures import coupling, glow
from ebflow.bijections import Coupling, ScaleShift, Spline

from .cases import directions, image_net, net, seeded, shear_and_scale, stirred

CLOSE = dict(rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", [[1.0, 0.0], [0.0, 1.0]])
def test_the_planar_form(mask):
    """u = m x + (1 − m)(x − t(m x)) exp(−s(m x)), log-det −Σ (1 − m) s; m = 1 passes."""
    layer = shear_and_scale((1, 1), flip=mask[0] == 0)
    x, m = torch.randn(5, 2, generator=seeded(3)), torch.tensor(mask)
    passed = (m * x).sum(1, keepdim=True)
    s, t = (network(passed) for network in layer.conditioner.networks)
    expected = m * x + (1 - m) * (x - t) * torch.exp(-s)
    u, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(u, expected, **CLOSE)
    torch.testing.assert_close(log_det, -((1 - m) * s).sum(1), **CLOSE)


def test_the_image_form():
    """x₂ exp(log s) + t, log s = 2 tanh(h/2); h is the even channels of the net, t the odd."""
    layer = Coupling((2, 2), stirred(image_net(2, 4)), ScaleShift(bound=2.0))
    x = torch.randn(3, 4, 5, 2, generator=seeded(3))
    h = layer.conditioner(x[:, :2])
    log_s = 2 * torch.tanh(h[:, 0::2] / 2)
    y, log_det = layer.forward_and_log_det(x)
    assert torch.equal(y[:, :2], x[:, :2])
    torch.testing.assert_close(y[:, 2:], x[:, 2:] * log_s.exp() + h[:, 1::2], **CLOSE)
    torch.testing.assert_close(log_det, log_s.sum((1, 2, 3)), **CLOSE)


@pytest.mark.parametrize("transform", [ScaleShift(bound=2.0), ScaleShift(), Spline(4)])
def test_couplings_of_images_start_as_the_identity(transform):
    layer = Coupling((1, 2), image_net(1, 2 * transform.count), transform)
    x = 3 * torch.randn(4, 3, 2, 2, generator=seeded(3))
    y, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(y, x, **CLOSE)
    torch.testing.assert_close(log_det, torch.zeros(4), **CLOSE)


def test_scales_are_bounded():
    layer = Coupling((1, 1), stirred(net(1, 2), 30.0), ScaleShift(bound=2.0))
    x = 10 * torch.randn(100, 2, generator=seeded(3))
    log_det = layer.forward_and_log_det(x)[1]
    assert 1.9 < log_det.abs().max() <= 2


@pytest.mark.parametrize("sizes", [(0, 1), (2, 0)])
def test_empty_parts_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes: found"):
        Coupling(sizes, net(1, 2), ScaleShift())


FLOWS = {
    "coupling": lambda: coupling(depth=2, hidden=3),
    "splines": lambda: coupling(depth=1, hidden=3, bins=3),
    "glow": lambda: glow((1, 4, 4), depth=1, hidden=3),
}


@pytest.mark.parametrize("name", FLOWS)
def test_single_precision_is_near_double(name):
    double = stirred(FLOWS[name](), 0.1)
    single = FLOWS[name]().float()
    single.load_state_dict(double.state_dict())
    x = torch.randn(5, *double.event_shape, generator=seeded(3)).float()
    v = directions(x, 2).float()
    for found, expected in zip(
        parts(single, x, v), parts(double, x.double(), v.double()), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def parts(flow, x, v):
    """Yields everything that the score chain gives."""
    yield flow.log_prob(x)
    yield from flow.directional(x, v)
    yield flow.score(x)
