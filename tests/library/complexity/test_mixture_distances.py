"""Distances between samples and exact distributions, against scipy and closed forms."""

import math

import pytest
import torch
from scipy import stats

from ebflow.bases import GaussianMixture
from ebflow.complexity import mixture_distances
from ebflow.complexity.instances import far_mode
from ebflow.quantiles import cdf, icdf
from ebflow.randomness import generator

ONE = torch.ones(1, dtype=torch.float64)
NORMAL = GaussianMixture(ONE, 0 * ONE[None], ONE)


def test_the_distribution_function_and_its_inverse():
    law = far_mode(16.0, 0.01).smoothed
    x = torch.tensor([-1.0, 0.0, 6.0, 11.0])
    deviation, far = 1.0, 16 * math.sqrt(0.5)
    expected = 0.99 * stats.norm.cdf(x) + 0.01 * stats.norm.cdf(x, far, deviation)
    torch.testing.assert_close(cdf(law, x), torch.as_tensor(expected))
    u = torch.tensor([1e-6, 0.3, 0.9899, 0.9901, 1 - 1e-6])
    torch.testing.assert_close(cdf(law, icdf(law, u)), u, rtol=1e-9, atol=0)


def test_shifted_quantiles_are_at_the_distance_of_the_shift():
    u = (torch.arange(1000) + 0.5) / 1000
    x = icdf(NORMAL, u)
    assert mixture_distances.wasserstein(x.flip(0) + 0.25, NORMAL) == pytest.approx(0.25)
    assert mixture_distances.wasserstein(2 * x, NORMAL) == pytest.approx(1, abs=0.01)


@pytest.mark.system
def test_a_shift_is_seen_in_slices_by_its_mean_square():
    """SW₂² of a shift by c in d dimensions is |c|²/d; 300 directions."""
    law = GaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.ones(1))
    x = law.sample(2_000, generator=generator(2)) + torch.tensor([1.2, 0.0, 0.0])
    found = mixture_distances.sliced(x, law, 300, generator(3))
    assert found**2 == pytest.approx(1.2**2 / 3, rel=0.1)


def test_a_projected_mixture_is_the_law_along_the_direction():
    law = far_mode(8.0, 0.2, size=3).smoothed
    direction = torch.tensor([0.6, 0.8, 0.0])
    line = mixture_distances.along(law, direction)
    x = law.sample(50_000, generator=generator(4)) @ direction
    found = stats.kstest(x.numpy(), lambda t: cdf(line, torch.as_tensor(t)).numpy())
    assert found.pvalue > 1e-4
