"""An easy distribution, and noisy samples."""

import torch

from ebflow.bases import GaussianMixture
from ebflow.complexity.instances import HALF
from ebflow.randomness import generator, normal


def gaussian(size=1):
    """Returns N(0, τ² I)."""
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, one.new_zeros(1, size), HALF**2 * one)


def sampled(clean, n, seed=0):
    """Returns x₀ and z."""
    noise = generator(seed)
    x = clean.sample(n, generator=noise)
    return x, normal(x.shape, x, noise)


def noisy(clean, n, seed=0):
    """Returns x and its labels."""
    x, z = sampled(clean, n, seed)
    return x + HALF * z, -z / HALF
