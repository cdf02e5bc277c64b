r"""Exact densities of toy distributions in the plane, smoothed by noise of N(0, σ² I).

Given the uniform variables of its formula (:mod:`ebflow.toy`), a sample with noise is Gaussian.
The integral over these variables, by Gauss-Legendre's rule, is therefore a mixture of Gaussians.
Its likelihood and its score are closed forms. Nodes of the rule are at most about σ apart, so
that its error is negligible where the density lies. Far beyond, the tail is that of the outermost
nodes.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, trains all its objectives on such rows with σ = 0.375.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .bases import GaussianMixture
from .toy import SIDE, arm, wave


def smoothed_sine(sigma: float) -> GaussianMixture:
    """Returns the density of ``sine`` with noise σ: variances σ² and σ² + 1 along the wave."""
    a, weights = _rule(-2, 2, 24 / sigma)
    means = torch.stack([4 * a, wave(a)], 1)
    variances = torch.tensor([sigma**2, sigma**2 + 1], dtype=a.dtype)
    return GaussianMixture(weights, means, variances.expand(len(a), 2))


def smoothed_swirl(sigma: float) -> GaussianMixture:
    """Returns the density of ``swirl`` with noise σ; 7,848 components at σ = 3/8."""
    t, along = _rule(0, 3 * math.pi, 50 / sigma)
    u, across = _rule(0, 1, 5 / 12 / sigma)
    indices = torch.arange(len(t)), torch.arange(len(u)), torch.arange(len(u))
    i, j, k = torch.cartesian_prod(*indices).unbind(1)
    weights = t[i] * along[i] * across[j] * across[k]
    return parzen(arm(t[i], u[j], u[k]), sigma, weights=weights)


def smoothed_checkerboard(sigma: float) -> GaussianMixture:
    """Returns the density of ``checkerboard`` with noise σ; 2,312 components at σ = 3/8."""
    nodes, weights = _rule(0, SIDE, SIDE / sigma)
    cells = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    corners = SIDE * torch.tensor(cells, dtype=nodes.dtype)
    inner = torch.cartesian_prod(nodes, nodes)
    points = (corners[:, None] + inner).flatten(0, 1)
    of_square = torch.cartesian_prod(weights, weights).prod(1)
    return parzen(points, sigma, weights=of_square.repeat(len(cells)))


def parzen(points: Tensor, sigma: float, *, weights: Tensor | None = None) -> GaussianMixture:
    """Returns Gaussians of standard deviation σ on points.

    An estimate from samples of the distribution must not be evaluated at the same samples: the
    kernel on a point itself would make its density too high.

    Arguments:
        points: The means, with shape (K, D).
        sigma: The standard deviation of every Gaussian.
        weights: Positive weights with shape (K,); None: equal ones.
    """
    weights = points.new_ones(len(points)) if weights is None else weights
    return GaussianMixture(weights, points, points.new_full((len(points),), sigma**2))


SMOOTHED = {
    "sine": smoothed_sine,
    "swirl": smoothed_swirl,
    "checkerboard": smoothed_checkerboard,
}


def smoothed(name: str, covariance: Tensor) -> GaussianMixture:
    """Returns the density of a toy distribution with noise of N(0, Σ).

    The number of components grows as the smallest standard deviation of the noise falls.

    Arguments:
        name: A name in ``SMOOTHED``.
        covariance: Σ, with shape (2, 2).

    Raises:
        ValueError: if Σ is not positive definite.
    """
    covariance = covariance.double()
    variance = float(torch.linalg.eigvalsh(covariance)[0])
    if not variance > 0:
        found = covariance.tolist()
        raise ValueError(f"covariance: found {found}, expected a positive definite matrix")
    mixture = SMOOTHED[name](math.sqrt(variance))
    further = covariance - variance * torch.eye(2, dtype=torch.float64)
    if not further.abs().max() > 1e-12 * variance:
        return mixture
    own = mixture.covariances.expand(-1, 2).diag_embed()
    return GaussianMixture(mixture.weights, mixture.means, own + further)


def _rule(low: float, high: float, deviations: float) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights of Gauss-Legendre's rule for a path of so many σ, in float64."""
    nodes, weights = np.polynomial.legendre.leggauss(4 + math.ceil(1.6 * deviations))
    middle, half = (low + high) / 2, (high - low) / 2
    return torch.from_numpy(middle + half * nodes), torch.from_numpy(weights)
