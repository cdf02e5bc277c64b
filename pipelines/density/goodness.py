r"""Goodness of fit: differences between samples and data, and between latents and N(0, I).

Of two samples, of n and m rows:

* a column by the Kolmogorov-Smirnov distance, :math:`\sup_t |F_x(t) - F_y(t)|`;
* a pair of columns by what it shows and neither column does: on the grid of both columns'
  pooled quartiles, the total variation distance of the joint histograms less the larger one of
  the two columns';
* whole rows by the energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`, in columns divided
  by their pooled deviations.

Each is computed again for ``PERMUTATIONS`` random partitions of the pooled rows into n and m,
which are as likely as the true one if both samples have one distribution. The largest of K columns
or pairs is compared with the largest of K. That needs no assumption, with or without ties.

Where latents are to be N(0, I), the probability integral transform of a row is
:math:`F_{\chi^2_D}(\|u\|^2)`, uniform on (0, 1) for a true flow: near 1 are rows that lie further
out than the flow thinks.

Sources: Energy statistics: A class of statistics based on distances (Székely, Rizzo, 2013),
Journal of Statistical Planning and Inference 143; Testing Statistical Hypotheses (Lehmann, Romano,
2005), chapter 15, for permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

PERMUTATIONS = 99
LEVEL = 0.95
CELLS = 4
"""Of a column in the histograms of pairs."""


@dataclass(frozen=True)
class Difference:
    """Distances, and what the largest of them would be by chance.

    Attributes:
        values: The distances.
        bound: What the largest stays below with probability 0.95 if there is no difference.
        p_value: The probability that it reaches what was found.
    """

    values: Tensor
    bound: float
    p_value: float

    @property
    def largest(self) -> float:
        """The largest distance."""
        return float(self.values.max())


Distances = Callable[[Tensor, Tensor], Tensor]
"""Of pooled rows with shape (n + m, D) and P partitions, which are a first sample, (P, n + m):
returns the distances of each, with shape (P, …)."""


def compared(distances: Distances, x: Tensor, y: Tensor, generator: torch.Generator) -> Difference:
    """Compares two samples, and partitions of them.

    Arguments:
        distances: ``columns``, ``pairs`` or ``rows``.
        x: A sample with shape (n, D).
        y: Another with shape (m, D).
        generator: Where the permutations come from.
    """
    pooled = torch.cat([x, y]).double()
    true = torch.arange(len(pooled)) < len(x)
    orders = (torch.randperm(len(pooled), generator=generator) for _ in range(PERMUTATIONS))
    values = distances(pooled, torch.stack([true, *(true[order] for order in orders)]))
    largest = values.flatten(1).amax(1)
    p_value = (largest >= largest[0]).double().mean()
    return Difference(values[0], float(largest[1:].quantile(LEVEL)), float(p_value))


def columns(pooled: Tensor, first: Tensor) -> Tensor:
    """Returns the distances of columns, with shape (P, D). O(P D (n + m))."""
    return torch.stack([_kolmogorov(column, first) for column in pooled.mT], 1)


def pairs(pooled: Tensor, first: Tensor) -> Tensor:
    """Returns those of pairs of columns beyond the columns, with shape (P, D, D), 0 of one alone.

    One product of O(D² n) for each partition.
    """
    hot = F.one_hot(_cells(pooled), CELLS).flatten(1).float()
    total = hot.mT @ hot
    return torch.stack([_excess(hot[one], total, one) for one in first])


def rows(pooled: Tensor, first: Tensor) -> Tensor:
    """Returns that of whole rows, with shape (P, 1). O((n + m)² (D + P))."""
    scaled = pooled / pooled.std(0).clamp_min(torch.finfo(pooled.dtype).tiny)
    signs = _shares(first).to(scaled)
    return -((signs @ torch.cdist(scaled, scaled)) * signs).sum(1, keepdim=True)


def radii(u: Tensor) -> Tensor:
    """Returns F(‖u‖²) of latents (N, *latent), with shape (N,); F: χ² with D degrees."""
    squares = u.flatten(1).double().square()
    return torch.from_numpy(stats.chi2(squares.shape[1]).cdf(squares.sum(1).numpy()))


def uniform(values: Tensor) -> Difference:
    """Returns the Kolmogorov-Smirnov distance of numbers with shape (N,) from U(0, 1)."""
    found = stats.ks_1samp(values.double().numpy(), stats.uniform.cdf)
    bound = stats.kstwo.ppf(LEVEL, len(values))
    return Difference(torch.tensor([found.statistic]), float(bound), float(found.pvalue))


def _shares(first: Tensor) -> Tensor:
    """Returns 1/n of the rows of the first sample, −1/m of the others, (P, n + m)."""
    n = first[0].sum()
    return first / n - (~first) / (first.shape[1] - n)


def _kolmogorov(column: Tensor, first: Tensor) -> Tensor:
    """Returns the distance of each partition, with shape (P,)."""
    values, order = column.sort()
    last = torch.cat([values[1:] > values[:-1], torch.tensor([True])])  # of equal values
    return _shares(first)[:, order].cumsum(1)[:, last].abs().amax(1)


def _cells(pooled: Tensor) -> Tensor:
    """Returns the quarter of its column that the middle rank of each value is in."""
    columns = pooled.mT.contiguous()
    ordered = columns.sort().values
    ends = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    return (sum(ends) * CELLS // (2 * len(pooled))).clamp_max(CELLS - 1).mT


def _excess(hot: Tensor, total: Tensor, first: Tensor) -> Tensor:
    """Returns what pairs of columns differ by beyond the columns, with shape (D, D).

    Arguments:
        hot: The cells of the first sample's rows, one of ``CELLS`` ones a column.
        total: The joint histograms of all rows, (D · CELLS, D · CELLS).
        first: Which rows are the first sample's.
    """
    n, own = len(hot), hot.mT @ hot
    apart = (own / n - (total - own) / (len(first) - n)).abs()
    joint = 0.5 * apart.unflatten(0, (-1, CELLS)).unflatten(2, (-1, CELLS)).sum((1, 3))
    alone = joint.diagonal()
    return joint - torch.maximum(alone[:, None], alone)
