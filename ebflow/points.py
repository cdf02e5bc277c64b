r"""Points that stand for rows: in the cells of observed values, and instead of missing ones.

A row y has observed elements o, in cells C of grids or as exact values, and missing elements m.
With M samples of the mixture of Gaussians q of ``Target`` and u uniform in C,

.. math:: p(y_o) \approx \frac1M \sum_k \frac{p(y_o^{(k)}, y_m^{(k)})}{q(y_m^{(k)} \mid y_o)}.

The random numbers of a row are a hash of its values, so they do not depend on other rows.
"""

__all__ = ["TINY", "Points", "completed", "ends_of_bounds", "impossible", "log_density", "outside",
           "points", "uniform"]  # fmt: skip

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .bijections import Cells
from .conditioning import Conditional
from .randomness import ContentGenerator
from .target import Target

TINY = 1e-12
"""Smallest uniform number that becomes a normal one."""


@dataclass(frozen=True)
class Points:
    """M points for each of R rows, in the coordinates of a ``Target``.

    Attributes:
        z: The points, with shape (R, M, D).
        log_weights: The logarithms of their weights, with shape (R, M): log-slopes of observed
            elements minus log q of missing ones.
        x: The raw row, missing elements filled in, with shape (R, D).
        start, end: The ends of the cells of the row's values, (R, D) each; equal without a cell.
        log_slopes: The logarithms of dz/dx at values without a cell, with shape (R, D).
        unknown: True for missing elements, with shape (R, D).
        context: The contexts of the rows, with shape (R, C), or None.
    """

    z: Tensor
    log_weights: Tensor
    x: Tensor
    start: Tensor
    end: Tensor
    log_slopes: Tensor
    unknown: Tensor
    context: Tensor | None

    @property
    def own(self) -> Tensor:
        """The first point, with shape (R, D)."""
        return self.z[:, 0]

    def __getitem__(self, rows: Tensor) -> "Points":
        return Points(*(t if t is None else t[rows] for t in vars(self).values()))


def points(
    target: Target,
    x: Tensor,
    unknown: Tensor,
    context: Tensor | None,
    count: int,
    *,
    refresh: bool,
) -> Points:
    """Returns points for raw rows with shape (R, D); missing elements are those of the first.

    Arguments:
        target: The flow in coordinates.
        x: The rows; missing elements may have any value.
        unknown: True where an element is missing.
        context: The contexts of the rows, with shape (R, C); None for a flow without.
        count: The number M of points of each row.
        refresh: True for other noise on observed elements at each point.
    """
    flow, cells = target.preprocessing, target.preprocessing.dequantizer
    x = torch.where(unknown, target.samples[0].to(x), x)
    start, end = (x, x) if cells is None else cells.cells(x.double())
    start, end = (target.transform(t.to(flow.device, flow.dtype))[0] for t in (start, end))
    placed = [_placed(target, cells, x, k) for k in range(count if refresh else 1)]
    z, slopes = (
        torch.stack(parts, 1).expand(-1, count, -1) for parts in zip(*placed, strict=True)
    )
    slopes = torch.where(unknown[:, None], 0.0, slopes)
    return Points(z, slopes.sum(2), x, start, end, slopes[:, 0], unknown, context)


def completed(target: Target, at: Points, without: int | None = None) -> Points:
    """Returns points whose missing elements are samples of the mixture given the observed ones.

    Arguments:
        target: The flow in coordinates.
        at: The points.
        without: A column that the samples do not depend on.
    """
    if not bool(at.unknown.any()):
        return at
    given = target.condition(at.own, at.unknown, at.context, without)
    columns = [k for k in range(at.z.shape[2]) if k != without]
    u, v = (uniform(at, seed) for seed in (1, 2))
    normal = torch.special.ndtri(v[..., columns].clamp(TINY, 1 - TINY))
    found = given.completions(u[:, None, :, 0], normal[:, None])[:, 0]
    other = at.z.clone()
    other[..., columns] = torch.where(
        at.unknown[:, None, columns], found.to(other), other[..., columns]
    )
    log_q = log_density(given, found)
    return replace(at, z=other, log_weights=at.log_weights - log_q.to(other))


def log_density(given: Conditional, z: Tensor) -> Tensor:
    """Returns log-densities (R, M) of the missing elements of points (R, M, D)."""
    missing = given.missing.sum(1, keepdim=True)
    return given.log_prob(z) - 0.5 * missing * math.log(2 * math.pi)


def uniform(at: Points, seed: int) -> Tensor:
    """Returns numbers in [0, 1) with the shape of the points, (R, M, D), in float64."""
    like, count = at.z.double(), at.z.shape[1]
    return torch.stack([ContentGenerator(seed, k).uniform(at.x, like) for k in range(count)], 1)


def ends_of_bounds(target: Target) -> Tensor:
    """Returns the ends of known bounds in coordinates, (2, D), infinite without one."""
    cells = target.preprocessing.dequantizer
    infinite = torch.full_like(target.z[0], torch.inf).double()
    if cells is None:
        return torch.stack([-infinite, infinite])
    ends = torch.stack([cells.low, cells.high])
    z = target.transform(torch.where(ends.isfinite(), ends, 0.0).to(target.z))[0].double()
    return torch.where(ends.isfinite(), z, ends)


def outside(target: Target, at: Points) -> Tensor:
    """Returns True for points whose missing elements are impossible, with shape (R, M).

    They are outside known bounds, or beyond the levels of exact probabilities.
    """
    low, high = ends_of_bounds(target).to(at.z)
    beyond = (at.z < low) | (at.z > high)
    for column, size in target.categories.items():
        beyond[..., column] |= (at.z[..., column] < 0) | (at.z[..., column] >= size)
    return (beyond & at.unknown[:, None]).any(2)


def impossible(target: Target, at: Points) -> Tensor:
    """Returns True for rows with an observed value outside known bounds, with shape (R,)."""
    cells = target.preprocessing.dequantizer
    if cells is None:
        return at.unknown.new_zeros(len(at.unknown))
    return (cells.outside(target.preprocessing.dequantize(at.x)) & ~at.unknown).any(1)


def _placed(target: Target, cells: Cells | None, x: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Returns rows with dequantization noise in coordinates, and log dz/dx, (R, D) each."""
    y = target.preprocessing.dequantize(x, generator=ContentGenerator(0, number))
    z, slopes = target.transform(y)
    return z, slopes if cells is None else slopes + cells.column_slopes(y)
