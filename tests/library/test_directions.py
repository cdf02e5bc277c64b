"""Directions: their mean outer product, their norms, and who is orthogonal to whom."""

import pytest
import torch

from ebflow.randomness import generator as derive
from ebflow.traces import DIRECTIONS, directions

from . import reference

kinds = pytest.mark.parametrize("kind", DIRECTIONS)


@kinds
@pytest.mark.parametrize("event", [(3,), (1, 2, 2)])
@pytest.mark.parametrize("slices", [1, 3])
def test_mean_outer_product_is_the_identity(kind, event, slices):
    """A z-test of mean and second moments at a false-alarm rate of 1e-3 in all."""
    x = torch.zeros(20_000, *event)
    v = directions(kind, slices, x, derive(0))
    assert v.shape == (slices, *x.shape)
    rows = v.flatten(2)
    size = rows.shape[2]
    products = torch.einsum("kbi,kbj->bkij", rows, rows).mean(1).flatten(1)
    found = torch.cat([rows.mean(0), products], 1)
    expected = torch.cat([torch.zeros(size), torch.eye(size).flatten()])
    error = found.std(0) / len(x) ** 0.5 + 1e-12
    z = (found.mean(0) - expected) / error
    assert z.abs().max() < reference.two_sided(1e-3, z.numel()), z


@pytest.mark.parametrize("kind", ["rademacher", "sphere", "orthogonal"])
def test_norm_is_the_root_of_the_dimension(kind):
    v = directions(kind, 4, torch.zeros(50, 7), derive(0))
    torch.testing.assert_close(v.norm(dim=2), torch.full((4, 50), 7**0.5))


@pytest.mark.parametrize("slices", [2, 5, 40])
def test_orthogonal_directions_are(slices):
    v = directions("orthogonal", slices, torch.zeros(10, 40), derive(0))
    products = torch.einsum("kbi,lbi->bkl", v, v)
    torch.testing.assert_close(
        products, 40 * torch.eye(slices).expand(10, -1, -1), rtol=0, atol=1e-12
    )


def test_orthogonal_directions_of_examples_are_independent():
    v = directions("orthogonal", 1, torch.zeros(4000, 2), derive(0))[0]
    angles = (v[::2] * v[1::2]).sum(1) / 2
    assert abs(float(angles.mean())) < 4.5 / (2 * 2000) ** 0.5


def test_there_are_no_more_orthogonal_directions_than_dimensions():
    with pytest.raises(ValueError, match="slices: found 5, expected at most D = 4"):
        directions("orthogonal", 5, torch.zeros(3, 1, 2, 2), derive(0))


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="directions: found 'gauss', expected one of rademacher"):
        directions("gauss", 1, torch.zeros(3, 2), derive(0))
