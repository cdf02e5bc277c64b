"""Divergences of a model from a known density: against closed forms of Gaussians."""

import math

import pytest
import torch

from ebflow.architectures import dense
from ebflow.bases import GaussianMixture
from ebflow.density import EnergyFunction
from ebflow.divergences import fisher_divergence, kl_divergence, repository_kld
from ebflow.errors import NonFinite
from ebflow.evaluation import Estimate
from ebflow.randomness import generator as derive
from ebflow.toy import sine
from ebflow.toy_densities import smoothed_sine

from . import reference
from .bijections.cases import seeded

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


def test_repository_kld_of_gaussians(pair):
    p, q, x = pair
    (a, A, _), (b, B, Q) = moments(p), moments(q)
    constant = 3 / 2 * math.log(2 * math.pi)
    mass = torch.exp(-0.5 * torch.logdet(A)) * (4 * math.pi) ** -1.5
    p_log_p = mass * (-constant - 0.5 * torch.logdet(A) - 3 / 4)
    nll = constant + 0.5 * (torch.logdet(B) + (Q @ A).trace() + (b - a) @ Q @ (b - a))
    assert close(repository_kld(p, q, x), p_log_p + nll)


def test_repository_kld_is_no_divergence():
    """It is 4.4 for a perfect model of the sine, as the official code would have it."""
    p = smoothed_sine(0.375)
    x = sine(5_000, generator=derive(0))
    x = x + 0.375 * torch.randn(x.shape, generator=seeded())
    assert kl_divergence(p, p, x) == Estimate(0.0, 0.0, 5_000)
    assert repository_kld(p, p, x).value == pytest.approx(4.40, abs=0.02)


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
    for divergence in (kl_divergence, fisher_divergence, repository_kld):
        found, expected = divergence(p, flow, x), divergence(p, q, x)
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        assert found.se == pytest.approx(expected.se, rel=1e-9)


@pytest.mark.parametrize("divergence", [kl_divergence, fisher_divergence, repository_kld])
def test_batches_do_not_matter(pair, divergence):
    p, q, x = pair
    one, other = (divergence(p, q, x[:100], batch_size=size) for size in (100, 7))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.se == pytest.approx(other.se, rel=1e-12)


def test_a_model_that_vanishes_on_data_raises():
    class Square:
        def log_prob(self, x):
            inside = (x.abs() < 1).all(1)
            return torch.where(inside, -math.log(4.0), -math.inf)

    x = torch.zeros(10, 2)
    x[4] = 2.0
    with pytest.raises(NonFinite, match="log p − log q: found inf at example 4"):
        kl_divergence(smoothed_sine(0.375), Square(), x)
