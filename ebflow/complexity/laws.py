r"""How far samples are from an exact mixture of Gaussians.

On the line, with distribution functions F and :math:`F_n` and their inverses:

.. math:: W_1 = \int |F_n - F|\, dx = \int_0^1 |F_n^{-1} - F^{-1}|\, du, \qquad
    W_2^2 = \int_0^1 (F_n^{-1} - F^{-1})^2\, du,

by the midpoints of n equal parts of [0, 1]. The total variation is that of a histogram against
the exact masses of its bins, :math:`\tfrac12 \sum_b |n_b / n - P_b|`: of n true samples it is
about :math:`\sum_b \sqrt{P_b / (2 \pi n)}`, the floor.

In more dimensions a mixture's law along a direction is a mixture on the line: sliced distances
are means over random directions, :math:`SW_2^2` of :math:`W_2^2`.
"""

__all__ = ["Distances", "cdf", "distances", "far_mass", "inverse_cdf", "sliced", "total_variation",
           "wasserstein"]  # fmt: skip

from typing import NamedTuple

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal

BISECTIONS = 60
BIN = 0.5
"""Width of a bin, in deviations of the first component."""


class Distances(NamedTuple):
    """How far samples are from their target; sliced beyond the line.

    Attributes:
        tv: Total variation, along the first axis.
        w1: W₁ in the units of x.
        w2: W₂.
        far_mass: The samples' share that is nearer to the far mode than to the bulk.
        far_mass_error: How far that is from the mode's weight.
    """

    tv: float
    w1: float
    w2: float
    far_mass: float
    far_mass_error: float


def distances(
    x: Tensor, law: GaussianMixture, *, slices: int = 8, generator: torch.Generator
) -> Distances:
    """Returns the distances of samples with shape (n, D) from a mixture."""
    axis = torch.eye(law.size, dtype=law.means.dtype)[0]
    line, points = along(law, axis), x[:, 0].to(law.means.dtype).contiguous()
    transport, far = sliced(x, law, slices, generator), far_mass(x, law)
    error = abs(far - float(law.weights[1:].sum()))
    return Distances(total_variation(points, line), *transport, far, error)


def along(law: GaussianMixture, direction: Tensor) -> GaussianMixture:
    """Returns the law of direction · x, for a direction of norm 1."""
    covariances = law.covariances
    if covariances.ndim == 3:
        variances = covariances @ direction @ direction
    else:
        variances = (covariances * direction.square()).sum(1)
    return GaussianMixture(law.weights, law.means @ direction[:, None], variances)


def cdf(law: GaussianMixture, x: Tensor) -> Tensor:
    """Returns F(x), for a law on the line."""
    deviations = law.covariances[:, 0].sqrt()
    return torch.special.ndtr((x[..., None] - law.means[:, 0]) / deviations) @ law.weights


def inverse_cdf(law: GaussianMixture, u: Tensor) -> Tensor:
    """Returns F⁻¹(u) by bisection to the last digits; 60 evaluations of F."""
    reach = 40 * law.covariances.max().sqrt()
    low = torch.full_like(u, float(law.means.min() - reach))
    high = torch.full_like(u, float(law.means.max() + reach))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = cdf(law, middle) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def wasserstein(x: Tensor, law: GaussianMixture) -> tuple[float, float]:
    """Returns W₁ and W₂ of samples with shape (n,) on the line."""
    u = (torch.arange(len(x), dtype=law.means.dtype) + 0.5) / len(x)
    gaps = x.to(u).sort().values - inverse_cdf(law, u)
    return float(gaps.abs().mean()), float(gaps.square().mean().sqrt())


def sliced(
    x: Tensor, law: GaussianMixture, slices: int, generator: torch.Generator
) -> tuple[float, float]:
    """Returns the means of W₁, and of W₂² as its root, over random directions; exact on a line."""
    x = x.to(law.means.dtype)
    if law.size == 1:
        return wasserstein(x[:, 0], law)
    found = normal((slices, law.size), law.means, generator)
    directions = found / found.norm(dim=1, keepdim=True)
    pairs = torch.tensor([wasserstein(x @ v, along(law, v)) for v in directions])
    return float(pairs[:, 0].mean()), float(pairs[:, 1].square().mean().sqrt())


def total_variation(x: Tensor, law: GaussianMixture) -> float:
    """Returns that of a histogram of samples with shape (n,), from a law on the line."""
    width = BIN * law.covariances[0, 0].sqrt()
    reach = 10 * law.covariances.max().sqrt()
    low, high = float(law.means.min() - reach), float(law.means.max() + reach)
    edges = torch.arange(low, high + float(width), float(width), dtype=x.dtype)
    counts = torch.bincount(torch.bucketize(x, edges), minlength=len(edges) + 1)
    ends = torch.cat([edges.new_zeros(1), cdf(law, edges), edges.new_ones(1)])
    return float(0.5 * (counts / len(x) - ends.diff()).abs().sum())


def far_mass(x: Tensor, law: GaussianMixture) -> float:
    """Returns the share of samples whose nearest mean is not the first."""
    nearest = torch.cdist(x.to(law.means.dtype), law.means).argmin(1)
    return float((nearest > 0).double().mean())
