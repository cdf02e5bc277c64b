r"""Samplers of diffusion models: from scores at falling noise levels to samples.

The Ornstein-Uhlenbeck process :math:`dx = -x\,dt + \sqrt2\,dB` is reversed by
:math:`dx = (x + 2 s_t)\,dt + \sqrt2\,dB`. The exponential integrator holds the score constant
during a step of length h, and solves the rest exactly. In the coordinates :math:`e^t x` every
noise level is :math:`x_0 + \sigma z`. With :math:`a = e^{2t} = 1 + \sigma^2` a step is

.. math:: x \leftarrow x + 2 (a_k - \sqrt{a_k a_{k+1}})\, s(x, \sigma_k)
    + \sqrt{\sigma_k^2 - \sigma_{k+1}^2}\, z.

The ordinary differential equation :math:`dx / d\sigma = -\sigma\, s(x, \sigma)` has the same
distributions without noise.

Sources: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, for the sampler; Fast Sampling of Diffusion Models with Exponential
Integrator (Zhang, Chen, 2022), arXiv:2204.13902; Elucidating the Design Space of Diffusion-Based
Generative Models (Karras, Aittala, Aila, Laine, 2022), arXiv:2206.00364, for Heun's steps.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import NonFinite
from ..randomness import normal

#: From x and σ to the scores at x of the distribution that is smoothed by σ
Scores = Callable[[Tensor, float], Tensor]


def ladder(highest: float, least: float, steps: int) -> list[float]:
    """Returns ``steps`` + 1 noise levels in geometric progression, the highest first."""
    return [highest * (least / highest) ** (k / steps) for k in range(steps + 1)]


@torch.no_grad()
def reverse_sde(
    scores: Scores,
    shape: Sequence[int],
    like: Tensor,
    *,
    levels: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Returns samples of the distribution smoothed by the last level, by the reverse SDE.

    It starts at N(0, σ₁² I), which is the distribution at the first level if that is far above
    the data. Cost: one evaluation of the scores for each step.

    Arguments:
        scores: The scores.
        shape: The shape of the samples.
        like: A tensor with their dtype and device.
        levels: The noise levels σ, the highest first.
        generator: Source of the noise.

    Raises:
        NonFinite: if a sample is not finite.
    """
    x = levels[0] * normal(shape, like, generator)
    for here, there in pairwise(levels):
        drift = step_length(here, there) * scores(x, here)
        x = x + drift + math.sqrt(here**2 - there**2) * normal(shape, like, generator)
    return _finite(x, "reverse_sde")


def step_length(here: float, there: float) -> float:
    """Returns the factor of the score in a step of the reverse SDE between two noise levels."""
    a = 1 + here**2
    b = 1 + there**2
    return 2 * (a - math.sqrt(a * b))


@torch.no_grad()
def probability_flow(scores: Scores, x: Tensor, *, levels: Sequence[float]) -> Tensor:
    """Transports samples from the first level's distribution to the last's, by Heun's method.

    Cost: two evaluations of the scores for each step.

    Arguments:
        scores: The scores.
        x: Samples of the distribution smoothed by the first level. If that level is far above
            all data, N(0, σ₁² I) is near enough.
        levels: The noise levels σ, the highest first.

    Raises:
        NonFinite: if a sample is not finite.
    """
    for here, there in pairwise(levels):
        slope = -here * scores(x, here)
        guess = x + (there - here) * slope
        x = x + (there - here) * (slope - there * scores(guess, there)) / 2
    return _finite(x, "probability_flow")


def _finite(x: Tensor, name: str) -> Tensor:
    if not x.isfinite().all():
        raise NonFinite(f"{name}: found samples that are not finite; take more steps")
    return x
