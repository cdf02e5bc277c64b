r"""Distances of samples from an exact mixture of Gaussians.

On the line, with distribution functions F and :math:`F_n` and their inverses:

.. math:: W_1 = \int_0^1 |F_n^{-1} - F^{-1}|\, du, \qquad
    W_2^2 = \int_0^1 (F_n^{-1} - F^{-1})^2\, du,

by the midpoints of n equal parts of [0, 1]. The total variation is that of a histogram from the
exact masses of its bins, :math:`\tfrac12 \sum_b |n_b / n - P_b|`. Of n true samples it is about
:math:`\sum_b \sqrt{P_b / (2 \pi n)}`, its floor.

In more dimensions a mixture along a direction is a mixture on the line. Sliced distances are
means over random directions, :math:`SW_2^2` of :math:`W_2^2`.

Source: Sliced and Radon Wasserstein Barycenters of Measures (Bonneel, Rabin, Peyré, Pfister,
2015).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal

BISECTIONS = 60
BIN = 0.5  # Width of a bin, in standard deviations of the first component


class Distances(NamedTuple):
    """Distances of samples from their target; W₁ and W₂ are sliced beyond the line."""

    tv: float  #: Total variation along the first axis
    w1: float  #: W₁ in the units of x
    w2: float  #: W₂ in the units of x
    far_mass: float  #: The share of samples that are nearer to the far mode than to the bulk
    far_mass_error: float  #: The difference of that share from the weight of the mode


def distances(
    x: Tensor, truth: GaussianMixture, *, slices: int = 8, generator: torch.Generator
) -> Distances:
    """Returns the distances of samples with shape (n, D) from a mixture.

    Cost: a sort and 60 evaluations of F at n points for each of the ``slices``.
    """
    axis = torch.eye(truth.size, dtype=truth.means.dtype)[0]
    points = x[:, 0].to(truth.means.dtype).contiguous()
    tv = total_variation(points, along(truth, axis))
    w1, w2 = sliced(x, truth, slices, generator)
    far = far_mass(x, truth)
    return Distances(tv, w1, w2, far, abs(far - float(truth.weights[1:].sum())))


def along(mixture: GaussianMixture, direction: Tensor) -> GaussianMixture:
    """Returns the distribution of x · v, for a direction v with shape (D,)."""
    covariances = mixture.covariances
    if mixture.full:
        variances = covariances @ direction @ direction
    else:
        variances = (covariances * direction.square()).sum(1)
    return GaussianMixture(mixture.weights, mixture.means @ direction[:, None], variances)


def cdf(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """Returns F(x) for a mixture on the line."""
    deviations = mixture.covariances[:, 0].sqrt()
    z = (x[..., None] - mixture.means[:, 0]) / deviations
    return torch.special.ndtr(z) @ mixture.weights


def inverse_cdf(mixture: GaussianMixture, u: Tensor) -> Tensor:
    """Returns F⁻¹(u) by bisection to the last digits, for 60 evaluations of F."""
    reach = 40 * mixture.covariances.max().sqrt()
    low = torch.full_like(u, float(mixture.means.min() - reach))
    high = torch.full_like(u, float(mixture.means.max() + reach))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_below = cdf(mixture, middle) < u
        low = torch.where(is_below, middle, low)
        high = torch.where(is_below, high, middle)
    return (low + high) / 2


def wasserstein(x: Tensor, truth: GaussianMixture) -> tuple[float, float]:
    """Returns W₁ and W₂ of samples with shape (n,) from a mixture on the line."""
    u = (torch.arange(len(x), dtype=truth.means.dtype) + 0.5) / len(x)
    gaps = x.to(u).sort().values - inverse_cdf(truth, u)
    return float(gaps.abs().mean()), float(gaps.square().mean().sqrt())


def sliced(
    x: Tensor, truth: GaussianMixture, slices: int, generator: torch.Generator
) -> tuple[float, float]:
    """Returns the mean of W₁ and the root of that of W₂² over directions; exact on a line."""
    x = x.to(truth.means.dtype)
    if truth.size == 1:
        return wasserstein(x[:, 0], truth)
    found = normal((slices, truth.size), truth.means, generator)
    directions = found / found.norm(dim=1, keepdim=True)
    pairs = torch.tensor([wasserstein(x @ v, along(truth, v)) for v in directions])
    return float(pairs[:, 0].mean()), float(pairs[:, 1].square().mean().sqrt())


def total_variation(x: Tensor, truth: GaussianMixture) -> float:
    """Returns that of a histogram of samples with shape (n,) from a mixture on the line."""
    width = float(BIN * truth.covariances[0, 0].sqrt())
    reach = 10 * truth.covariances.max().sqrt()
    low = float(truth.means.min() - reach)
    high = float(truth.means.max() + reach)
    edges = torch.arange(low, high + width, width, dtype=truth.means.dtype)
    counts = torch.bincount(torch.bucketize(x.to(edges), edges), minlength=len(edges) + 1)
    ends = torch.cat([edges.new_zeros(1), cdf(truth, edges), edges.new_ones(1)])
    return float(0.5 * (counts / len(x) - ends.diff()).abs().sum())


def far_mass(x: Tensor, truth: GaussianMixture) -> float:
    """Returns the share of samples whose nearest mean is not the first."""
    nearest = torch.cdist(x.to(truth.means.dtype), truth.means).argmin(1)
    return float((nearest > 0).double().mean())
