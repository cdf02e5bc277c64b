r"""Toy distributions in the plane, and one in ten dimensions, with their samplers, in float64.

With independent :math:`u_i` from U[0, 1) and :math:`n` from N(0, 1):

* sine: :math:`4 (a, \sin 3a + n / 4)` with :math:`a = 4 u - 2`;
* swirl: :math:`\tfrac{5}{6} (t \cos t + 1 - u_1 / 2, \; -t \sin t + 2 - u_2 / 2)` with
  :math:`t = 3 \pi \sqrt u`, one and a half turns;
* checkerboard: uniform on the eight squares of side 3 and even :math:`i + j` among the cells
  :math:`[3i, 3i + 3) \times [3j, 3j + 3)`, :math:`-2 \le i, j \le 1`;
* multimodal10: :math:`y_0 = n_0` and :math:`y_i = \tanh(5 n_i) (y_{i-1} + 2^{i+1})` for
  i = 1 … 9: 512 modes, at distances that double from column to column.

:mod:`ebflow.toy_densities` has the densities of the first three with Gaussian noise.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

import math

import torch
from torch import Tensor

from .randomness import normal, uniform

SIDE = 3.0  # Side of a square of the checkerboard


def sine(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): a noisy sine wave, |x₁| ≤ 8."""
    like = _like(generator)
    a = 4 * uniform((n,), like, generator) - 2
    return torch.stack([4 * a, wave(a) + normal((n,), like, generator)], 1)


def swirl(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): an arm of a spiral, 5/12 wide."""
    u = uniform((n, 3), _like(generator), generator)
    return arm(3 * math.pi * u[:, 0].sqrt(), u[:, 1], u[:, 2])


def checkerboard(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): eight squares of a board of four by four."""
    u = uniform((n, 3), _like(generator), generator)
    x = 4 * u[:, 0] - 2
    y = u[:, 1] - 2 * (u[:, 2] < 0.5) + x.floor() % 2
    return SIDE * torch.stack([x, y], 1)


def multimodal10(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 10); few lie between the 512 modes."""
    return hops(normal((n, 10), _like(generator), generator))


def hops(noise: Tensor) -> Tensor:
    """Returns the points of ``multimodal10`` of normal noise, both with shape (n, 10)."""
    columns = [noise[:, 0]]
    for i in range(1, 10):
        columns.append(torch.tanh(5 * noise[:, i]) * (columns[-1] + 2.0 ** (i + 1)))
    return torch.stack(columns, 1)


def hops_log_prob(noise: Tensor) -> Tensor:
    """Returns log p of the points ``hops(noise)`` in nats, with shape (n,), exactly.

    Given the column before, each column is a monotone function of one element of the noise. The
    noise of a point cannot be computed from the point, as tanh rounds to 1.
    """
    points = hops(noise)
    reach = points[:, :-1] + 2.0 ** torch.arange(2, 11, dtype=noise.dtype)
    z = 5 * noise[:, 1:]
    log_slope = math.log(4) - 2 * torch.logaddexp(z, -z)  # log(1 − tanh²)
    log_det = (math.log(5) + log_slope + reach.abs().log()).sum(1)
    log_normal = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
    return log_normal - log_det


def mode(points: Tensor) -> Tensor:
    """Returns the mode of points of ``multimodal10`` with shape (n, 10): 0 to 511, shape (n,)."""
    reach = points[:, :-1] + 2.0 ** torch.arange(2, 11, dtype=points.dtype)
    ones = (points[:, 1:] * reach > 0).long()
    return (ones * 2 ** torch.arange(9)).sum(1)


SAMPLERS = {
    "sine": sine,
    "swirl": swirl,
    "checkerboard": checkerboard,
    "multimodal10": multimodal10,
}


def wave(a: Tensor) -> Tensor:
    """Returns the second coordinate of the sine's line, with the shape of ``a``."""
    return 4 * torch.sin(3 * a)


def arm(t: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Returns points of the swirl's arm with shape (n, 2), for parameters with shape (n,)."""
    return 5 / 6 * torch.stack([t * t.cos() + 1 - u / 2, 2 - t * t.sin() - v / 2], 1)


def _like(generator: torch.Generator) -> Tensor:
    return torch.empty((), dtype=torch.float64, device=generator.device)
