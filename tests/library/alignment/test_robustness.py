"""Robustness on and off a linear manifold."""

import pytest
import torch

from ebflow.alignment.fooling import linear
from ebflow.alignment.logit import shifted
from ebflow.alignment.robustness import off_manifold, principal
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded


def basis():
    return torch.linalg.qr(torch.randn(6, 6, generator=seeded(), dtype=torch.float64))[0]


def test_principal_directions_have_the_variance():
    scales = torch.tensor([2.0, 1.4, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64)
    drawn = torch.linalg.qr(torch.randn(40, 6, generator=seeded(1), dtype=torch.float64))[0]
    drawn = torch.linalg.qr(drawn - drawn.mean(0))[0]  # rows with exactly these scales
    rows = 3 + drawn * scales @ basis().mT
    found = principal(rows)
    assert found.shape == (6, 2)
    torch.testing.assert_close(found @ found.mT, basis()[:, :2] @ basis()[:, :2].mT)
    assert principal(rows, 0.6).shape == (6, 1) and principal(rows, 1.0).shape[1] >= 5


@pytest.mark.parametrize("leak", [1.0, 0.1])
def test_the_ratio_is_that_of_the_gradients_of_linear_logits(leak):
    """Logits along one direction of a plane, and ``leak`` times along one of the four off it."""
    along = basis()[:, 0] + leak * basis()[:, 3]
    rows = torch.stack([along, -along])
    x = torch.randn(20_000, 6, generator=seeded(), dtype=torch.float64)
    found = off_manifold(lambda x: x @ rows.mT, x, basis()[:, :2], 0.3, derive(0))
    # E|cos| with a random direction is 2 / π in the plane, and 4 / (3 π) in four dimensions
    assert found == pytest.approx(1.5 / leak, rel=0.03)


def test_no_shift_of_the_logits_changes_it():
    network = torch.nn.Linear(6, 3).double()
    x = torch.randn(50, 6, generator=seeded(), dtype=torch.float64)
    moved = shifted(network, linear(basis()[:, 5], 100.0))
    pair = [off_manifold(f, x, basis()[:, :2], 0.1, derive(0)) for f in (network, moved)]
    assert pair[0] == pytest.approx(pair[1])


def test_a_manifold_of_all_directions_is_refused():
    with pytest.raises(ValueError, match="directions: found 6 of 6, expected fewer"):
        off_manifold(lambda x: x, torch.zeros(2, 6), torch.eye(6), 0.1, derive(0))
