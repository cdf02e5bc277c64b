r"""Finite classes of scores, and empirical risk minimization over them.

.. math:: \hat h = \arg\min_{h \in H} \frac1m \sum_{i \le m} \|h(x_i) - y_i\|^2,
    \qquad x_i = x_{0,i} + \sigma z_i, \quad y_i = -z_i / \sigma,

with one draw of the noise a sample. Samples are nested: one draw of the largest m serves every m
by its cumulative losses. Where no sample tells two scores apart their losses are equal to the
last digit, so that ties are broken at random.
"""

__all__ = ["FAR", "cumulative_losses", "erm", "far_class", "separation", "shift_losses", "shifts"]

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal, uniform
from .instances import Instance, Score

FAR = (0.0, 2.0, -2.0, 1.0, -1.0)
"""Where a hypothesis of ``far_class`` has its far mode, in units of R; 0: it has none.

All but the true one cost √η R σ/V, which is 2 ε at the worst η, and bulk samples tell none of
them from another. Half-way to R a mode would cost half of that, just the ε that is to be reached:
nothing would be decided.
"""

GRID = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
"""Where it has its bulk, in units of √V."""


@torch.no_grad()
def cumulative_losses(
    hypotheses: Sequence[Score], x: Tensor, y: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Returns the sums of losses over the first m samples, with shape (T, sizes, H).

    Arguments:
        hypotheses: The class.
        x: Noisy samples with shape (T, N, D), of T trials.
        y: Their labels, of that shape.
        sizes: The m, rising, N at most.
    """
    last = torch.as_tensor(sizes) - 1
    flat, target = x.flatten(0, 1), y.flatten(0, 1)
    columns = []
    for hypothesis in hypotheses:
        losses = (hypothesis.score(flat) - target).square().sum(-1)
        columns.append(losses.view(x.shape[:2]).cumsum(1)[:, last])
    return torch.stack(columns, -1)


def erm(losses: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns the index of the least loss along the last dimension; of equal ones, a random."""
    lots = 1 + uniform(losses.shape, losses, generator)
    return ((losses == losses.amin(-1, keepdim=True)) * lots).argmax(-1)


def far_class(truth: Instance, *, generator: torch.Generator) -> list[GaussianMixture]:
    """Returns 45 laws of which one is the smoothed truth: bulks × places of the far mode.

    The bulk is shifted by ``GRID`` along a random direction for each shift, which on the line is
    the line; the far mode of the known weight stands at ``FAR``, or there is none.

    Arguments:
        truth: A bulk with a far mode.
        generator: Where the directions come from.
    """
    smooth = truth.smoothed
    width = float(smooth.covariances[0, 0]) ** 0.5
    moved = shifts(len(GRID), smooth.size, 1.0, generator=generator, like=smooth.means)
    moved = moved.abs() if smooth.size == 1 else moved
    bulks = width * torch.tensor(GRID, dtype=smooth.means.dtype)[:, None] * moved
    return [_law(smooth, bulk, place) for bulk, place in product(bulks, FAR)]


def _law(smooth: GaussianMixture, bulk: Tensor, place: float) -> GaussianMixture:
    if place == 0:
        return GaussianMixture(smooth.weights[:1], bulk[None], smooth.covariances[:1])
    means = torch.stack([bulk, place * smooth.means[1]])
    return GaussianMixture(smooth.weights, means, smooth.covariances)


def shifts(
    count: int, size: int, radius: float, *, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Returns random vectors of norm ``radius`` with shape (count, size), dtype as of ``like``."""
    found = normal((count, size), like, generator)
    return radius * found / found.norm(dim=1, keepdim=True)


def shift_losses(
    moved: Tensor, variance: float, x: Tensor, y: Tensor, sizes: Sequence[int]
) -> Tensor:
    r"""Returns the excess losses of shifted Gaussians, with shape (T, sizes, H).

    The loss of :math:`(\mu - x)/V` over that of :math:`-x/V` is :math:`\|\mu\|^2/V^2 - 2 \mu
    \cdot (x + V y)/V^2`, linear in the sample: O(N D) for its sums and O(D) a hypothesis for
    each m, so that classes may be large.

    Arguments:
        moved: μ with shape (H, D).
        variance: V.
        x: Noisy samples with shape (T, N, D).
        y: Their labels, of that shape.
        sizes: The m, rising, N at most.
    """
    m = torch.as_tensor(sizes)
    sums = (x + variance * y).cumsum(1)[:, m - 1]
    square = moved.square().sum(1)
    return (m[:, None] * square - 2 * sums @ moved.mT) / variance**2


def separation(epsilon: float, variance: float, sigma: float) -> float:
    """Returns ‖μ‖ = 2 ε V/σ, the shift whose score is off by 2 ε/σ everywhere."""
    return 2 * epsilon * variance / sigma
