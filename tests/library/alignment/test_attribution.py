"""Known metrics of attributions against closed forms and a slow reference."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from ebflow.alignment.attribution import (
    imputed,
    irof,
    patches,
    rank_correlation,
    with_last_of,
)
from ebflow.alignment.classifiers import cnn, mlp
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded


def ramps(count, shape, generator):
    """Returns images a + b·row + c·column, with shape (count, C, H, W)."""
    rows, columns = torch.meshgrid(*(torch.arange(k) / k for k in shape[-2:]), indexing="ij")
    a, b, c = torch.rand(3, count, shape[0], 1, 1, generator=generator)
    return a + b * rows + c * columns


@pytest.mark.parametrize("shape", [(1, 6, 9), (3, 8, 8)])
def test_a_ramp_is_imputed_where_its_edges_are_known(shape):
    """A linear image is the mean of its neighbours; holes inside differ from image to image."""
    images = ramps(20, shape, seeded())
    missing = torch.zeros(20, *shape[-2:], dtype=torch.bool)
    inner = missing[:, 1:-1, 1:-1]
    inner[:] = torch.rand(inner.shape, generator=seeded(1)) < 0.8
    x, missing = images.flatten(1), missing.flatten(1)
    holes = missing.repeat(1, shape[0])
    found = imputed(torch.where(holes, -7.0, x), missing, shape, derive(0), noise=0.0)
    torch.testing.assert_close(found, x, atol=1e-6, rtol=0)
    assert found[~holes].equal(x[~holes])


def test_every_hole_is_the_mean_of_its_neighbours():
    """By a dense solution of the linear system, an image at a time."""
    height, width, colours = 5, 4, 2
    x = torch.rand(6, colours * height * width, generator=seeded(), dtype=torch.float64)
    chance = torch.linspace(0, 0.9, 6).unsqueeze(1)
    missing = torch.rand(6, height * width, generator=seeded(1)) < chance
    missing[:, 7] = False
    found = imputed(x, missing, (colours, height, width), derive(0), noise=0.0)
    places = [(r, c) for r in range(height) for c in range(width)]
    weights = torch.zeros(20, 20, dtype=torch.float64)
    for i, (r, c) in enumerate(places):
        for j, (s, d) in enumerate(places):
            if (r, c) != (s, d) and max(abs(r - s), abs(c - d)) == 1:
                weights[i, j] = 1 / 6 if r == s or c == d else 1 / 12
    laplacian = weights.sum(1).diag() - weights
    x, found = (rows.view(6, colours, -1) for rows in (x, found))
    for image, holes, got in zip(x, missing, found, strict=True):
        right = weights[holes][:, ~holes] @ image[:, ~holes].mT
        expected = torch.linalg.solve(laplacian[holes][:, holes], right).mT
        torch.testing.assert_close(got[:, holes], expected, atol=1e-6, rtol=0)
        assert got[:, ~holes].equal(image[:, ~holes])


def test_the_noise_is_on_imputed_pixels_alone():
    x = torch.full((2000, 16), 0.5)
    missing = torch.arange(16).expand(2000, 16) % 3 == 0
    found = imputed(x, missing, (4, 4), derive(0)) - x
    assert not found[~missing].any()
    assert float(found[missing].std()) == pytest.approx(0.01, rel=0.03)
    assert imputed(x, missing, (4, 4), derive(0)).equal(imputed(x, missing, (4, 4), derive(0)))


def test_an_image_without_a_pixel_is_refused():
    missing = torch.zeros(3, 16, dtype=torch.bool)
    missing[1] = True
    with pytest.raises(ValueError, match="missing: all pixels of an image"):
        imputed(torch.rand(3, 16), missing, (4, 4), derive(0))


def test_patches_are_a_grid():
    found = patches((8, 8)).view(8, 8)
    assert found.unique().tolist() == list(range(16))
    assert (found.flatten().bincount() == 4).all()
    assert found[:2, :2].eq(0).all() and found[2:4, 6:].eq(7).all()
    assert patches((3, 2, 2)).tolist() == [0, 1, 2, 3]
    assert patches((28, 28)).bincount().tolist() == [49] * 16


def test_irof_of_a_classifier_of_one_pixel():
    """p falls from p₀ to 1/2 with its pixel: at once, or at the very end."""
    x = torch.zeros(2, 16)
    x[:, 0] = 1.0
    network = lambda x: torch.stack([3 * (x[:, 0] - 1 / 16), 0 * x[:, 0]], 1)  # noqa: E731
    salience = torch.stack([torch.arange(16, 0, -1), torch.arange(16)]).float()
    found = irof(network, x, torch.zeros(2, dtype=torch.long), salience, patches((4, 4)))
    fall = 1 - 0.5 / torch.sigmoid(torch.tensor(45 / 16))
    torch.testing.assert_close(found, fall * torch.tensor([15.5, 0.5]) / 16)


def test_irof_of_one_that_does_not_mind_is_0():
    x, labels = torch.rand(5, 16, generator=seeded()), torch.zeros(5, dtype=torch.long)
    constant = lambda x: torch.ones(len(x), 3)  # noqa: E731
    assert irof(constant, x, labels, x, patches((4, 4))).abs().max() < 1e-6


@pytest.mark.parametrize("made", [mlp, cnn])
def test_the_last_layer_alone_is_taken(made):
    one, other = (made((8, 8), 3, hidden=8, generator=derive(seed)) for seed in (0, 1))
    found = with_last_of(one, other)
    last = [layer for layer in found.modules() if isinstance(layer, nn.Linear)][-1]
    x = torch.rand(4, 64, generator=seeded())
    torch.testing.assert_close(found[:-1](x), one[:-1](x))
    assert last.weight.equal(other[-1].weight) and last.bias.equal(other[-1].bias)
    assert not one[-1].weight.equal(other[-1].weight)


def test_the_rank_correlation_is_spearmans():
    a, b = (torch.randint(0, 9, (7, 30), generator=seeded(k)).double() for k in (0, 1))
    expected = [spearmanr(*rows).statistic for rows in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    torch.testing.assert_close(rank_correlation(a, a.exp()), torch.ones(7).double())
    torch.testing.assert_close(rank_correlation(a, -a), -torch.ones(7).double())
