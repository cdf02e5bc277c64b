"""Exact densities of noised toy samples: against samples, integrals and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr

from ebflow.randomness import generator as derive
from ebflow.toy import SAMPLERS, checkerboard, sine, swirl
from ebflow.toy_densities import (
    CLEAN,
    SMOOTHED,
    parzen,
    smoothed,
    smoothed_checkerboard,
    smoothed_sine,
    swirl_log_prob,
)

from .bijections.cases import seeded
from .reference import two_sided
from .test_toy import FREQUENCIES, waves

SIGMA = 0.375


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("sigma", [0.1, SIGMA])
def test_a_smoothed_density_is_that_of_noised_samples(name, sigma):
    """Characteristic functions of 40,000 samples, exact ones of mixtures; false alarms: 1e-4."""
    mixture = SMOOTHED[name](sigma)
    x = SAMPLERS[name](40_000, generator=derive(1, name))
    found = waves(x + sigma * torch.randn(x.shape, generator=seeded(2)))
    phase = mixture.means @ FREQUENCIES.mT
    damped = mixture.weights[:, None] * torch.exp(
        -(mixture.covariances.expand(-1, 2) @ (FREQUENCIES**2).mT) / 2
    )
    exact = torch.cat([(damped * phase.cos()).sum(0), (damped * phase.sin()).sum(0)])
    z = (found.mean(0) - exact) / (found.std(0) / math.sqrt(len(x)))
    assert z.abs().max() < two_sided(1e-4, z.numel())


def box(x, low, high, sigma):
    """Returns the density at ``x`` of a uniform variable on [low, high] with noise."""
    return (ndtr((high - x) / sigma) - ndtr((low - x) / sigma)) / (high - low)


def exact_sine(x, y, sigma):
    width = math.sqrt(1 + sigma**2)

    def term(a):
        u, v = (x - 4 * a) / sigma, (y - 4 * math.sin(3 * a)) / width
        return math.exp(-(u * u + v * v) / 2) / (2 * math.pi * sigma * width) / 4

    return term, (-2, 2)


def exact_swirl(x, y, sigma):
    def term(t):
        right, up = 5 / 6 * (t * math.cos(t) + 1), 5 / 6 * (2 - t * math.sin(t))
        boxes = box(x, right - 5 / 12, right, sigma) * box(y, up - 5 / 12, up, sigma)
        return boxes * 2 * t / (9 * math.pi**2)

    return term, (0, 3 * math.pi)


INTEGRALS = {"sine": exact_sine, "swirl": exact_swirl}


@pytest.mark.parametrize("name", INTEGRALS)
@pytest.mark.parametrize("sigma", [0.1, SIGMA])
def test_smoothed_density_is_the_integral(name, sigma):
    x = SAMPLERS[name](6, generator=derive(3, name))
    x = x + 2 * sigma * torch.randn(x.shape, generator=seeded(4))
    found = SMOOTHED[name](sigma).log_prob(x).exp()
    for (a, b), value in zip(x.tolist(), found.tolist(), strict=True):
        term, (low, high) = INTEGRALS[name](a, b, sigma)
        pieces = np.linspace(low, high, 41)
        exact = sum(
            quad(term, *ends, epsabs=1e-14)[0] for ends in zip(pieces, pieces[1:], strict=False)
        )
        assert value == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.05, SIGMA, 2.0])
def test_smoothed_checkerboard_is_the_closed_form(sigma):
    x = checkerboard(200, generator=derive(3))
    x = x + 3 * sigma * torch.randn(x.shape, generator=seeded(4))
    a, b = x.numpy().T
    exact = sum(
        box(a, 3 * i, 3 * i + 3, sigma) * box(b, 3 * j, 3 * j + 3, sigma) / 8
        for i in range(-2, 2)
        for j in range(-2, 2)
        if (i + j) % 2 == 0
    )
    found = smoothed_checkerboard(sigma).log_prob(x).exp()
    near = exact > 1e-6
    assert near.sum() > 150
    np.testing.assert_allclose(found.numpy()[near], exact[near], rtol=1e-8)


def test_noise_of_unequal_directions_is_a_convolution():
    """Characteristic functions of samples, exact ones of the mixture; false alarms: 1e-4."""
    factor = torch.tensor([[0.4, 0.0], [-0.5, 0.7]])
    covariance = factor @ factor.mT
    mixture = smoothed("checkerboard", covariance)
    x = checkerboard(40_000, generator=derive(1))
    found = waves(x + torch.randn(x.shape, generator=seeded(2)) @ factor.mT)
    phase = mixture.means @ FREQUENCIES.mT
    spread = torch.einsum("fi,kij,fj->kf", FREQUENCIES, mixture.covariances, FREQUENCIES)
    damped = mixture.weights[:, None] * torch.exp(-spread / 2)
    exact = torch.cat([(damped * phase.cos()).sum(0), (damped * phase.sin()).sum(0)])
    z = (found.mean(0) - exact) / (found.std(0) / math.sqrt(len(x)))
    assert z.abs().max() < two_sided(1e-4, z.numel())


@pytest.mark.parametrize("name", SMOOTHED)
def test_equal_noise_is_that_of_the_toy(name):
    x = SAMPLERS[name](50, generator=derive(3))
    found = smoothed(name, 0.25 * torch.eye(2)).log_prob(x)
    torch.testing.assert_close(found, SMOOTHED[name](0.5).log_prob(x))


def test_a_covariance_must_be_positive():
    with pytest.raises(ValueError, match="covariance: found .*, expected a positive definite"):
        smoothed("sine", torch.ones(2, 2))


@pytest.mark.parametrize("name", ["sine", "checkerboard"])
def test_a_density_without_noise_is_the_limit(name):
    """Except near its jumps."""
    x = SAMPLERS[name](300, generator=derive(5, name))
    found, sharp = CLEAN[name](x), SMOOTHED[name](0.06).log_prob(x)
    assert (found - sharp).abs().quantile(0.7) < 0.02


@pytest.mark.parametrize("name", CLEAN)
def test_a_density_without_noise_is_positive_at_samples_alone(name):
    x = SAMPLERS[name](300, generator=derive(5, name)).float()
    assert CLEAN[name](x).isfinite().all()
    assert (CLEAN[name](x + 100.0) == -math.inf).all()


@pytest.mark.parametrize("name", CLEAN)
def test_a_density_without_noise_integrates_to_one(name):
    """A z-test of 40,000 uniform points, at a false-alarm rate of 1e-4."""
    low, high = torch.tensor([-9.0, -10.0]), torch.tensor([9.0, 10.0])
    x = low + (high - low) * torch.rand(40_000, 2, generator=seeded())
    mass = 18 * 20 * CLEAN[name](x).exp()
    z = (mass.mean() - 1) / (mass.std() / math.sqrt(len(x)))
    assert abs(z) < two_sided(1e-4)


def test_the_swirl_without_noise_is_the_integral_over_its_arm():
    x = swirl(40, generator=derive(6))
    t = torch.linspace(0, 3 * math.pi, 400_001)[:, None]
    u = 2 * (t * t.cos() + 1 - 1.2 * x[:, 0])
    v = 2 * (2 - t * t.sin() - 1.2 * x[:, 1])
    inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    exact = 4 * 1.44 * torch.trapezoid(inside * 2 * t / (9 * math.pi**2), t, dim=0)
    torch.testing.assert_close(swirl_log_prob(x).exp(), exact, rtol=1e-2, atol=1e-5)


def test_parzen_is_the_mean_of_kernels():
    points, x = (torch.randn(n, 2, generator=seeded(n)) for n in (30, 5))
    squares = (x[:, None] - points).square().sum(-1)
    kernels = torch.exp(-squares / (2 * 0.3**2)) / (2 * math.pi * 0.3**2)
    found = parzen(points, 0.3).log_prob(x).exp()
    torch.testing.assert_close(found, kernels.mean(1))


def test_parzen_flatters_its_own_points():
    """Why it must be made of other samples than those it is evaluated at."""
    own, fresh = (sine(500, generator=derive(s)) for s in (0, 1))
    noise = 0.1 * torch.randn(500, 2, generator=seeded())
    exact = smoothed_sine(0.1)
    oracle = parzen(own, 0.1)
    too_high = (oracle.log_prob(own + noise) - exact.log_prob(own + noise)).mean()
    honest = (oracle.log_prob(fresh + noise) - exact.log_prob(fresh + noise)).mean()
    assert too_high > 0.5 and honest < 0
