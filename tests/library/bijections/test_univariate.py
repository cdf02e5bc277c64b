"""Increasing functions of one element, against zuko's spline and at the edges of float32."""

import pytest
import torch
from zuko.transforms import MonotonicRQSTransform

from ebflow.bijections import ScaleShift, Spline

from .cases import seeded

CLOSE = dict(rtol=1e-9, atol=1e-9)


def setting(bins=4, scale=1.0, rows=50):
    h = scale * torch.randn(rows, 3, 3 * bins - 1, generator=seeded(1))
    return Spline(bins, 2.0), 1.5 * torch.randn(rows, 3, generator=seeded(2)), h


def peer(spline, h):
    """Returns zuko's spline."""
    sizes = (spline.bins, spline.bins, spline.bins - 1)
    return MonotonicRQSTransform(*h.split(sizes, -1), bound=spline.bound)


@pytest.mark.parametrize("bins", [2, 5, 16])
def test_splines_are_those_of_zuko(bins):
    spline, x, h = setting(bins)
    y, log_slope = spline.forward_and_log_slope(x, h)
    expected = peer(spline, h).call_and_ladj(x)
    torch.testing.assert_close((y, log_slope), expected, **CLOSE)
    torch.testing.assert_close(spline.inverse(y, h), peer(spline, h).inv(y), **CLOSE)


@pytest.mark.parametrize("transform", [Spline(4), ScaleShift(2.0), ScaleShift(inverted=True)])
def test_parameters_of_zero_are_the_identity(transform):
    x = 4 * torch.randn(20, 3, generator=seeded(2))
    y, log_slope = transform.forward_and_log_slope(x, torch.zeros(20, 3, transform.count))
    torch.testing.assert_close((y, log_slope), (x, 0 * x), **CLOSE)


def test_splines_are_the_identity_outside_up_to_infinity():
    spline, _, h = setting(rows=6)
    x = torch.tensor([2.001, -2.001, 3e38, -3e38, torch.inf, -torch.inf]).float()
    x = x[:, None].expand(6, 3).clone().requires_grad_()
    h = h.float().requires_grad_()
    y, log_slope = spline.forward_and_log_slope(x, h)
    assert torch.equal(y, x) and torch.equal(spline.inverse(x, h), x) and not log_slope.any()
    gradients = torch.autograd.grad((y + log_slope).sum(), (x, h))
    assert torch.equal(gradients[0], torch.ones(6, 3)) and not gradients[1].any()


def test_missing_values_stay_missing():
    spline, x, h = setting(rows=1)
    assert spline.forward_and_log_slope(x * torch.nan, h)[0].isnan().all()


@pytest.mark.parametrize(("scale", "error"), [(1.0, 1e-4), (100.0, 0.1)])
def test_splines_in_single_precision_are_near_double(scale, error):
    """Splines of slopes 1e-3 to 1e3 as well; zuko's error is the same."""
    spline, x, h = setting(16, scale, rows=2000)
    single = (*spline.forward_and_log_slope(x.float(), h.float()),
              spline.inverse(x.float(), h.float()))  # fmt: skip
    double = (*spline.forward_and_log_slope(x, h), spline.inverse(x, h))
    for one, other in zip(single, double, strict=True):
        assert ((one - other).abs() < error).all()
