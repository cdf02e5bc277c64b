r"""Toy distributions in the plane, with their samplers, in float64.

With independent :math:`u_i` from U[0, 1) and :math:`n` from N(0, 1):

* sine: :math:`4 (a, \sin 3a + n / 4)` with :math:`a = 4 u - 2`;
* swirl: :math:`\tfrac{5}{6} (t \cos t + 1 - u_1 / 2, \; -t \sin t + 2 - u_2 / 2)` with
  :math:`t = 3 \pi \sqrt u`, one and a half turns;
* checkerboard: uniform on the eight squares of side 3 and even :math:`i + j` among the cells
  :math:`[3i, 3i + 3) \times [3j, 3j + 3)`, :math:`-2 \le i, j \le 1`.

``SMOOTHED`` has them with noise of N(0, σ² I). Given the uniform variables, each is
Gaussian, and Gauss-Legendre's rule turns the integral over them into a mixture of Gaussians. Its
nodes are at most about σ apart, so that its error on the support is negligible. Far beyond, the
tail is that of the outermost nodes.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

__all__ = ["SAMPLERS", "SMOOTHED", "checkerboard", "sine", "smoothed_checkerboard",
           "smoothed_sine", "smoothed_swirl", "swirl"]  # fmt: skip

import math

import numpy as np
import torch
from torch import Tensor

from .bases import GaussianMixture
from .randomness import normal, uniform

SIDE = 3.0  # Side of a square of the checkerboard


def sine(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): a noisy sine wave, |x₁| ≤ 8."""
    like = _like(generator)
    a = 4 * uniform((n,), like, generator) - 2
    return torch.stack([4 * a, _wave(a) + normal((n,), like, generator)], 1)


def swirl(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): an arm of a spiral, 5/12 wide."""
    u = uniform((n, 3), _like(generator), generator)
    return _arm(3 * math.pi * u[:, 0].sqrt(), u[:, 1], u[:, 2])


def checkerboard(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): eight squares of a board of four by four."""
    u = uniform((n, 3), _like(generator), generator)
    x = 4 * u[:, 0] - 2
    y = u[:, 1] - 2 * (u[:, 2] < 0.5) + x.floor() % 2
    return SIDE * torch.stack([x, y], 1)


def smoothed_sine(sigma: float) -> GaussianMixture:
    """Returns the distribution of ``sine`` + σ n: variances σ² and σ² + 1 along the wave."""
    a, weights = _rule(-2, 2, 24 / sigma)
    variances = torch.tensor([sigma**2, sigma**2 + 1], dtype=a.dtype)
    means = torch.stack([4 * a, _wave(a)], 1)
    return GaussianMixture(weights, means, variances.expand(len(a), 2))


def smoothed_swirl(sigma: float) -> GaussianMixture:
    """Returns the distribution of ``swirl`` + σ n; 7,848 components at σ = 3/8."""
    t, weights = _rule(0, 3 * math.pi, 50 / sigma)
    u, w = _rule(0, 1, 5 / 12 / sigma)
    grid = torch.cartesian_prod(torch.arange(len(t)), torch.arange(len(u)), torch.arange(len(u)))
    i, j, k = grid.unbind(1)
    return _kernels(_arm(t[i], u[j], u[k]), sigma, t[i] * weights[i] * w[j] * w[k])


def smoothed_checkerboard(sigma: float) -> GaussianMixture:
    """Returns the distribution of ``checkerboard`` + σ n; 2,312 components at σ = 3/8."""
    s, w = _rule(0, SIDE, SIDE / sigma)
    cells = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    corners = SIDE * torch.tensor(cells, dtype=s.dtype)
    inner = torch.cartesian_prod(s, s)
    weights = torch.cartesian_prod(w, w).prod(1).repeat(len(cells))
    return _kernels((corners[:, None] + inner).flatten(0, 1), sigma, weights)


SAMPLERS = {"sine": sine, "swirl": swirl, "checkerboard": checkerboard}
SMOOTHED = {"sine": smoothed_sine, "swirl": smoothed_swirl, "checkerboard": smoothed_checkerboard}


def _kernels(points: Tensor, sigma: float, weights: Tensor) -> GaussianMixture:
    """Returns Gaussians of standard deviation σ on ``points`` with shape (K, D)."""
    return GaussianMixture(weights, points, points.new_full((len(points),), sigma**2))


def _wave(a: Tensor) -> Tensor:
    return 4 * torch.sin(3 * a)


def _arm(t: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return 5 / 6 * torch.stack([t * t.cos() + 1 - u / 2, 2 - t * t.sin() - v / 2], 1)


def _like(generator: torch.Generator) -> Tensor:
    return torch.empty((), dtype=torch.float64, device=generator.device)


def _rule(low: float, high: float, deviations: float) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights of Gauss-Legendre's rule for a path of so many σ."""
    nodes, weights = np.polynomial.legendre.leggauss(4 + math.ceil(1.6 * deviations))
    middle, half = (low + high) / 2, (high - low) / 2
    return torch.from_numpy(middle + half * nodes), torch.from_numpy(weights)
