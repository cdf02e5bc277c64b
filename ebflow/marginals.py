r"""Treatment of the single columns of a table, fitted to training rows.

``fit`` treats every column in five steps: grids, levels or continuous; atoms; bounds; tails; the
origin. The page "How the columns of a table are treated" has their rules and thresholds.

Steps 3 and 4 use ``enough`` rows, at most 4,000, and steps 1 and 2 five times as many.

Source of the quantiles: The Johnson System: Selection and Parameter Estimation (Slifker, Shapiro,
1980), Technometrics 22.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from .bijections import Bijection, Bounded, Cells, ColumnCells, JohnsonSU
from .discrete import REPEATS, column_cells
from .errors import BadInput
from .randomness import generator as derive

ROWS, VALUES = 4_000, 2**20  # Most rows, and values in all, for bounds and tails
DETECTION = 5  # Times as many rows for cells
FEW_ROWS = 100  # Rows below which bounds and tails are not fitted: they would not gain
GAIN = 0.01  # Nats per row that a step must gain, on rows that were not used in the fit
OUTSIDE = 20.0  # Nats that a row beyond a fitted bound costs: about one of n new rows at each end

# Distance from a bound of the point whose tangent scores it, over that of both bounds, or of the
# median from the only one: any value outside then costs about 10 nats.
MARGIN = 1e-3
EPSILON = torch.finfo(torch.float32).eps
FAR = 1e3  # Distance of an end from the median, in spreads, from which on it is no bound
QUANTILES = 0.25, 0.5, 0.8  # z: S_U has the quantiles of −3 z, −z, z and 3 z of a normal variable
STRAIGHT = 1.02  # Least ratio of the products of quantiles' distances; at 1, S_U would be a line
TINY = torch.finfo(torch.float64).tiny

# Lower and upper bounds by the index of a column, None where there is none.
Bounds = Mapping[int, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Marginals:
    """The layers that treat the single columns."""

    layers: list[Bijection]  #: Cells, bounds and tails, those that are needed
    spec: dict[str, list[int]]  #: The arguments of ``build``: sizes by the names of the layers
    columns: Sequence[ColumnCells]  #: The cells of each column
    bounds: dict[int, tuple[float, float]]  #: The bounds in use, in raw units
    tails: list[int]  #: The columns whose tails change
    #: The rows of each level of columns whose cells are left as the codes of levels; other columns
    #: have none
    counts: list[list[int]]


def fit(
    x: Tensor,
    *,
    categories: Sequence[int] | None = None,
    grids: bool = True,
    tails: bool = True,
    exact: bool = False,
    bounds: Bounds | None = None,
    ends: tuple[Tensor, Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Marginals:
    """Fits the treatment of columns, in O(N D log N).

    Arguments that are not listed are those of ``preprocessing.fit``.

    Arguments:
        x: Rows with shape (N, D), in random order; the first ones are used.
        categories: The number K of levels of each column of categories, whose values are the
            codes 0 … K − 1; 0 for other columns. Categories are dequantized in any case.
        ends: The smallest and the largest values of all rows, (D,) each; None: those of ``x``.

    Raises:
        BadInput: if a value lies outside the bounds of its column.
    """
    rows, count = enough(x.shape[1]), len(x)
    x = x[: DETECTION * rows].double().cpu()
    extremes = torch.stack((x.amin(0), x.amax(0)) if ends is None else ends).double().cpu()
    codes = {k: (0, size - 1) for k, size in enumerate(categories or ()) if size}
    certain = codes | dict(bounds or {})
    known = _known(extremes, certain, names)
    columns = _columns(torch.cat([x, extremes]), codes, grids, exact)
    as_is = torch.tensor([column.exact for column in columns])
    cells = Cells(columns)
    cells.bound(*known)
    samples = _samples(x[:rows], cells, columns, seed)
    starts, stops = cells.cells(extremes)
    extent = torch.stack([starts[0], stops[1]])
    ends = _certain(cells, columns, samples[-1], extent, bounds or {}, tails)
    free, zero = ends.isinf(), _zero(cells, samples[-1], extent, tails)
    ends[0] = ends[0].maximum(zero)
    ends[:, as_is] = ends.new_tensor([[-torch.inf], [torch.inf]])
    binary = torch.tensor([column.is_binary for column in columns]) | as_is
    choice = torch.zeros_like(binary, dtype=torch.long)
    if tails and len(x) >= FEW_ROWS:
        free &= torch.tensor([k not in certain for k in range(len(columns))]) & ~binary
        ends, choice = _chosen(samples, _options(samples[-1], extent, ends, free), binary, count)
    raw = torch.where(known.isfinite(), known, ends - extent + extremes)
    raw[0] = cells.least.where(zero.isfinite() & (ends[0] == zero), raw[0])  # exactly 0
    moved, offset = _moved(columns, cells, raw)
    moved.bound(*known)
    ends -= offset
    samples = [y - offset for y in samples]
    layers, bounded = {"cells": moved}, ends.isfinite().any(0)
    if bounded.any():
        layers["bounds"] = _bounded(samples[-1], ends)
        samples = [layers["bounds"](y) for y in samples]
    if choice.any():
        layers["tails"] = johnson = _johnson(samples, choice)
        johnson.xi[as_is], johnson.lam[as_is] = 0.0, 1.0
    return Marginals(
        layers=list(layers.values()),
        spec={name: getattr(layer, "spec", []) for name, layer in layers.items()},
        columns=columns,
        bounds={k: tuple(pair) for k, pair in enumerate(raw.mT.tolist()) if bounded[k]},
        tails=choice.nonzero().flatten().tolist(),
        counts=_counts(x, moved, as_is),
    )


def build(spec: Mapping[str, list[int]], width: int) -> list[Bijection]:
    """Returns the layers of a ``Marginals.spec`` for D columns, to load a state into."""
    zeros, ones = torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
    layers: dict[str, Callable[..., Bijection]] = {
        "cells": partial(Cells.placeholder, width),
        "bounds": lambda: Bounded(-torch.inf * ones, torch.inf * ones, ones, ones),
        "tails": lambda: JohnsonSU(zeros, ones, zeros, ones),
    }
    return [layers[name](*sizes) for name, sizes in spec.items()]


def enough(width: int) -> int:
    """Returns the number of rows of D values that is enough to fit each column."""
    return max(2 * FEW_ROWS, min(ROWS, VALUES // width))


def gaussianized(y: Tensor) -> list[Bijection]:
    """Returns the map of directions with heavy or skewed tails to normal ones, or nothing.

    After whitening it is a step of Gaussianization (Chen and Gopinath, 2000). A direction changes
    if rows that were not used in the fit gain ``GAIN``. The rows (N, D) are in random order;
    ``enough(D)`` suffice.
    """
    y = y.double()
    infinity = torch.full_like(y[0], torch.inf)
    free = torch.stack([-infinity, infinity])
    _, choice = _chosen([y], [free], torch.zeros(y.shape[1], dtype=torch.bool), len(y))
    return [_johnson([y], choice)] if choice.any() else []


def _columns(
    x: Tensor, codes: Mapping[int, tuple[int, int]], examine: bool, exact: bool
) -> list[ColumnCells]:
    """Returns the cells of columns, those of categories with all their codes."""
    columns = []
    for k, values in enumerate(x.mT.numpy()):
        if k in codes:
            values = np.append(values, np.arange(codes[k][1] + 1))
        columns.append(column_cells(values, codes=k in codes, examine=examine, exact=exact))
    return columns


def _counts(x: Tensor, cells: Cells, as_is: Tensor) -> list[list[int]]:
    """Returns the rows of each level of some columns, and nothing for the others."""
    last = cells.cells(cells.most[None])[0][0]
    codes = cells.cells(x)[0].round().long()
    return [torch.bincount(codes[:, k], minlength=int(last[k]) + 1).tolist() if some else []
            for k, some in enumerate(as_is.tolist())]  # fmt: skip


def _moved(columns: Sequence[ColumnCells], cells: Cells, raw: Tensor) -> tuple[Cells, Tensor]:
    """Returns cells with bounds as the origins of continuous columns, and how far they move."""
    origin = raw[0].where(raw[0].isfinite(), raw[1]).tolist()
    moved = Cells([
        column if column.is_discrete or math.isinf(place) else replace(column, origin=place)
        for column, place in zip(columns, origin, strict=True)
    ])  # fmt: skip
    return moved, cells.cells(moved.origin[None])[0][0]


def _samples(x: Tensor, cells: Cells, columns: Sequence[ColumnCells], seed: int) -> list[Tensor]:
    """Returns dequantized rows, and, if there are atoms, rows without them.

    In the latter, each column repeats its other rows instead of those at atoms.
    """
    y = cells.dequantize(x, x, derive(seed, "marginals"))
    if not any(column.atoms for column in columns):
        return [y]
    others = y.clone()
    for k, column in enumerate(columns):
        other = ~np.isin(x[:, k].numpy(), column.atoms)
        if REPEATS <= other.sum() < len(y):
            others[:, k] = torch.from_numpy(np.resize(y[:, k].numpy()[other], len(y)))
    return [y, others]


def _known(extremes: Tensor, bounds: Bounds, names: Sequence[str] | None) -> Tensor:
    """Returns known lower and upper bounds, (2, D), infinite without one; checks the extremes."""
    known = torch.full_like(extremes, torch.inf) * extremes.new_tensor([[-1.0], [1.0]])
    for column, pair in bounds.items():
        for side, bound in enumerate(pair):
            known[side, column] = known[side, column] if bound is None else bound
    outside = (extremes[0] < known[0]) | (extremes[1] > known[1])
    if outside.any():
        k = int(outside.nonzero()[0])
        (first, last), (lower, upper) = extremes[:, k], known[:, k]
        raise BadInput(
            option="bounds",
            column=names[k] if names else k,
            found=f"values in [{first:.6g}, {last:.6g}]",
            expected=f"[{lower:.6g}, {upper:.6g}]",
        )
    return known


def _certain(
    cells: Cells,
    columns: Sequence[ColumnCells],
    y: Tensor,
    extent: Tensor,
    bounds: Bounds,
    tails: bool,
) -> Tensor:
    """Returns lower and upper bounds that are known or certain, with shape (2, D).

    Without ``tails`` they are those of ``bounds``.
    """
    ends = torch.stack([cells.low, cells.high])
    if tails:
        sure = torch.tensor([(False, False) if k in bounds else column.ends
                             for k, column in enumerate(columns)]).mT  # fmt: skip
        sure = sure & ((extent - y.median(0).values).abs() < FAR * _spread(y))
        return extent.where(sure, ends)
    known = torch.tensor([k in bounds for k in range(len(columns))])
    return ends.where(known, ends.new_tensor([[-torch.inf], [torch.inf]]))


def _zero(cells: Cells, y: Tensor, extent: Tensor, tails: bool) -> Tensor:
    """Returns the place of 0 below the rows of positive columns, else −∞."""
    zero = cells.cells(cells.least[None])[0][0]
    near = (zero < extent[0]) & (y.median(0).values - zero < FAR * _spread(y))
    return zero.where(near & tails, -torch.inf)


def _options(y: Tensor, extent: Tensor, ends: Tensor, free: Tensor) -> list[Tensor]:
    """Returns the bounds to choose from: those so far, then also ends of ``free`` columns.

    Of n rows one is beyond the others at each end: far beyond if the rows thin out. If single rows
    are very far from the others, so would a bound be. Its logarithm, in single precision, would
    not resolve the others.
    """
    width = extent[1] - extent[0]
    low, median, high = torch.quantile(y, y.new_tensor([0.01, 0.5, 0.99]), dim=0)
    dense = (extent - torch.stack([low, high])).abs() <= 0.02 * width
    beyond = 2 * width / len(y)
    near = (extent - median).abs() + beyond < FAR * _spread(y)
    candidates = dense & near & free
    if not candidates.any():
        return [ends]
    bounds = torch.stack([(extent[0] - beyond).maximum(ends[0]), extent[1] + beyond])
    sides = torch.tensor([[[True], [False]], [[False], [True]], [[True], [True]]])
    return [ends, *(bounds.where(candidates & side, ends) for side in sides)]


def _chosen(
    samples: Sequence[Tensor], options: Sequence[Tensor], straight: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Returns the bounds and the number of the tails, (D,), with the best held-out likelihood.

    ``count`` is the number of rows between the bounds.
    """
    scores = torch.stack([_held_out(samples, ends) for ends in options])
    ends = torch.tensor([0, 1, 1, 2])[: len(options), None, None]
    scores = scores - (GAIN + OUTSIDE / count) * ends
    scores[:, 1:] -= GAIN
    scores[:, 1:] = scores[:, 1:].where(~straight, -torch.inf)
    best = scores.where(scores.isfinite(), -torch.inf).flatten(0, 1).argmax(0)
    option, choice = best // scores.shape[1], best % scores.shape[1]
    return torch.stack(options)[option, :, torch.arange(len(option))].mT, choice


