"""Gaussian mixtures against scipy, autograd and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import chi2, multivariate_normal

from ebflow.bases import GaussianMixture
from ebflow.data import mixtures
from ebflow.density import EnergyFunction
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded
from ..reference import two_sided

WEIGHTS = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


def means(D=3):
    return 2 * torch.randn(3, D, generator=seeded())


def matrices(D=3):
    roots = torch.randn(3, D, D, generator=seeded(1))
    return roots @ roots.mT + 0.1 * torch.eye(D)


def variances(*shape):
    return 0.2 + torch.rand(*shape, generator=seeded(2))


MIXTURES = {
    "isotropic": lambda: GaussianMixture(WEIGHTS, means(), variances(3)),
    "isotropic column": lambda: GaussianMixture(WEIGHTS, means(), variances(3, 1)),
    "diagonal": lambda: GaussianMixture(WEIGHTS, means(), variances(3, 3)),
    "full": lambda: GaussianMixture(WEIGHTS, means(), matrices()),
    "on a line": lambda: GaussianMixture(WEIGHTS, means(1), variances(3)),
}
every = pytest.mark.parametrize("name", MIXTURES)


def covariances(mixture):
    """Returns the covariances as matrices."""
    if mixture.full:
        return mixture.covariances
    return torch.diag_embed(mixture.covariances.expand(-1, mixture.size))


def log_prob(mixture, x):
    """Returns log-densities by scipy."""
    parts = [
        math.log(w) + multivariate_normal(m.numpy(), c.numpy()).logpdf(x.numpy())
        for w, m, c in zip(mixture.weights, mixture.means, covariances(mixture), strict=True)
    ]
    return torch.as_tensor(logsumexp(np.stack(parts), axis=0))


def points(mixture, n=7):
    return 3 * torch.randn(n, mixture.size, generator=seeded(3))


@every
def test_log_density(name):
    mixture = MIXTURES[name]()
    x = points(mixture)
    torch.testing.assert_close(mixture.log_prob(x), log_prob(mixture, x))
    assert torch.equal(mixture.energy(x), -mixture.log_prob(x))


@every
def test_score_and_curvature(name):
    mixture = MIXTURES[name]()
    x = points(mixture)
    v = torch.randn(4, *x.shape, generator=seeded(4))
    expected, bends = EnergyFunction(mixture.log_prob).score_and_curvature(x, v)
    score, curvature = mixture.score_and_curvature(x, v)
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(curvature, bends)
    torch.testing.assert_close(mixture.score(x), expected)
    slope, again = mixture.directional(x, v)
    torch.testing.assert_close(slope, (v * expected).sum(-1))
    torch.testing.assert_close(again, bends)


@every
def test_rows_are_taken_in_parts(name, monkeypatch):
    mixture = MIXTURES[name]()
    x = points(mixture)
    v = torch.randn(2, *x.shape, generator=seeded(4))

    def all_of_it():
        sampled = mixture.entropy(20, generator=derive(0)).value
        found = (mixture.log_prob(x), mixture.score(x), *mixture.directional(x, v))
        return [*found, torch.tensor(sampled)]

    whole = all_of_it()
    monkeypatch.setattr(mixtures, "CHUNK", 2 * mixture.means.numel())
    for one, other in zip(whole, all_of_it(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@every
def test_smoothed(name):
    mixture, sigma = MIXTURES[name](), 0.7
    smooth = mixture.smoothed(sigma)
    x = points(mixture)
    noised = covariances(mixture) + sigma**2 * torch.eye(mixture.size)
    torch.testing.assert_close(covariances(smooth), noised)
    torch.testing.assert_close(smooth.log_prob(x), log_prob(smooth, x))


@every
def test_moments_of_samples(name):
    """Means and second moments of 20,000 samples; false alarms: 1e-4."""
    mixture = MIXTURES[name]()
    x = mixture.sample(20_000, generator=derive(0, name))
    w, m = mixture.weights, mixture.means
    first = w @ m
    second = torch.einsum("k,kij->ij", w, covariances(mixture) + m[:, :, None] * m[:, None])
    found = torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1)], 1)
    errors = found.mean(0) - torch.cat([first, second.flatten()])
    z = errors / (found.std(0) / math.sqrt(len(x)))
    assert z.abs().max() < two_sided(1e-4, z.numel())


def test_samples_follow_the_weights():
    """Counts of far components by a χ² test; false alarms: 1e-4."""
    weights = torch.tensor([0.001, 0.199, 0.8])
    mixture = GaussianMixture(weights, 100 * torch.arange(3.0)[:, None], torch.ones(3))
    k = (mixture.sample(50_000, generator=derive(1)) / 100).round().long().flatten()
    expected = 50_000 * weights
    statistic = ((torch.bincount(k, minlength=3) - expected) ** 2 / expected).sum()
    assert statistic < chi2(2).isf(1e-4)


def test_shards_sample_what_one_worker_does():
    mixture = MIXTURES["full"]()
    parts = [mixture.sample(5, generator=derive(0, shard=(rank, 2))) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), mixture.sample(10, generator=derive(0)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("apart", [8.0, 512.0, 1e5])
def test_modes_far_apart(apart, dtype):
    """Two modes of deviation 1 at ± apart / 2: nothing under- or overflows."""
    ends = torch.tensor([[-apart / 2, 0.0], [apart / 2, 0.0]], dtype=dtype)
    mixture = GaussianMixture(torch.ones(2, dtype=dtype), ends, torch.ones(2, dtype=dtype))
    x = torch.cat([ends + torch.tensor([0.5, -1.0]), torch.zeros(1, 2)]).to(dtype)
    v = torch.tensor([1.0, 0.0], dtype=dtype).expand(1, 3, 2)
    score, curvature = mixture.score_and_curvature(x, v)
    expected = torch.tensor([[-0.5, 1.0], [-0.5, 1.0], [0.0, 0.0]], dtype=dtype)
    far = math.exp(-apart * (apart / 2 - 0.5)) * apart
    torch.testing.assert_close(score, expected, rtol=0, atol=max(far, 1e-14 * apart, 0))
    bends = torch.tensor([[-1.0, -1.0, (apart / 2) ** 2 - 1]], dtype=dtype)
    torch.testing.assert_close(curvature, bends, rtol=1e-6, atol=max(apart * far, 1e-6))
    middle = -(apart**2) / 8 - math.log(2 * math.pi)
    assert mixture.log_prob(x)[2].item() == pytest.approx(middle, rel=1e-6)


def test_entropy_of_one_component_is_exact():
    covariance = matrices()[:1]
    mixture = GaussianMixture(torch.ones(1), means()[:1], covariance)
    found = mixture.entropy(10, generator=derive(0))
    exact = multivariate_normal(cov=covariance[0].numpy()).entropy()
    assert found.value == pytest.approx(exact) and found.se == 0


def test_entropy_of_far_components_is_exact():
    mixture = GaussianMixture(torch.ones(4), 50 * torch.arange(4.0)[:, None], torch.ones(4))
    found = mixture.entropy(10, generator=derive(0))
    exact = math.log(4) + 0.5 * math.log(2 * math.pi * math.e)
    assert found.value == pytest.approx(exact, abs=1e-12) and found.se < 1e-12


def test_entropy_on_a_line():
    mixture = MIXTURES["on a line"]()

    def term(x):
        log_p = float(mixture.log_prob(torch.tensor([[x]])))
        return -log_p * math.exp(log_p)

    exact = quad(term, -20, 20, limit=200)[0]
    found = mixture.entropy(20_000, generator=derive(0))
    assert 0 < found.se < 0.01
    assert abs(found.value - exact) < two_sided(1e-4) * found.se


BAD = {
    "negative weight": ((torch.tensor([1.0, -1.0]), torch.zeros(2, 1), torch.ones(2)), "weights"),
    "no weight": ((torch.ones(0), torch.zeros(0, 1), torch.ones(0)), "weights"),
    "flat means": ((torch.ones(2), torch.zeros(2), torch.ones(2)), "means"),
    "too many means": ((torch.ones(2), torch.zeros(3, 1), torch.ones(2)), "means"),
    "shape": ((torch.ones(2), torch.zeros(2, 3), torch.ones(2, 2)), "covariances: found shape"),
    "no variance": ((torch.ones(2), torch.zeros(2, 1), torch.zeros(2)), "not positive"),
    "indefinite": (
        (torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])),
        "not positive definite",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_points_of_another_width():
    with pytest.raises(ValueError, match=r"x: found shape \(5, 2\), expected \(B, 3\)"):
        MIXTURES["full"]().score(torch.zeros(5, 2))
