r"""Exact densities of toy distributions in the plane, with and without noise of N(0, σ² I).

Without noise, ``CLEAN`` has log-densities. Those of the sine and the checkerboard are one term. A
swirl's is a sum over the parts of the arm at which a uniform square contains the point.

Given the uniform variables of its formula (:mod:`ebflow.toy`), a sample with noise is Gaussian.
The integral over these variables, by Gauss-Legendre's rule, is therefore a mixture of Gaussians.
Its likelihood and its score are closed forms. Nodes of the rule are at most about σ apart, so
that its error is negligible where the density lies. Far beyond, the tail is that of the outermost
nodes.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, trains all its objectives on such rows with σ = 0.375.
"""

import math
from collections.abc import Callable

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


def sine_log_prob(x: Tensor) -> Tensor:
    """Returns log p of ``sine`` in nats, for points (n, 2), with shape (n,)."""
    a = x[:, 0] / 4
    across = -0.5 * (x[:, 1] - wave(a)).square() - 0.5 * math.log(2 * math.pi)
    return torch.where(a.abs() <= 2, across - math.log(16), -math.inf)


def checkerboard_log_prob(x: Tensor) -> Tensor:
    """Returns log p of ``checkerboard`` in nats, for points (n, 2), with shape (n,)."""
    cells = (x / SIDE).floor()
    inside = ((cells >= -2) & (cells <= 1)).all(1) & (cells.sum(1) % 2 == 0)
    level = -math.log(8 * SIDE**2)
    return torch.where(inside, level, -math.inf).to(x.dtype)


def swirl_log_prob(x: Tensor) -> Tensor:
    """Returns log p of ``swirl`` in nats, for points (n, 2), with shape (n,), in float64.

    Given t, a point 6/5 x is uniform on a square of side 1/2, with t cos t and t sin t between two
    numbers each. The density is 4 (6/5)² times the probability of those t, whose ends are roots.
    """
    y = 1.2 * x.double()
    right, up = y[:, 0] - 1, 1.5 - y[:, 1]  # the least of t cos t and t sin t
    ends = [y.new_zeros(1, len(y)), y.new_full((1, len(y)), TURNS)]
    for curve, low in ((_along, right), (_above, up)):
        ends += [_roots(curve, low), _roots(curve, low + 0.5)]
    times = torch.cat(ends).sort(0).values
    middle = 0.5 * (times[1:] + times[:-1])
    inside = torch.ones_like(middle, dtype=torch.bool)
    for curve, low in ((_along, right), (_above, up)):
        inside &= (curve(middle) >= low) & (curve(middle) <= low + 0.5)
    share = (times[1:].square() - times[:-1].square()) / TURNS**2
    return (4 * 1.2**2 * (share * inside).sum(0)).log()


TURNS = 3 * math.pi  # The last t of a swirl

CLEAN = {
    "sine": sine_log_prob,
    "swirl": swirl_log_prob,
    "checkerboard": checkerboard_log_prob,
}


def _along(t: Tensor) -> Tensor:
    return t * t.cos()


def _above(t: Tensor) -> Tensor:
    return t * t.sin()


# The slope of each curve, and where the first of its extremes may lie, half a π wide.
SLOPES = {
    _along: (lambda t: t.cos() - t * t.sin(), 0.0),
    _above: (lambda t: t.sin() + t * t.cos(), math.pi / 2),
}


def _roots(curve: Callable[[Tensor], Tensor], level: Tensor) -> Tensor:
    """Returns the t at which a curve of the swirl has a level, of shape (4, n); 0 for no root.

    The curve is monotone between its three extremes.
    """
    slope, first = SLOPES[curve]
    low = first + math.pi * torch.arange(3, dtype=torch.float64)
    extremes = _bisected(slope, low, low + math.pi / 2)
    knots = torch.cat([level.new_zeros(1), extremes, level.new_full((1,), TURNS)])[:, None]
    start, stop = (part.expand(-1, len(level)) for part in (knots[:-1], knots[1:]))
    crossed = (curve(start) - level) * (curve(stop) - level) <= 0
    return torch.where(crossed, _bisected(lambda t: curve(t) - level, start, stop), 0.0)


def _bisected(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Returns zeros of a function that changes its sign between two ends, to the last digits."""
    sign = f(low).sign()
    for _ in range(60):
        middle = 0.5 * (low + high)
        before = f(middle).sign() == sign
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    return 0.5 * (low + high)


def _rule(low: float, high: float, deviations: float) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights of Gauss-Legendre's rule for a path of so many σ, in float64."""
    nodes, weights = np.polynomial.legendre.leggauss(4 + math.ceil(1.6 * deviations))
    middle, half = (low + high) / 2, (high - low) / 2
    return torch.from_numpy(middle + half * nodes), torch.from_numpy(weights)
