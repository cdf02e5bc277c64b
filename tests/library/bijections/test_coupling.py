"""Couplings against the formulas of their papers."""

import pytest
import torch

from ebflow.bijections import Coupling, ScaleShift

from .cases import image_net, net, seeded, shear_and_scale, stirred

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


def test_scales_are_bounded():
    layer = Coupling((1, 1), stirred(net(1, 2), 30.0), ScaleShift(bound=2.0))
    x = 10 * torch.randn(100, 2, generator=seeded(3))
    log_det = layer.forward_and_log_det(x)[1]
    assert 1.9 < log_det.abs().max() <= 2


@pytest.mark.parametrize("sizes", [(0, 1), (2, 0)])
def test_empty_parts_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes: found"):
        Coupling(sizes, net(1, 2), ScaleShift())
