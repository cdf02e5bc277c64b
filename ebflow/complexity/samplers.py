r"""Samplers that use scores at decreasing noise: the reverse diffusion, and its flow.

The Ornstein-Uhlenbeck process :math:`dx = -x\,dt + \sqrt2\,dB` is reversed by
:math:`dx = (x + 2 s_t)\,dt + \sqrt2\,dB`. The exponential integrator keeps the score fixed during
a step of length h, and solves the rest exactly. In the coordinates :math:`e^t x`, in which x at
every noise level is :math:`x_0 + \sigma z`, with :math:`a = e^{2t} = 1 + \sigma^2` a step is

.. math:: x \leftarrow x + 2 (a_k - \sqrt{a_k a_{k+1}})\, s(x, \sigma_k)
    + \sqrt{\sigma_k^2 - \sigma_{k+1}^2}\, z.

The flow :math:`dx / d\sigma = -\sigma\, s(x, \sigma)` has the same distributions, without noise.

Sources: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, for the sampler; Fast Sampling of Diffusion Models with Exponential
Integrator (Zhang, Chen, 2022), arXiv:2204.13902; Elucidating the Design Space of Diffusion-Based
Generative Models (Karras, Aittala, Aila, Laine, 2022), arXiv:2206.00364, for Heun's steps.
"""

__all__ = ["NoisyScore", "ladder", "probability_flow", "reverse_sde"]

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import NonFinite
from ..randomness import normal

NoisyScore = Callable[[Tensor, float], Tensor]
"""A function from x and σ to the score at x of the distribution smoothed with σ."""


def ladder(highest: float, least: float, steps: int) -> list[float]:
    """Returns ``steps`` + 1 noise levels in geometric progression, the highest first."""
    return [highest * (least / highest) ** (k / steps) for k in range(steps + 1)]


@torch.no_grad()
def probability_flow(score: NoisyScore, x: Tensor, *, levels: Sequence[float]) -> Tensor:
    """Transports samples from the first noise level to the last, by Heun steps of two scores.

    Arguments:
        score: The score.
        x: Samples of the distribution smoothed with the first level. Those of N(0, σ₁² I) are
            good enough if σ₁ is much larger than the data, rare modes included.
        levels: The decreasing noise levels σ.

    Raises:
        NonFinite: if a sample is not finite.
    """
    for here, there in pairwise(levels):
        slope = -here * score(x, here)
        guess = x + (there - here) * slope
        x = x + (there - here) * (slope - there * score(guess, there)) / 2
    return _finite(x, "probability_flow")


@torch.no_grad()
def reverse_sde(
    score: NoisyScore, shape: Sequence[int], like: Tensor, *, levels: Sequence[float],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Returns samples of the distribution smoothed with the last level, by one score per step.

    It starts at N(0, σ₁² I), so σ₁ must be much larger than the data.

    Arguments:
        score: The score.
        shape: The shape of the samples.
        like: A tensor with the dtype and device of the samples.
        levels: The decreasing noise levels σ.
        generator: Source of the noise.

    Raises:
        NonFinite: if a sample is not finite.
    """
    x = levels[0] * normal(shape, like, generator)
    for here, there in pairwise(levels):
        a, b = 1 + here**2, 1 + there**2
        drift = 2 * (a - math.sqrt(a * b)) * score(x, here)
        x = x + drift + math.sqrt(a - b) * normal(shape, like, generator)
    return _finite(x, "reverse_sde")


def _finite(x: Tensor, name: str) -> Tensor:
    if not x.isfinite().all():
        raise NonFinite(f"{name}: found samples that are not finite; take more steps")
    return x
