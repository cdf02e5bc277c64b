"""Toy densities: samples against the published formulas."""

import numpy as np
import pytest
import torch

from ebflow import toy
from ebflow.randomness import generator as derive
from tests.library.reference import two_sided


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
    """Returns cosines and sines of ``x``: their means differ if distributions do."""
    phase = x @ FREQUENCIES.mT
    return torch.cat([phase.cos(), phase.sin()], 1)


@pytest.mark.parametrize("name", OFFICIAL)
def test_samples_have_the_distribution_of_the_official_formula(name):
    """Characteristic functions of 40,000 samples each; false alarms: 1e-4."""
    ours = waves(toy.SAMPLERS[name](40_000, generator=derive(0, name)))
    other = waves(torch.as_tensor(OFFICIAL[name](np.random.default_rng(0), 40_000)))
    spread = ((ours.var(0) + other.var(0)) / 40_000).sqrt()
    z = (ours.mean(0) - other.mean(0)) / spread
    assert z.abs().max() < two_sided(1e-4, z.numel())
