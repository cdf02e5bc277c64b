"""Saliency of pixels and IROF, against closed forms."""

import pytest
import torch

from ebflow.alignment.attribution import deviation, irof, magnitude, mean_filled, patches, saliency

from ..bijections.cases import seeded


def test_saliency_is_the_norm_over_colours():
    rows = torch.randn(5, 12, generator=seeded())
    expected = (rows[:, :4] ** 2 + rows[:, 4:8] ** 2 + rows[:, 8:] ** 2).sqrt()
    torch.testing.assert_close(saliency(rows, (3, 2, 2)), expected)
    torch.testing.assert_close(saliency(rows, (3, 4)), rows.abs())
    torch.testing.assert_close(saliency(rows, (12,)), rows.abs())


def test_the_deviation_over_colours_sees_no_change_that_is_common_to_them():
    rows = torch.randn(5, 12, generator=seeded())
    colours = rows.view(5, 3, 4)
    expected = ((colours - colours.mean(1, keepdim=True)).square().sum(1) / 2).sqrt()
    torch.testing.assert_close(deviation(rows, (3, 2, 2)), expected)
    torch.testing.assert_close(deviation(rows + 7, (3, 2, 2)), expected)


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4), (12,)])
def test_the_deviation_needs_several_colours(shape):
    with pytest.raises(ValueError, match=r"shape: found .*, expected several colours"):
        deviation(torch.zeros(5, 12), shape)


def test_magnitude_is_the_distance_from_the_fill():
    x = torch.tensor([[0.0, 1.0, 0.5]])
    torch.testing.assert_close(magnitude(x, (3,)), torch.tensor([[0.5, 0.5, 0.0]]))


def test_missing_pixels_are_filled_with_the_mean_in_all_colours():
    x = torch.arange(8.0).view(1, 8)
    missing = torch.tensor([[True, False, False, False]])
    assert mean_filled(x, missing).tolist() == [[3.5, 1, 2, 3, 3.5, 5, 6, 7]]


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


def test_irof_of_a_classifier_that_does_not_react_is_0():
    x, labels = torch.rand(5, 16, generator=seeded()), torch.zeros(5, dtype=torch.long)
    constant = lambda x: torch.ones(len(x), 3)  # noqa: E731
    assert irof(constant, x, labels, x, patches((4, 4))).abs().max() < 1e-6
