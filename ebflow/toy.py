r"""Toy distributions in the plane, with their samplers, in float64.

With independent :math:`u_i` from U[0, 1) and :math:`n` from N(0, 1):

* sine: :math:`4 (a, \sin 3a + n / 4)` with :math:`a = 4 u - 2`;
* swirl: :math:`\tfrac{5}{6} (t \cos t + 1 - u_1 / 2, \; -t \sin t + 2 - u_2 / 2)` with
  :math:`t = 3 \pi \sqrt u`, one and a half turns;
* checkerboard: uniform on the eight squares of side 3 and even :math:`i + j` among the cells
  :math:`[3i, 3i + 3) \times [3j, 3j + 3)`, :math:`-2 \le i, j \le 1`.

Source: Chao et al. (2023), arXiv:2305.15267, and its repository.
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
    return torch.stack([4 * a, 4 * torch.sin(3 * a) + normal((n,), like, generator)], 1)


def swirl(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): an arm of a spiral, 5/12 wide."""
    u = uniform((n, 3), _like(generator), generator)
    t = 3 * math.pi * u[:, 0].sqrt()
    x = [t * t.cos() + 1 - u[:, 1] / 2, 2 - t * t.sin() - u[:, 2] / 2]
    return 5 / 6 * torch.stack(x, 1)


def checkerboard(n: int, *, generator: torch.Generator) -> Tensor:
    """Returns samples with shape (n, 2): eight squares of a board of four by four."""
    u = uniform((n, 3), _like(generator), generator)
    x = 4 * u[:, 0] - 2
    y = u[:, 1] - 2 * (u[:, 2] < 0.5) + x.floor() % 2
    return SIDE * torch.stack([x, y], 1)


SAMPLERS = {"sine": sine, "swirl": swirl, "checkerboard": checkerboard}


def _like(generator: torch.Generator) -> Tensor:
    return torch.empty((), dtype=torch.float64, device=generator.device)
