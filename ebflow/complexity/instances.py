r"""Laws whose scores are hard to learn in mean square, in closed form.

Noise of deviation :math:`\sigma` smooths a law of :math:`x_0`; what is learnt is the score s of
:math:`x = x_0 + \sigma z`, by regression on :math:`y = -z / \sigma`, whose conditional mean it is.
An Ornstein-Uhlenbeck process at time t is the same after :math:`x \to e^{t} x`, with
:math:`\sigma^2 = e^{2t} - 1`.

*A far mode.* :math:`x_0 \sim (1 - \eta) N(0, \tau^2 I) + \eta N(R e_1, \tau^2 I)`, with
:math:`V = \tau^2 + \sigma^2`. Without a sample of the far mode nothing tells R from −R, and

.. math:: \sigma \sqrt{E \|\hat s - s\|^2} = \sqrt\eta\, R \sigma / V

whether the mode is missed or sought on the wrong side. ERM over the two sides errs with
probability :math:`\tfrac12 (1 - \eta)^m`.

*A step.* The truth is N(0, V) and a competitor's score, :math:`-x/V + S\,\mathrm{sigmoid}(S(x -
t))`, differs from it beyond t: :math:`E \|\hat s - s\|^2 \approx S^2 \bar\Phi(t)` at V = 1, and
without a sample there ERM errs with probability one half.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745; its form of the far mode has τ = 0.
"""

__all__ = ["Instance", "Sample", "Score", "Step", "Stratified", "far_mode", "gaussian"]

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal
from .closed_forms import HALF


class Score(Protocol):
    """A field of scores."""

    def score(self, x: Tensor) -> Tensor:
        """Returns s(x) with shape (B, D), for ``x`` with shape (B, D)."""
        ...


class Sample(NamedTuple):
    """Points of a law, clean and noisy.

    Attributes:
        clean: x₀ with shape (N, D).
        noise: z with shape (N, D).
        component: The component of every point, with shape (N,); 0 is the bulk.
    """

    clean: Tensor
    noise: Tensor
    component: Tensor


class Stratified(NamedTuple):
    """Test points, as many of every component.

    Attributes:
        noisy: x with shape (N, D).
        clean: x₀ with shape (N, D).
        weights: The probability that each stands for, with shape (N,).
        component: The component of every point, with shape (N,).
    """

    noisy: Tensor
    clean: Tensor
    weights: Tensor
    component: Tensor


@dataclass(frozen=True)
class Instance:
    """A law and the noise at which its score is sought.

    Attributes:
        clean: The law of x₀.
        sigma: σ.
    """

    clean: GaussianMixture
    sigma: float

    @cached_property
    def smoothed(self) -> GaussianMixture:
        """The law of x₀ + σ z, whose score is the truth."""
        return self.clean.smoothed(self.sigma)

    def draw(self, n: int, *, generator: torch.Generator) -> Sample:
        """Returns n samples as they come."""
        clean, k = self.clean.sample_with_components(n, generator=generator)
        return Sample(clean, normal(clean.shape, clean, generator), k)

    def noisy(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Returns x = x₀ + σ z and the label y = −z/σ."""
        return sample.clean + self.sigma * sample.noise, -sample.noise / self.sigma

    def stratified(self, n: int, *, generator: torch.Generator) -> Stratified:
        """Returns n test points of every component: rare ones are seen as exactly as others."""
        k = torch.arange(len(self.clean.weights)).repeat_interleave(n)
        clean = self.clean.sample_components(k, generator=generator)
        noisy = clean + self.sigma * normal(clean.shape, clean, generator)
        return Stratified(noisy, clean, self.clean.weights[k] / n, k)


def far_mode(
    ratio: float,
    eta: float,
    *,
    size: int = 1,
    sigma: float = HALF,
    tau: float = HALF,
    dtype: torch.dtype = torch.float64,
) -> Instance:
    """Returns a bulk with a far mode of weight η at R = ``ratio`` σ on the first axis.

    Arguments:
        ratio: R/σ; its sign is the side.
        eta: η.
        size: The dimension d.
        sigma: σ.
        tau: The deviation τ of both modes.
        dtype: Type of all numbers.
    """
    means = torch.zeros(2, size, dtype=dtype)
    means[1, 0] = ratio * sigma
    weights = torch.tensor([1 - eta, eta], dtype=dtype)
    return Instance(GaussianMixture(weights, means, torch.full_like(weights, tau**2)), sigma)


def gaussian(
    size: int = 1, *, sigma: float = HALF, tau: float = HALF, dtype: torch.dtype = torch.float64
) -> Instance:
    """Returns N(0, τ² I): the easy truth."""
    one, mean = torch.ones(1, dtype=dtype), torch.zeros(1, size, dtype=dtype)
    return Instance(GaussianMixture(one, mean, tau**2 * one), sigma)


@dataclass(frozen=True)
class Step:
    """The score of a competitor of N(0, 1) in one dimension.

    Attributes:
        height: S, the height of the step.
        at: t, where it stands.
    """

    height: float
    at: float

    def score(self, x: Tensor) -> Tensor:
        """Returns −x + S sigmoid(S (x − t))."""
        return self.height * torch.sigmoid(self.height * (x - self.at)) - x
