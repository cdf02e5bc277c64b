"""Bounds and tails of columns, by their formulas."""

import numpy as np
import pytest
import torch
from scipy import special

from ebflow.bijections import Bounded

from .cases import bounded, double, johnson

INF = torch.inf


def test_bounds_are_a_logit_and_logarithms():
    x = double(0.25, 2.5, 2.5, 7.0)[None]
    left, right = 2 * np.log(np.expm1(0.25)), -0.5 * np.log(np.expm1(1.0))
    expected = double(special.logit(0.25), right, left, 7.0)[None]
    torch.testing.assert_close(bounded()(x), expected)


def test_far_from_its_only_bound_a_column_stays_as_it_is():
    """So that draws of a latent far out are no exponentials of it."""
    x = double(0.5, -60.0, 90.0, 0.0)[None]
    y = bounded()(x)
    torch.testing.assert_close(y[0, 1:3], double(-63.0, 88.0))
    assert bounded().inverse(y + 100).isfinite().all()


def test_no_sample_is_outside_the_bounds_and_a_row_there_has_a_density():
    y = torch.linspace(-9, 9, 99, dtype=torch.float64)[:, None].expand(-1, 4)
    x = bounded().inverse(y)
    assert ((x > bounded().lower) & (x < bounded().upper)).all()
    torch.testing.assert_close(bounded()(x), y)
    x = double(-0.5, 3.5, 1.0, 0.0)[None]
    assert bounded()(x).isfinite().all()
    slopes = bounded().derivatives(x, 3)
    torch.testing.assert_close(slopes[0], double(4.0, 1.0, 1.0, 1.0)[None])
    assert not slopes[1].any() and not slopes[2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_far_from_zero_are_finite_in_their_margins(dtype):
    """Up to margins that the dtype resolves, as those of fitted columns are."""
    ends = double(2011.0), double(2013.0)
    margin = 4 * torch.finfo(dtype).eps * ends[1]
    layer = Bounded(*ends, margin, double(1.0)).to(dtype)
    x = torch.cat([*ends, ends[0] + margin, double(2012.0)]).to(dtype)[:, None]
    y, log_det = layer.forward_and_log_det(x)
    assert y.isfinite().all() and log_det.isfinite().all()


def test_gradients_of_the_inverse_are_finite_far_out():
    y = torch.full((1, 4), -500.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(bounded().inverse(y).sum(), y)[0].isfinite().all()


def test_johnson_slopes_far_out_are_those_of_a_logarithm():
    near = double(4.0, -3.0, 2.0)[None]
    torch.testing.assert_close(johnson()(near)[:, 2], (near[:, 2] - 1) / 2)
    x = torch.tensor([[1e25, -1e30, 1e30]], dtype=torch.float32)
    d1, psi1, psi2 = johnson().float().derivatives(x, 3)
    torch.testing.assert_close((d1 * x.abs())[:, :2], double(1.5, 0.7)[None].float())
    torch.testing.assert_close((psi1 * x)[:, :2], -double(1.0, 1.0)[None].float())
    assert psi2.isfinite().all() and johnson().float().inverse(x).isnan().sum() == 0
