r"""From scores at falling noise to samples: the reverse diffusion, and its flow.

The Ornstein-Uhlenbeck process :math:`dx = -x\,dt + \sqrt2\,dB` is reversed by
:math:`dx = (x + 2 s_t)\,dt + \sqrt2\,dB`. The exponential integrator holds the score over a step
of length h and solves the rest exactly. In the coordinates :math:`e^t x`, in which every noise
level is :math:`x_0 + \sigma z`, with :math:`a = e^{2t} = 1 + \sigma^2` it is

.. math:: x \leftarrow x + 2 (a_k - \sqrt{a_k a_{k+1}})\, s(x, \sigma_k)
    + \sqrt{\sigma_k^2 - \sigma_{k+1}^2}\, z.

The flow :math:`dx / d\sigma = -\sigma\, s(x, \sigma)` has the same laws without noise.

Sources: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, for the sampler; Fast Sampling of Diffusion Models with Exponential
Integrator (Zhang, Chen, 2022), arXiv:2204.13902; Elucidating the Design Space of Diffusion-Based
Generative Models (Karras, Aittala, Aila, Laine, 2022), arXiv:2206.00364, for Heun's steps.
"""

__all__ = ["Scores", "ladder", "probability_flow", "reverse_sde"]

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import NonFinite
from ..randomness import normal
from .instances import Score

Scores = Callable[[float], Score]
"""From σ to the scores of the law smoothed by it."""


def ladder(highest: float, least: float, steps: int) -> list[float]:
    """Returns ``steps`` + 1 noise levels from the highest to the least, geometrically."""
    return [highest * (least / highest) ** (k / steps) for k in range(steps + 1)]


@torch.no_grad()
def probability_flow(scores: Scores, x: Tensor, *, levels: Sequence[float]) -> Tensor:
    """Takes samples from the first level's law to the last's, by Heun's steps of two scores each.

    Arguments:
        scores: The scores by noise.
        x: Samples of the law smoothed by the first level, of which N(0, σ₁² I) is near enough
            where σ₁ is far above all of the data, rare modes among them.
        levels: σ, falling.

    Raises:
        NonFinite: if samples have left every bound.
    """
    for here, there in pairwise(levels):
        slope = -here * scores(here).score(x)
        guess = x + (there - here) * slope
        x = x + (there - here) * (slope - there * scores(there).score(guess)) / 2
    return _finite(x, "probability_flow")


@torch.no_grad()
def reverse_sde(
    scores: Scores, shape: Sequence[int], like: Tensor, *, levels: Sequence[float],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Returns samples of the law smoothed by the last level, at one score a step.

    It begins at N(0, σ₁² I), which is the law at the first level if that is far above the data.

    Arguments:
        scores: The scores by noise.
        shape: The shape of the samples.
        like: Gives dtype and device.
        levels: σ, falling.
        generator: Where the noise comes from.

    Raises:
        NonFinite: if samples have left every bound.
    """
    x = levels[0] * normal(shape, like, generator)
    for here, there in pairwise(levels):
        a, b = 1 + here**2, 1 + there**2
        drift = 2 * (a - math.sqrt(a * b)) * scores(here).score(x)
        x = x + drift + math.sqrt(a - b) * normal(shape, like, generator)
    return _finite(x, "reverse_sde")


def _finite(x: Tensor, name: str) -> Tensor:
    if not x.isfinite().all():
        raise NonFinite(f"{name}: found samples that are not finite; take more steps")
    return x
