r"""Distances of samples from an exact mixture of Gaussians.

On the line, with the inverses of distribution functions F and :math:`F_n`,

.. math:: W_2^2 = \int_0^1 (F_n^{-1} - F^{-1})^2\, du,

at the midpoints of n equal parts of [0, 1]. In more dimensions, the projection of a mixture to a
direction is a mixture on the line. :math:`SW_2^2` is the mean of :math:`W_2^2` over random
directions.
"""

__all__ = ["along", "sliced", "wasserstein"]

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..quantiles import icdf
from ..randomness import normal


def along(mixture: GaussianMixture, direction: Tensor) -> GaussianMixture:
    """Returns the distribution of direction · x, for a direction of norm 1."""
    covariances = mixture.covariances
    if covariances.ndim == 3:
        variances = covariances @ direction @ direction
    else:
        variances = (covariances * direction.square()).sum(1)
    return GaussianMixture(mixture.weights, mixture.means @ direction[:, None], variances)


def wasserstein(x: Tensor, mixture: GaussianMixture) -> float:
    """Returns W₂ of samples with shape (n,) on the line."""
    u = (torch.arange(len(x), dtype=mixture.means.dtype) + 0.5) / len(x)
    gaps = x.to(u).sort().values - icdf(mixture, u)
    return float(gaps.square().mean().sqrt())


def sliced(x: Tensor, mixture: GaussianMixture, slices: int, generator: torch.Generator) -> float:
    """Returns the root of the mean W₂² over random directions."""
    x = x.to(mixture.means.dtype)
    directions = normal((slices, mixture.size), mixture.means, generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    distances = torch.tensor([wasserstein(x @ v, along(mixture, v)) for v in directions])
    return float(distances.square().mean().sqrt())
