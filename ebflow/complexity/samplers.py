r"""Samples by a score at decreasing noise.

The flow :math:`dx / d\sigma = -\sigma\, s(x, \sigma)` has the distribution of
:math:`x_0 + \sigma z` at every noise level.

Source: Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila,
Laine, 2022), arXiv:2206.00364, for Heun's steps.
"""

__all__ = ["NoisyScore", "ladder", "probability_flow"]

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import NonFinite

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
    if not x.isfinite().all():
        raise NonFinite("probability_flow: found samples that are not finite; take more steps")
    return x
