r"""A distribution whose score is hard to learn in mean square, in closed form.

Noise of standard deviation :math:`\sigma` smooths the distribution of :math:`x_0`. The score s of
:math:`x = x_0 + \sigma z` is learned by regression on :math:`y = -z / \sigma`, because it is the
conditional mean of y. An Ornstein-Uhlenbeck process at time t is the same after
:math:`x \to e^{t} x`, with :math:`\sigma^2 = e^{2t} - 1`.

:math:`x_0 \sim (1 - \eta) N(0, \tau^2 I) + \eta N(R e_1, \tau^2 I)`, with
:math:`V = \tau^2 + \sigma^2`. Without a sample of the far mode, R looks like −R, and

.. math:: \sigma \sqrt{E \|\hat s - s\|^2} = \sqrt\eta\, R \sigma / V

both if the mode is missed and if it is put on the wrong side. Empirical risk minimization over the
two sides errs with probability :math:`\tfrac12 (1 - \eta)^m`.

Instances here have :math:`\tau = \sigma = \sqrt{1/2}`, so V = 1 and only R/σ matters.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745; its form of the far mode has τ = 0.
"""

__all__ = ["HALF", "Instance", "Score", "Stratified", "far_mode", "worst_eta"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal

HALF = math.sqrt(0.5)
"""The noise σ and the standard deviation τ of a mode, so that V = τ² + σ² = 1."""

Score = Callable[[Tensor], Tensor]
"""A function from x with shape (B, D) to s(x) with shape (B, D)."""


class Stratified(NamedTuple):
    """Test points, equally many of every component.

    Attributes:
        noisy: x with shape (N, D).
        weights: The probability that each point represents, with shape (N,).
        component: The component of every point, with shape (N,).
    """

    noisy: Tensor
    weights: Tensor
    component: Tensor


@dataclass(frozen=True)
class Instance:
    """The distribution of x₀, and the noise level σ at which its score is learned."""

    clean: GaussianMixture
    sigma: float = HALF

    @cached_property
    def smoothed(self) -> GaussianMixture:
        """The distribution of x₀ + σ z, whose score is the truth."""
        return self.clean.smoothed(self.sigma)

    def sample(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Returns n samples: x₀ and z with shape (n, D), and components; 0 is the bulk."""
        clean, k = self.clean.sample_with_components(n, generator=generator)
        return clean, normal(clean.shape, clean, generator), k

    def noisy(self, clean: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x = x₀ + σ z and the label y = −z/σ."""
        return clean + self.sigma * z, -z / self.sigma

    def stratified(self, n: int, *, generator: torch.Generator) -> Stratified:
        """Returns n test points of every component, so rare ones are measured as precisely."""
        k = torch.arange(len(self.clean.weights)).repeat_interleave(n)
        noisy = self.smoothed.sample_components(k, generator=generator)
        return Stratified(noisy, self.clean.weights[k] / n, k)


def far_mode(
    ratio: float, eta: float, *, size: int = 1, dtype: torch.dtype = torch.float64
) -> Instance:
    """Returns a bulk with a far mode of weight η at R = ``ratio`` σ on the first axis.

    The sign of ``ratio`` is the side, and ``size`` is the dimension.
    """
    means = torch.zeros(2, size, dtype=dtype)
    means[1, 0] = ratio * HALF
    weights = torch.tensor([1 - eta, eta], dtype=dtype)
    return Instance(GaussianMixture(weights, means, torch.full_like(weights, HALF**2)))


def worst_eta(ratio: float, epsilon: float) -> float:
    """Returns the η at which a missed mode costs exactly 2 ε: ∝ (σ/R)².

    Raises:
        ValueError: if η ≥ 1, because R is too small.
    """
    eta = 16 * epsilon**2 / ratio**2
    if eta >= 1:
        raise ValueError(
            f"ratio: found {ratio} with epsilon {epsilon}: a weight of {eta:.3g}, expected below 1"
        )
    return eta
