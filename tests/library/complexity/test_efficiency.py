"""Asymptotic variances: against published numbers, limits, and estimates from drawn samples."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch.nn import functional as F

from ebflow.complexity.efficiency import (
    HERMITE,
    estimates,
    mode_weight,
    mode_weight_ml,
    pair_truth,
)
from ebflow.randomness import generator

ML = {0.5: 19.6, 1: 7.27, 1.5: 4.98, 2: 4.30, 2.5: 4.08, 3: 4.02, 4: 4.00, 5: 4.00}
RATIO = {
    0: (1.08, 1.66, 3.50, 9.42, 32.1, 139.5, 5.54e3, 5.91e5),
    0.5: (1.02, 1.19, 1.62, 2.59, 4.98, 11.7, 118, 2.59e3),
    1: (1.00, 1.01, 1.06, 1.20, 1.51, 2.11, 5.79, 23.7),
    2: (1.01, 1.05, 1.06, 1.04, 1.03, 1.04, 1.16, 1.45),
    4: (1.02, 1.10, 1.14, 1.14, 1.10, 1.06, 1.02, 1.00),
}
"""Ratios to ML by σ, for the a of ``ML``."""


@pytest.mark.parametrize("a", ML)
def test_the_likelihoods_variance(a):
    assert mode_weight_ml(a) == pytest.approx(ML[a], rel=2e-3)


@pytest.mark.parametrize("sigma", RATIO)
def test_the_table_of_ratios(sigma):
    found = [mode_weight(a, sigma) / mode_weight_ml(a) for a in ML]
    assert found == pytest.approx(RATIO[sigma], rel=6e-3)


def test_the_variances_of_modes_far_apart_tend_to_their_limits():
    assert mode_weight_ml(8.0) == pytest.approx(4)
    for a in (5.0, 8.0, 12.0):
        limit = a * math.exp(a**2 / 2) / math.sqrt(2 * math.pi)
        ratio = mode_weight(a) / mode_weight_ml(a) / limit
        assert ratio == pytest.approx(1, abs=3 / a**2)


def test_no_noise_is_the_limit_of_little():
    assert mode_weight(1.0, 1e-4) == pytest.approx(mode_weight(1.0), rel=1e-6)


def variance_agrees(estimate, expected, name):
    """Tests a variance by χ²; false alarms: 1e-4 for each."""
    low, high = chi2.ppf([5e-5, 1 - 5e-5], len(estimate) - 1) / (len(estimate) - 1)
    found = float(estimate.var())
    assert low < found / expected < high, (name, found, expected)


@pytest.mark.parametrize("sigma", [None, 0.0, 2.0])
def test_the_mode_weight_from_samples(sigma):
    """300 estimates from 2000 samples, modes at ±1."""
    x = pair_truth(1.0, 0.5).sample(300 * 2000, generator=generator(2)).view(300, 2000)
    found = estimates(x, 1.0, sigma)
    expected = mode_weight_ml(1.0) if sigma is None else mode_weight(1.0, sigma)
    assert abs(float(found.mean())) < 4 * math.sqrt(expected / 2000 / 300)
    variance_agrees(found * math.sqrt(2000), expected, sigma)


@pytest.mark.parametrize("noise", [None, 0.0, 0.5])
def test_an_estimate_minimizes_the_objective(noise):
    """The gradient of −log p, of ½ s² + s' and of its mean over noises vanishes at θ̂."""
    a, sigma = 1.5, noise or 0.0
    x = pair_truth(a, 0.3).sample(3 * 500, generator=generator(3)).view(3, 500)
    theta = estimates(x, a, noise)[:, None].requires_grad_()
    nodes, weights = np.polynomial.hermite_e.hermegauss(HERMITE if sigma else 1)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    noisy = (x[..., None] + sigma * nodes).requires_grad_()
    log_p = log_prob(noisy, theta[..., None], a, 1 + sigma**2)
    if noise is None:
        loss = -log_p.sum()
    else:
        s = torch.autograd.grad(log_p.sum(), noisy, create_graph=True)[0]
        bend = torch.autograd.grad(s.sum(), noisy, create_graph=True)[0]
        loss = ((0.5 * s * s + bend) @ weights).sum()
    assert torch.autograd.grad(loss, theta)[0].abs().max() < 1e-7


def log_prob(x, theta, a, variance):
    """Returns the log-density of the mixture at any θ, up to a constant."""
    sides = torch.stack([F.logsigmoid(theta) - (x - a) ** 2 / (2 * variance),
                         F.logsigmoid(-theta) - (x + a) ** 2 / (2 * variance)])  # fmt: skip
    return sides.logsumexp(0)
