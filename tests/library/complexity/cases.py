"""An easy distribution, and noisy samples."""

import torch

from ebflow.bases import GaussianMixture
from ebflow.complexity.instances import HALF
from ebflow.randomness import generator, normal


def gaussian(size=1):
    """Returns N(0, τ² I)."""
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, one.new_zeros(1, size), HALF**2 * one)


def noisy(clean, n, seed=0):
    """Returns x and its labels."""
    noise = generator(seed)
    x = clean.sample(n, generator=noise)
    z = normal(x.shape, x, noise)
    return x + HALF * z, -z / HALF
