r"""Finite classes of scores, and empirical risk minimization over them.

.. math:: \hat h = \arg\min_{h \in H} \frac1m \sum_{i \le m} \|h(x_i) - y_i\|^2,
    \qquad x_i = x_{0,i} + \sigma z_i, \quad y_i = -z_i / \sigma,

with one noise vector per sample. Samples are nested: the cumulative losses of the largest sample
serve every m. If no sample distinguishes two scores, their losses are equal to the last digit, and
the tie is broken at random.
"""

__all__ = ["FAR", "cumulative_losses", "erm", "far_class", "shift_losses", "shifts"]

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import normal, uniform
from .instances import Instance, Score

FAR = (0.0, 2.0, -2.0, 1.0, -1.0)
"""Places of the far mode in the hypotheses of ``far_class``, in units of R; 0: no far mode.

All but the true one cost √η R σ/V, which is 2 ε at the worst η, and samples of the bulk do not
distinguish them. A mode half-way to R would cost half of that, which is the required ε itself, so
the test could not decide.
"""

GRID = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
"""Places of their bulk."""


@torch.no_grad()
def cumulative_losses(
    hypotheses: Sequence[Score], x: Tensor, y: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Returns the sums of losses over the first m samples, with shape (T, sizes, H).

    Arguments:
        hypotheses: The class.
        x: Noisy samples with shape (T, N, D), of T trials.
        y: Their labels, with the same shape.
        sizes: The m, increasing, at most N.
    """
    last = torch.as_tensor(sizes) - 1
    flat, target = x.flatten(0, 1), y.flatten(0, 1)
    columns = []
    for hypothesis in hypotheses:
        losses = (hypothesis(flat) - target).square().sum(-1)
        columns.append(losses.view(x.shape[:2]).cumsum(1)[:, last])
    return torch.stack(columns, -1)


def erm(losses: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns the index of the least loss along the last dimension; ties are broken at random."""
    tickets = 1 + uniform(losses.shape, losses, generator)
    return ((losses == losses.amin(-1, keepdim=True)) * tickets).argmax(-1)


def far_class(truth: Instance, *, generator: torch.Generator) -> list[GaussianMixture]:
    """Returns 45 mixtures, one of which is the smoothed truth: bulks × places of the far mode.

    The bulk is shifted by ``GRID``, each time along a random direction. The far mode has its true
    weight and a place of ``FAR``, or is left out.

    Arguments:
        truth: A bulk with a far mode.
        generator: Source of the directions.
    """
    smooth = truth.smoothed
    directions = shifts(len(GRID), smooth.size, 1.0, generator=generator, like=smooth.means)
    if smooth.size == 1:
        directions = directions.abs()
    bulks = torch.tensor(GRID).to(directions)[:, None] * directions
    return [_hypothesis(smooth, bulk, place) for bulk, place in product(bulks, FAR)]


def _hypothesis(smooth: GaussianMixture, bulk: Tensor, place: float) -> GaussianMixture:
    if place == 0:
        return GaussianMixture(smooth.weights[:1], bulk[None], smooth.covariances[:1])
    means = torch.stack([bulk, place * smooth.means[1]])
    return GaussianMixture(smooth.weights, means, smooth.covariances)


def shifts(
    count: int, size: int, radius: float, *, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Returns random vectors of norm ``radius`` with shape (count, size), dtype as of ``like``."""
    vectors = normal((count, size), like, generator)
    return radius * vectors / vectors.norm(dim=1, keepdim=True)


def shift_losses(moved: Tensor, x: Tensor, y: Tensor, sizes: Sequence[int]) -> Tensor:
    r"""Returns the excess losses of shifts of N(0, I), with shape (T, sizes, H).

    The loss of :math:`\mu - x` less that of :math:`-x` is :math:`\|\mu\|^2 - 2 \mu \cdot (x +
    y)`, linear in the sample: O(N D) for the sums, then O(D) per hypothesis and m, so classes may
    be large.

    Arguments:
        moved: μ with shape (H, D).
        x: Noisy samples with shape (T, N, D).
        y: Their labels, with the same shape.
        sizes: The m, increasing, at most N.
    """
    m = torch.as_tensor(sizes)
    sums = (x + y).cumsum(1)[:, m - 1]
    return m[:, None] * moved.square().sum(1) - 2 * sums @ moved.mT
