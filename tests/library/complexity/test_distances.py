"""Distances of samples from exact mixtures, against scipy and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebflow.bases import GaussianMixture
from ebflow.complexity import distances as d
from ebflow.complexity.instances import HALF, far_mode
from ebflow.randomness import generator

ONE = torch.ones(1, dtype=torch.float64)
NORMAL = GaussianMixture(ONE, 0 * ONE[None], ONE)


def test_the_distribution_function_and_its_inverse():
    mixture = far_mode(16.0, 0.01).smoothed(HALF)
    x = torch.tensor([-1.0, 0.0, 6.0, 11.0], dtype=torch.float64)
    expected = 0.99 * stats.norm.cdf(x) + 0.01 * stats.norm.cdf(x, 16 * HALF, 1)
    torch.testing.assert_close(d.cdf(mixture, x), torch.as_tensor(expected))
    u = torch.tensor([1e-6, 0.3, 0.9899, 0.9901, 1 - 1e-6], dtype=torch.float64)
    torch.testing.assert_close(d.cdf(mixture, d.inverse_cdf(mixture, u)), u, rtol=1e-9, atol=0)


def test_shifted_quantiles_are_at_the_distance_of_the_shift():
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    x = d.inverse_cdf(NORMAL, u)
    assert d.wasserstein(x.flip(0) + 0.25, NORMAL) == pytest.approx((0.25, 0.25))
    assert d.wasserstein(2 * x, NORMAL)[1] == pytest.approx(1, abs=0.01)


def test_w1_agrees_with_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(500) + 0.3, rng.standard_normal(400_000)
    found = d.wasserstein(torch.from_numpy(x), NORMAL)[0]
    assert found == pytest.approx(stats.wasserstein_distance(x, y), abs=0.01)


def test_total_variation_has_its_floor_and_its_shift():
    """TV of N(μ, 1) from N(0, 1) is 2 Φ(μ/2) − 1, less what bins hide."""
    x = torch.randn(200_000, generator=generator(0), dtype=torch.float64)
    floor = d.total_variation(x, NORMAL)
    masses = np.diff(stats.norm.cdf(np.arange(-10, 10.5, 0.5)))
    assert floor == pytest.approx(np.sqrt(masses / (2 * np.pi * len(x))).sum(), rel=0.5)
    shifted = d.total_variation(x + 0.4, NORMAL)
    assert shifted == pytest.approx(2 * stats.norm.cdf(0.2) - 1, abs=0.01)


def test_a_missed_mode_costs_its_mass():
    truth = far_mode(16.0, 0.05).smoothed(HALF)
    x = torch.randn(100_000, 1, generator=generator(1), dtype=torch.float64)
    found = d.distances(x, truth, generator=generator(0))
    radius = 16 * HALF
    assert found.tv == pytest.approx(0.05, abs=0.01) and found.far_mass == 0
    assert found.w1 == pytest.approx(0.05 * radius, rel=0.15)
    assert found.w2 == pytest.approx(math.sqrt(0.05) * (radius - 2.06), rel=0.1)
    samples = truth.sample(100_000, generator=generator(1))
    right = d.distances(samples, truth, generator=generator(0))
    assert right.far_mass == pytest.approx(0.05, abs=0.003) and right.tv < 0.02


def test_a_shift_is_seen_in_slices_by_its_mean_square():
    """SW₂² of a shift by c in d dimensions is |c|²/d; 300 directions."""
    truth = GaussianMixture(ONE, torch.zeros(1, 3, dtype=torch.float64), ONE)
    x = truth.sample(2_000, generator=generator(2)) + torch.tensor([1.2, 0.0, 0.0])
    w1, w2 = d.sliced(x, truth, 300, generator(3))
    assert w2**2 == pytest.approx(1.2**2 / 3, rel=0.1)
    assert w1 == pytest.approx(1.2 / 2, rel=0.1)


def test_a_projected_mixture_is_the_distribution_along_the_direction():
    truth = far_mode(8.0, 0.2, size=3).smoothed(HALF)
    direction = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    line = d.along(truth, direction)
    x = truth.sample(50_000, generator=generator(4)) @ direction
    found = stats.kstest(x.numpy(), lambda t: d.cdf(line, torch.as_tensor(t)).numpy())
    assert found.pvalue > 1e-4
