r"""A distribution whose score is hard to learn in mean square, in closed form.

The score s of :math:`x = x_0 + \sigma z` is learned by regression on :math:`y = -z / \sigma`,
because it is the conditional mean of y.

:math:`x_0 \sim (1 - \eta) N(0, \tau^2 I) + \eta N(R e_1, \tau^2 I)`, with
:math:`V = \tau^2 + \sigma^2`. Without a sample of the far mode, R looks like −R, and

.. math:: \sigma \sqrt{E \|\hat s - s\|^2} = \sqrt\eta\, R \sigma / V

both if the mode is missed and if it is put on the wrong side. Empirical risk minimization takes
the score with the least sum of losses :math:`\|h(x_i) - y_i\|^2` in a finite class. The page
"Studies" says more.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745; its form of the far mode has τ = 0.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import uniform

HALF = math.sqrt(0.5)  # Both σ and τ here: V = 1, so that only R/σ matters
PLACES = (0.0, 2.0, -2.0, 1.0, -1.0)
"""Places of the far mode in the hypotheses of ``far_class``, in units of R; 0: no far mode.

All but the true one, 1, cost √η R σ/V, which is 2 ε at the worst η, and samples of the bulk do not
distinguish them. A mode half-way to R would cost ε itself, so the test could not decide.
"""

BULKS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)  # Places of their bulk

Score = Callable[[Tensor], Tensor]  # From x to s(x), both with shape (B, D)


class Stratified(NamedTuple):
    """Test points, equally many of every component."""

    noisy: Tensor  # x with shape (N, D)
    weights: Tensor  # the probability that each point represents, with shape (N,)
    component: Tensor  # the component of every point, with shape (N,)


def stratified(
    clean: GaussianMixture, n: int, *, sigma: float = HALF, generator: torch.Generator
) -> Stratified:
    """Returns n test points at σ of every component, so rare ones are measured as precisely."""
    k = torch.arange(len(clean.weights)).repeat_interleave(n)
    noisy = clean.smoothed(sigma).sample_components(k, generator=generator)
    return Stratified(noisy, clean.weights[k] / n, k)


def far_mode(
    ratio: float, eta: float, *, size: int = 1, dtype: torch.dtype = torch.float64
) -> GaussianMixture:
    """Returns x₀ of a bulk with a far mode of weight η at R = ``ratio`` σ on the first axis.

    The sign of ``ratio`` is the side, and ``size`` is the dimension.
    """
    means = torch.zeros(2, size, dtype=dtype)
    means[1, 0] = ratio * HALF
    weights = torch.tensor([1 - eta, eta], dtype=dtype)
    return GaussianMixture(weights, means, torch.full_like(weights, HALF**2))


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


@torch.no_grad()
def cumulative_losses(
    hypotheses: Sequence[Score], x: Tensor, y: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Returns the sums of losses over the first m samples, with shape (sizes, H).

    Noisy samples ``x`` and their labels ``y`` have shape (N, D).
    """
    last = torch.as_tensor(sizes) - 1
    sums = ((hypothesis(x) - y).square().sum(-1).cumsum(0)[last] for hypothesis in hypotheses)
    return torch.stack([*sums], -1)


def erm(losses: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns the index of the least loss along the last dimension; ties are broken at random."""
    tickets = 1 + uniform(losses.shape, losses, generator)
    return ((losses == losses.amin(-1, keepdim=True)) * tickets).argmax(-1)


def far_class(smooth: GaussianMixture) -> list[GaussianMixture]:
    """Returns 45 mixtures on the line, one of which is the smoothed truth: ``BULKS`` × ``PLACES``.

    The far mode has its true weight, or does not exist.
    """
    found = []
    for bulk, place in product(BULKS, PLACES):
        means = torch.cat([smooth.means.new_tensor([[bulk]]), place * smooth.means[1:]])
        n = 2 if place else 1
        found.append(GaussianMixture(smooth.weights[:n], means[:n], smooth.covariances[:n]))
    return found
