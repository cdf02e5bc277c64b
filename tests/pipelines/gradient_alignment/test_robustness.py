"""Robustness on and off a linear manifold."""

import pytest
import torch

from ebflow.alignment.fooling import linear, shifted
from pipelines.gradient_alignment.robustness import off_manifold, principal


def draws():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def plane():
    """Two of six directions, and the covariance that has nearly all variance in them."""
    basis = torch.linalg.qr(torch.randn(6, 6, generator=draws(), dtype=torch.float64))[0]
    variances = torch.tensor([4.0, 2.0, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    return basis, basis @ variances.diag() @ basis.mT


def test_principal_directions_span_the_variance(plane):
    basis, covariance = plane
    found = principal(covariance)
    assert found.shape == (6, 2)
    torch.testing.assert_close(found @ found.mT, basis[:, :2] @ basis[:, :2].mT)
    assert principal(covariance, 0.6).shape == (6, 1) and principal(covariance, 1.0).shape[1] == 6


@pytest.mark.parametrize("leak", [1.0, 0.1])
def test_the_ratio_is_that_of_the_gradients_of_linear_logits(plane, leak):
    """Logits along one direction of the manifold, and ``leak`` times along one off it."""
    basis, _ = plane
    rows = torch.stack([basis[:, 0] + leak * basis[:, 3], -basis[:, 0] - leak * basis[:, 3]])
    x = torch.randn(20_000, 6, generator=draws(), dtype=torch.float64)
    found = off_manifold(lambda x: x @ rows.mT, x, basis[:, :2], 0.3, draws())
    # E|cos| of a direction in the plane and in the four dimensions off it: 2/π and 4/(3π)
    assert found == pytest.approx(2 / (4 / 3) / leak, rel=0.03)


def test_no_shift_of_the_logits_moves_it(plane):
    basis, _ = plane
    network = torch.nn.Linear(6, 3).double()
    x = torch.randn(50, 6, generator=draws(), dtype=torch.float64)
    moved = shifted(network, linear(basis[:, 5], 100.0))
    pair = [off_manifold(f, x, basis[:, :2], 0.1, draws()) for f in (network, moved)]
    assert pair[0] == pytest.approx(pair[1])
