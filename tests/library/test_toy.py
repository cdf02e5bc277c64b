"""Toy densities: samples against the published formulas, densities against integrals."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr

from ebflow import toy
from ebflow.randomness import generator as derive

from .bijections.cases import seeded
from .reference import two_sided

SIGMA = 0.375


def official_sine(rng, n):
    a = rng.uniform(-2, 2, n)
    return 4 * np.stack([a, np.sin(3 * a) + 0.25 * rng.normal(size=n)], 1)


def official_swirl(rng, n):
    length = np.sqrt(rng.random(n)) * 540 * (2 * np.pi) / 360
    x = -np.cos(length) * length + rng.random(n) * 0.5 - 1
    y = np.sin(length) * length + rng.random(n) * 0.5 - 2
    return np.stack([-x, -y], 1) / 3 * 2.5


def official_checkerboard(rng, n):
    x = rng.random(n) * 4 - 2
    y = rng.random(n) - rng.integers(0, 2, n) * 2 + np.floor(x) % 2
    return np.stack([x, y], 1) * 3


OFFICIAL = {"sine": official_sine, "swirl": official_swirl, "checkerboard": official_checkerboard}
FREQUENCIES = torch.tensor(
    [[0.2, 0.1], [0.5, -0.3], [0.0, 1.0], [1.0, 0.4], [0.1, -2.0]], dtype=torch.float64
)


def waves(x):
    """Returns cosines and sines of ``x`` at some frequencies: their means tell laws apart."""
    phase = x @ FREQUENCIES.mT
    return torch.cat([phase.cos(), phase.sin()], 1)


@pytest.mark.parametrize("name", OFFICIAL)
def test_samples_have_the_law_of_the_official_formula(name):
    """Characteristic functions of 40,000 samples each; false alarms: 1e-4."""
    ours = waves(toy.SAMPLERS[name](40_000, generator=derive(0, name)))
    other = waves(torch.as_tensor(OFFICIAL[name](np.random.default_rng(0), 40_000)))
    spread = ((ours.var(0) + other.var(0)) / 40_000).sqrt()
    z = (ours.mean(0) - other.mean(0)) / spread
    assert z.abs().max() < two_sided(1e-4, z.numel())


@pytest.mark.parametrize("name", toy.SMOOTHED)
@pytest.mark.parametrize("sigma", [0.1, SIGMA])
def test_smoothed_law_is_that_of_noised_samples(name, sigma):
    """Characteristic functions of 40,000 samples, exact ones of mixtures; false alarms: 1e-4."""
    mixture = toy.SMOOTHED[name](sigma)
    x = toy.SAMPLERS[name](40_000, generator=derive(1, name))
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
    x = toy.SAMPLERS[name](6, generator=derive(3, name))
    x = x + 2 * sigma * torch.randn(x.shape, generator=seeded(4))
    found = toy.SMOOTHED[name](sigma).log_prob(x).exp()
    for (a, b), value in zip(x.tolist(), found.tolist(), strict=True):
        term, (low, high) = INTEGRALS[name](a, b, sigma)
        pieces = np.linspace(low, high, 41)
        exact = sum(
            quad(term, *ends, epsabs=1e-14)[0] for ends in zip(pieces, pieces[1:], strict=False)
        )
        assert value == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.05, SIGMA, 2.0])
def test_smoothed_checkerboard_is_the_closed_form(sigma):
    x = toy.checkerboard(200, generator=derive(3))
    x = x + 3 * sigma * torch.randn(x.shape, generator=seeded(4))
    a, b = x.numpy().T
    exact = sum(
        box(a, 3 * i, 3 * i + 3, sigma) * box(b, 3 * j, 3 * j + 3, sigma) / 8
        for i in range(-2, 2)
        for j in range(-2, 2)
        if (i + j) % 2 == 0
    )
    found = toy.smoothed_checkerboard(sigma).log_prob(x).exp()
    near = exact > 1e-6
    assert near.sum() > 150
    np.testing.assert_allclose(found.numpy()[near], exact[near], rtol=1e-8)
