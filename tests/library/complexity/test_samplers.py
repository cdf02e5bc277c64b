"""The flow of diffusion: the right distribution from the right score."""

import pytest
import torch

from ebflow.complexity.instances import far_mode
from ebflow.complexity.mixture_distances import along
from ebflow.complexity.samplers import ladder, probability_flow
from ebflow.complexity.truths import Truth
from ebflow.errors import NonFinite
from ebflow.quantiles import cdf
from ebflow.randomness import generator


def test_the_ladder_falls_geometrically():
    assert ladder(8.0, 0.5, 4) == pytest.approx([8, 4, 2, 1, 0.5])


def test_the_true_score_gives_the_true_distribution():
    """8,000 samples in the plane: quantiles along the axis to the far mode, and its mass."""
    instance = far_mode(8.0, 0.1, size=2)
    x = 24.0 * torch.randn(8000, 2, generator=generator(2))
    levels = ladder(24.0, instance.sigma, 60)
    x = probability_flow(Truth(instance.clean).score, x, levels=levels)
    line = along(instance.smoothed, torch.tensor([1.0, 0.0], dtype=torch.float64))
    points = torch.linspace(-2, 8, 21, dtype=torch.float64)
    found = (x[:, :1].double() <= points).double().mean(0)
    assert (found - cdf(line, points)).abs().max() < 0.02


def test_samples_that_leave_every_bound_are_reported():
    with pytest.raises(NonFinite, match="probability_flow"):
        probability_flow(lambda x, sigma: x**5, 9 * torch.ones(3, 1), levels=ladder(9.0, 1.0, 9))