def _held_out(samples: Sequence[Tensor], ends: Tensor) -> Tensor:
    """Returns mean log-likelihoods of every second row with each choice of tails, (C, D)."""
    bounded = _bounded(samples[-1][::2], ends)
    slopes = bounded.derivatives(samples[0], 1)[0].log()
    y, *others = (bounded(rows) for rows in samples)
    scores = []
    for theta in _tails([rows[::2] for rows in (y, *others)]):
        johnson = JohnsonSU(*theta)
        z, log_slopes = johnson(y), slopes + johnson.derivatives(y, 1)[0].log()
        deviation, mean = torch.std_mean(z[::2], 0, correction=0)
        log_p = log_slopes - 0.5 * ((z - mean) / deviation).square() - deviation.log()
        scores.append(log_p[1::2].mean(0))
    return torch.stack(scores)


def _bounded(y: Tensor, ends: Tensor) -> Bounded:
    """Returns the map of columns with bounds, with the median's distance from one as its scale."""
    median = y.median(0).values
    distance = torch.minimum(median - ends[0], ends[1] - median)
    scale = distance.where(distance > 0, y.std(0)).clamp(min=TINY).where(distance.isfinite(), 1.0)
    size, length = ends.abs().where(ends.isfinite(), 0.0).amax(0), ends[1] - ends[0]
    margin = (MARGIN * length.where(length.isfinite(), scale)).maximum(4 * EPSILON * size)
    return Bounded(*ends, margin, scale)


