"""Divergences from an exact density, and scores of samples, against closed forms."""

import math

import pytest
import torch

from docs.measurements.toy import fisher_divergence, kl_divergence
from ebflow import EnergyFunction, GaussianMixture
from ebflow.architectures import dense
from ebflow.errors import NonFinite
from ebflow.evaluation import Estimate
from ebflow.randomness import generator as derive
from ebflow.toy import checkerboard, smoothed_sine
from pipelines.paper.scores import crps
from tests.library import reference
from tests.library.bijections.cases import seeded
from tests.library.conftest import double_precision  # noqa: F401

N = 20_000
BOUND = reference.two_sided(1e-4)
"""A z-score that a right estimate exceeds once in 10,000 times."""


def gaussian(seed, D=3):
    root = torch.eye(D) + 0.3 * torch.randn(D, D, generator=seeded(seed))
    mean = torch.randn(1, D, generator=seeded(seed + 10))
    return GaussianMixture(torch.ones(1), mean, (root @ root.mT)[None])


@pytest.fixture
def pair():
    """Two Gaussians, and samples of the first."""
    p, q = gaussian(0), gaussian(1)
    return p, q, p.sample(N, generator=derive(0))


def moments(p):
    return p.means[0], p.covariances[0], torch.linalg.inv(p.covariances[0])


def close(found, exact):
    return abs(found.value - float(exact)) < BOUND * found.se and found.count == N


def test_kl_of_gaussians(pair):
    p, q, x = pair
    (a, A, _), (b, B, Q) = moments(p), moments(q)
    log_dets = torch.logdet(B) - torch.logdet(A)
    exact = 0.5 * ((Q @ A).trace() + (b - a) @ Q @ (b - a) - 3 + log_dets)
    assert close(kl_divergence(p, q, x), exact)


def test_fisher_divergence_of_gaussians(pair):
    p, q, x = pair
    (a, A, P), (b, _, Q) = moments(p), moments(q)
    exact = 0.5 * (((Q - P) @ A @ (Q - P)).trace() + (Q @ (a - b)).square().sum())
    assert close(fisher_divergence(p, q, x), exact)


def test_a_density_does_not_diverge_from_itself(pair):
    p, _, x = pair
    assert fisher_divergence(p, p, x) == Estimate(0.0, 0.0, N)
    assert fisher_divergence(p, EnergyFunction(p.energy), x).value < 1e-20


def test_of_a_flow(pair):
    """A flow of one layer is a Gaussian: u = W x + b."""
    p, _, x = pair
    flow = dense((3,), depth=1, noise=0.5, bias=0.3, generator=seeded())
    with torch.no_grad():
        u = flow.to_latent(torch.cat([torch.zeros(1, 3), torch.eye(3)]))
    W, b = (u[1:] - u[0]).mT, u[0]
    covariance = torch.linalg.inv(W.mT @ W)
    q = GaussianMixture(torch.ones(1), -torch.linalg.solve(W, b)[None], covariance[None])
    for divergence in (kl_divergence, fisher_divergence):
        found, expected = divergence(p, flow, x), divergence(p, q, x)
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        assert found.se == pytest.approx(expected.se, rel=1e-9)


def checkerboard_log_prob(x):
    """Returns the exact log-density: −log 72 on the squares, −∞ beside them."""
    i, j = (x / 3).floor().unbind(1)
    inside = (i >= -2) & (i < 2) & (j >= -2) & (j < 2) & ((i + j) % 2 == 0)
    return torch.where(inside, -math.log(72), -math.inf)


class Checkerboard:
    log_prob = staticmethod(checkerboard_log_prob)


def test_a_model_that_vanishes_on_data_raises(pair):
    x = checkerboard(10, generator=derive(0))
    x[4] = torch.tensor([0.5, 4.0])
    with pytest.raises(NonFinite, match="log p − log q: found inf at example 4"):
        kl_divergence(smoothed_sine(0.375), Checkerboard(), x)


def test_crps_is_that_of_its_definition():
    draws = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros(3, 2, dtype=torch.float64)
    apart = (draws.unsqueeze(2) - draws.unsqueeze(1)).abs().sum((1, 2)) / (5 * 4)
    found = crps(draws.movedim(1, 0).numpy(), y.numpy())
    torch.testing.assert_close(torch.from_numpy(found), draws.abs().mean(1) - apart / 2)
