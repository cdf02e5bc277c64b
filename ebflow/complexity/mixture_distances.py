r"""Distances of samples from an exact mixture of Gaussians.

On the line, with distribution functions F and :math:`F_n` and their inverses:

.. math:: W_1 = \int |F_n - F|\, dx = \int_0^1 |F_n^{-1} - F^{-1}|\, du, \qquad
    W_2^2 = \int_0^1 (F_n^{-1} - F^{-1})^2\, du,

at the midpoints of n equal parts of [0, 1]. The total variation compares a histogram with the
exact probabilities of its bins, :math:`\tfrac12 \sum_b |n_b / n - P_b|`. For n true samples it
is about :math:`\sum_b \sqrt{P_b / (2 \pi n)}`, its floor.

In more dimensions, the projection of a mixture to a direction is a mixture on the line. Sliced
distances are means over random directions; :math:`SW_2^2` is the mean of :math:`W_2^2`.
"""

__all__ = ["along", "cdf", "distances", "inverse_cdf", "sliced", "total_variation", "wasserstein"]

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal

BISECTIONS = 60
SLICES = 8
BIN = 0.5
"""Width of a bin, in standard deviations of the first component."""


def distances(
    x: Tensor, mixture: GaussianMixture, *, generator: torch.Generator
) -> dict[str, float]:
    """Returns distances of samples with shape (n, D) from a mixture of a bulk and a far mode.

    ``tv`` is the total variation along the first axis; ``w1`` and ``w2`` are W₁ and W₂, sliced if
    D > 1. ``far_mass`` is the share of samples that are nearer to the far mode than to the bulk,
    and ``far_mass_error`` its absolute difference from the mode's weight.
    """
    x = x.to(mixture.means)
    line = along(mixture, torch.eye(mixture.size).to(x)[0])
    w1, w2 = sliced(x, mixture, SLICES, generator)
    far = float((torch.cdist(x, mixture.means).argmin(1) > 0).double().mean())
    return {
        "tv": total_variation(x[:, 0].contiguous(), line), "w1": w1, "w2": w2,
        "far_mass": far, "far_mass_error": abs(far - float(mixture.weights[1])),
    }  # fmt: skip


def along(mixture: GaussianMixture, direction: Tensor) -> GaussianMixture:
    """Returns the distribution of direction · x, for a direction of norm 1."""
    covariances = mixture.covariances
    if covariances.ndim == 3:
        variances = covariances @ direction @ direction
    else:
        variances = (covariances * direction.square()).sum(1)
    return GaussianMixture(mixture.weights, mixture.means @ direction[:, None], variances)


def cdf(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """Returns F(x) of a mixture on the line."""
    scales = mixture.covariances[:, 0].sqrt()
    return torch.special.ndtr((x[..., None] - mixture.means[:, 0]) / scales) @ mixture.weights


def inverse_cdf(mixture: GaussianMixture, u: Tensor) -> Tensor:
    """Returns F⁻¹(u) by bisection to the last digits; 60 evaluations of F."""
    reach = 40 * mixture.covariances.max().sqrt()
    low = torch.full_like(u, float(mixture.means.min() - reach))
    high = torch.full_like(u, float(mixture.means.max() + reach))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = cdf(mixture, middle) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def wasserstein(x: Tensor, mixture: GaussianMixture) -> tuple[float, float]:
    """Returns W₁ and W₂ of samples with shape (n,) on the line."""
    u = (torch.arange(len(x), dtype=mixture.means.dtype) + 0.5) / len(x)
    gaps = x.to(u).sort().values - inverse_cdf(mixture, u)
    return float(gaps.abs().mean()), float(gaps.square().mean().sqrt())


def sliced(
    x: Tensor, mixture: GaussianMixture, slices: int, generator: torch.Generator
) -> tuple[float, float]:
    """Returns the mean W₁ and the root of the mean W₂² over random directions; exact if D = 1."""
    x = x.to(mixture.means.dtype)
    if mixture.size == 1:
        return wasserstein(x[:, 0], mixture)
    directions = normal((slices, mixture.size), mixture.means, generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    pairs = torch.tensor([wasserstein(x @ v, along(mixture, v)) for v in directions])
    return float(pairs[:, 0].mean()), float(pairs[:, 1].square().mean().sqrt())


def total_variation(x: Tensor, mixture: GaussianMixture) -> float:
    """Returns the total variation of samples with shape (n,) from a mixture on the line."""
    width = BIN * mixture.covariances[0, 0].sqrt()
    reach = 10 * mixture.covariances.max().sqrt()
    low, high = float(mixture.means.min() - reach), float(mixture.means.max() + reach)
    edges = torch.arange(low, high + float(width), float(width), dtype=x.dtype)
    counts = torch.bincount(torch.bucketize(x, edges), minlength=len(edges) + 1)
    ends = torch.cat([edges.new_zeros(1), cdf(mixture, edges), edges.new_ones(1)])
    return float(0.5 * (counts / len(x) - ends.diff()).abs().sum())