def _tails(samples: Sequence[Tensor]) -> list[Tensor]:
    """Returns choices of ξ, λ, γ and δ of columns, (4, D): a line, then S_U by quantiles."""
    y = samples[-1]
    spread, deviation = _spread(y), y.std(0)
    scale = torch.where(spread > 0, spread, torch.where(deviation > 0, deviation, 1.0))
    line = torch.stack([y.median(0).values, scale, *torch.zeros(2, len(scale)).double()])
    fitted = [_by_quantiles(rows, z) for rows in samples for z in QUANTILES]
    sound = [theta.isfinite().all(0) & (theta[[1, 3]] > 0).all(0) for theta in fitted]
    return [line, *(torch.where(*pair, line) for pair in zip(sound, fitted, strict=True))]


def _by_quantiles(y: Tensor, z: float) -> Tensor:
    """Returns ξ, λ, γ and δ of the S_U through quantiles of −3 z, −z, z and 3 z, (4, D)."""
    shares = [NormalDist().cdf(k * z) for k in (-3, -1, 1, 3)]
    q = torch.quantile(y, y.new_tensor(shares), dim=0)
    n, p, m = q.diff(dim=0)
    m, n = m / p, n / p
    straight = (STRAIGHT / (m * n)).clamp(min=1).sqrt()
    m, n = m * straight, n * straight
    total, root = m + n, (m * n - 1).sqrt()
    delta = 2 * z / torch.acosh(total / 2)
    gamma = delta * torch.asinh((n - m) / (2 * root))
    lam = 2 * p * root / ((total - 2) * (total + 2).sqrt())
    xi = (q[1] + q[2]) / 2 + p * (n - m) / (2 * (total - 2))
    return torch.stack([xi, lam, gamma, delta])


def _johnson(samples: Sequence[Tensor], choice: Tensor) -> JohnsonSU:
    """Returns the map with the chosen tails, fitted to all rows."""
    thetas = torch.stack(_tails(samples))
    return JohnsonSU(*thetas[choice, :, torch.arange(len(choice))].mT)


def _spread(y: Tensor) -> Tensor:
    """Returns the quartiles' distance over 1.349: the standard deviation of a normal column."""
    first, third = torch.quantile(y, y.new_tensor([0.25, 0.75]), dim=0)
    return (third - first) / 1.349
