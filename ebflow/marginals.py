r"""Treatment of the single columns of a table, fitted to training rows.

``fit`` treats every column in this order:

1. **Discrete or continuous**, in ``ebflow.discrete``. A value is *heavy* if it has ``ATOM`` (1 %)
   of the rows, and at least ``REPEATS`` (5).

   * All values are whole numbers: a **grid**. Its step is the greatest common divisor of their
     differences.
   * All values have up to ``DECIMALS`` (6) decimal places: a **grid**, if at least one in
     ``SPARSE`` (10) of its points occurs.
   * There are at most ``LEVELS`` (1000) values, and those that are not heavy have 5 rows each on
     average: **levels**, with cells between neighbours.
   * Otherwise the column is **continuous**. If no value is negative, no sample is.

2. **Atoms.** Heavy values of a continuous column get inserted cells. So do those of a grid that
   are more than ``SPIKE`` (5) times as frequent as the median of its other values. The width is
   such that an atom is about as dense as the mode of the other rows, were these normal:
   w = √(2π) s P / P₀, with the share P of the atom, the share P₀ and the spread s of the other
   rows. A gap of more than ``GAP`` (8) spreads between an atom and the other values is squeezed
   to one spread. :class:`~ebflow.bijections.Cells` then dequantizes grids, levels and atoms.
3. **Bounds.** Known bounds are used. Columns of two values end at both, and a column ends at an
   atom that is its smallest or largest value. Otherwise an end of the rows is a candidate, a
   little beyond it, if 1 % of the rows lie in the last 2 % of the range. ``Bounded`` maps a
   column with bounds to the real line.
4. **Tails.** Candidates are none, and Johnson's S_U through four quantiles, for each choice of
   them in ``QUANTILES`` and each choice of bounds. In columns with atoms, the quantiles are of all
   rows or of the other rows. The candidate with the best likelihood on every second row, fitted to
   the others, is chosen. Each step must gain ``GAIN`` (0.01 nats). Columns of two values, and
   tables of less than ``FEW_ROWS`` (100) rows, keep their tails.
5. **Origin.** The lower bound, else the upper bound, else the median of a continuous column is
   subtracted in float64, so that single precision resolves values far from zero.

Steps 3 and 4 use ``enough`` rows, at most 4,000, and steps 1 and 2 five times as many.

Source of the quantiles: The Johnson System: Selection and Parameter Estimation (Slifker, Shapiro,
1980), Technometrics 22.
"""

__all__ = ["Bounds", "Marginals", "build", "enough", "fit", "gaussianized"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bijections import Bijection, Bounded, Cells, ColumnCells, JohnsonSU
from .discrete import REPEATS, column_cells
from .errors import BadInput
from .randomness import generator as derive
from .tables.column import column_label

ROWS, VALUES, DETECTION = 4_000, 2**20, 5
"""Rows, and values in all, for bounds and tails, and how many times as many rows for cells."""

FEW_ROWS = 100
"""Rows below which bounds and tails are not fitted: they would not gain."""

GAIN = 0.01
"""Nats per row that a step must gain, on rows that were not used in the fit."""

MARGIN, SURE = 1e-6, 1e-3
"""Part of the range, from a bound on, in which ``Bounded`` is a line. ``SURE`` is that of columns
that end at two values or atoms: any other value then costs about 10 nats."""

FAR = 1e3
"""Distance of an end from the median, in spreads, from which on it is not used as a bound."""

QUANTILES = 0.25, 0.5, 0.8
"""Numbers z: the quantiles of S_U are those of −3 z, −z, z and 3 z in a normal distribution."""

STRAIGHT = 1.02
"""Least ratio of the products of quantiles' distances; S_U becomes a line as it goes to 1."""

TINY = torch.finfo(torch.float64).tiny

Bounds = Mapping[int, tuple[float | None, float | None]]
"""Lower and upper bounds by the index of a column, None where there is none."""

_Ends = tuple[Tensor, Tensor, Tensor]
"""Lower and upper bounds, and the margins inside them, with shape (D,) each."""


@dataclass(frozen=True)
class Marginals:
    """The layers that treat the single columns.

    Attributes:
        layers: Cells, bounds and tails, those that are needed.
        spec: The arguments of ``build``: sizes by the names of the layers.
        columns: The cells of each column.
        bounds: The bounds in use, in raw units.
        tails: The columns whose tails change.
    """

    layers: list[Bijection]
    spec: dict[str, list[int]]
    columns: Sequence[ColumnCells]
    bounds: dict[int, tuple[float, float]]
    tails: list[int]

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns the treatment of the columns by their names, JSON-able."""
        pairs = list(zip(names, self.columns, strict=True))
        ends = {k: [None if math.isinf(end) else end for end in pair]
                for k, pair in self.bounds.items()}  # fmt: skip
        return {
            "grids": {name: c.step for name, c in pairs if c.step},
            "levels": {name: c.levels for name, c in pairs if c.levels},
            "atoms": {name: c.atoms for name, c in pairs if c.atoms},
            "bounds": {names[k]: pair for k, pair in ends.items()},
            "tails": [names[k] for k in self.tails],
        }


def fit(
    x: Tensor,
    *,
    categories: Sequence[int] | None = None,
    integers: Sequence[bool] | None = None,
    grids: bool = True,
    tails: bool = True,
    bounds: Bounds | None = None,
    ends: tuple[Tensor, Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Marginals:
    """Fits the treatment of columns, in O(N D log N).

    Arguments:
        x: Rows with shape (N, D), in random order; the first ones are used.
        categories: The number K of levels of each column of categories, whose values are the
            codes 0 … K − 1; 0 for other columns. Categories are dequantized in any case.
        integers: Whether each column is known to be of integers. These are dequantized in any
            case.
        grids: Whether other columns are examined for grids, levels and atoms.
        tails: Whether tails and further bounds are fitted.
        bounds: Known bounds.
        ends: The smallest and the largest values of all rows, (D,) each; None: those of ``x``.
        names: The names of columns in messages; None: their numbers.
        seed: The seed of the noise.
        dtype: The dtype in which the layers will be used.

    Raises:
        BadInput: if a value lies outside the bounds of its column.
    """
    rows = enough(x.shape[1])
    x = x[: DETECTION * rows].double().cpu()
    first, last = (x.amin(0), x.amax(0)) if ends is None else (end.double().cpu() for end in ends)
    codes = {k: (0, size - 1) for k, size in enumerate(categories or ()) if size}
    certain = codes | dict(bounds or {})
    known = _known(first, last, certain, names)
    columns = [
        column_cells(
            np.append(values, np.arange(codes[k][1] + 1)) if k in codes else values,
            integers=k in codes or (integers is not None and integers[k]),
            examine=grids,
        )
        for k, values in enumerate(torch.cat([x, first[None], last[None]]).mT.numpy())
    ]
    columns, cells = _moved(columns, known[0].where(known[0].isfinite(), known[1]), known)
    samples = _samples(x[:rows], cells, columns, seed)
    starts, stops = cells.cells(torch.stack([first, last]))
    extent = starts[0], stops[1]
    limits = _limits(cells, columns, samples[-1], extent, bounds or {}, tails)
    choice = torch.zeros(len(columns), dtype=torch.long)
    if tails and len(x) >= FEW_ROWS:
        free = torch.tensor([k not in certain for k in range(len(columns))])
        binary = torch.tensor([column.is_binary for column in columns])
        options = _options(samples[-1], extent, limits, free & ~binary)
        limits, choice = _chosen(samples, options, binary)
    raw = [
        torch.where(bound.isfinite(), bound, limit + at - end)
        for bound, limit, at, end in zip(known, limits, (first, last), extent, strict=False)
    ]
    return _assembled(columns, cells, limits, raw, known, samples, choice, dtype)


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
    """Returns the map of directions with heavy or skewed tails to normal ones.

    After whitening it is a step of Gaussianization (Chen and Gopinath, 2000). A direction changes
    if rows that were not used in the fit gain ``GAIN``.

    Arguments:
        y: Rows with shape (N, D), in random order; ``enough(D)`` rows suffice.

    Returns:
        One layer in float64, or none.
    """
    y = y.double()
    infinity = torch.full_like(y[0], torch.inf)
    free = -infinity, infinity, torch.ones_like(infinity)
    _, choice = _chosen([y], [free], torch.zeros(y.shape[1], dtype=torch.bool))
    return [_johnson([y], choice)] if choice.any() else []


def _moved(
    columns: Sequence[ColumnCells], origin: Tensor, known: tuple[Tensor, Tensor]
) -> tuple[list[ColumnCells], Cells]:
    """Returns cells with another origin of the continuous columns for which it is finite."""
    moved = [
        column if column.is_discrete or math.isinf(place) else replace(column, origin=place)
        for column, place in zip(columns, origin.tolist(), strict=True)
    ]
    cells = Cells(moved)
    cells.bound(*known)
    return moved, cells


def _samples(x: Tensor, cells: Cells, columns: Sequence[ColumnCells], seed: int) -> list[Tensor]:
    """Returns dequantized rows, and, if there are atoms, rows without them.

    In the latter, each column repeats its other rows instead of those at atoms.
    """
    y = cells.dequantize(x, x, derive(seed, "marginals"))
    atoms = [k for k, column in enumerate(columns) if column.atoms]
    others = y.clone()
    for k in atoms:
        other = ~np.isin(x[:, k].numpy(), columns[k].atoms)
        if other.sum() >= REPEATS:
            others[:, k] = torch.from_numpy(np.resize(y[:, k].numpy()[other], len(y)))
    return [y, others] if atoms else [y]


def _known(
    first: Tensor, last: Tensor, bounds: Bounds, names: Sequence[str] | None
) -> tuple[Tensor, Tensor]:
    """Returns known lower and upper bounds, infinite without one, after a check of the ends."""
    lower, upper = torch.full_like(first, -torch.inf), torch.full_like(last, torch.inf)
    for column, (low, high) in bounds.items():
        lower[column] = -math.inf if low is None else low
        upper[column] = math.inf if high is None else high
    outside = ((first < lower) | (last > upper)).nonzero().flatten().tolist()
    if outside:
        k = outside[0]
        raise BadInput(
            f"bounds, {column_label(k, names)}: found values in [{first[k]:.6g}, {last[k]:.6g}], "
            f"expected [{lower[k]:.6g}, {upper[k]:.6g}]"
        )
    return lower, upper


def _limits(
    cells: Cells,
    columns: Sequence[ColumnCells],
    y: Tensor,
    extent: tuple[Tensor, Tensor],
    bounds: Bounds,
    tails: bool,
) -> _Ends:
    """Returns the bounds that are known or certain; without ``tails`` those of ``bounds``."""
    median, far = y.median(0).values, FAR * _spread(y)
    ends = [c.ends if tails and k not in bounds else (False, False) for k, c in enumerate(columns)]
    known = torch.tensor([tails or k in bounds for k in range(len(columns))])
    lower, upper = (end.where(known, sign * torch.inf)
                    for end, sign in ((cells.low, -1), (cells.high, 1)))  # fmt: skip
    sure = [at & ((end - median).abs() < far)
            for at, end in zip(torch.tensor(ends).mT, extent, strict=True)]  # fmt: skip
    share = torch.where(sure[0] | sure[1], SURE, MARGIN)
    margin = share * (extent[1] - extent[0]).clamp(min=TINY)
    return extent[0].where(sure[0], lower), extent[1].where(sure[1], upper), margin


def _options(y: Tensor, extent: tuple[Tensor, Tensor], limits: _Ends, free: Tensor) -> list[_Ends]:
    """Returns the bounds to choose from: those so far, then also ends of ``free`` columns.

    Of n rows one is beyond the others at each end: far beyond if the rows thin out. If single rows
    are very far from the others, so would a bound be. Its logarithm, in single precision, would
    not resolve the others.
    """
    (lower, upper, margin), (first, last) = limits, extent
    width = last - first
    low, median, high = torch.quantile(y, y.new_tensor([0.01, 0.5, 0.99]), dim=0)
    beyond, far = 2 * width / len(y), FAR * _spread(y)
    at_low = (low - first <= 0.02 * width) & (median - first + beyond < far)
    at_high = (last - high <= 0.02 * width) & (last - median + beyond < far)
    at_low, at_high = at_low & free & lower.isinf(), at_high & free & upper.isinf()
    if not (at_low | at_high).any():
        return [limits]
    margin = torch.where(at_low | at_high, beyond / 4, margin)
    a, b = torch.where(at_low, first - beyond, lower), torch.where(at_high, last + beyond, upper)
    return [limits, *((*ends, margin) for ends in ((a, upper), (lower, b), (a, b)))]


def _chosen(
    samples: Sequence[Tensor], options: Sequence[_Ends], straight: Tensor
) -> tuple[_Ends, Tensor]:
    """Returns the bounds and the number of the tails, (D,), with the best held-out likelihood."""
    scores = torch.stack([_held_out(samples, ends) for ends in options])
    steps = torch.ones(scores.shape[:2])
    steps[:, 0] = 0
    steps += torch.tensor([0, 1, 1, 2])[: len(options), None]
    scores = scores - GAIN * steps.unsqueeze(2)
    scores[:, 1:] = scores[:, 1:].where(~straight, -torch.inf)
    best = scores.where(scores.isfinite(), -torch.inf).flatten(0, 1).argmax(0)
    option, choice = best // scores.shape[1], best % scores.shape[1]
    columns = zip(*options, strict=True)
    return tuple(torch.stack(part).gather(0, option[None])[0] for part in columns), choice


def _held_out(samples: Sequence[Tensor], ends: _Ends) -> Tensor:
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


def _bounded(y: Tensor, ends: _Ends) -> Bounded:
    """Returns the map of columns with bounds, with the median's distance from one as its scale."""
    lower, upper, margin = ends
    median = y.median(0).values
    distance = torch.minimum(median - lower, upper - median)
    return Bounded(lower, upper, margin, distance.maximum(margin).where(distance.isfinite(), 1.0))


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


def _assembled(
    columns: Sequence[ColumnCells],
    cells: Cells,
    limits: _Ends,
    raw: Sequence[Tensor],
    known: tuple[Tensor, Tensor],
    samples: Sequence[Tensor],
    choice: Tensor,
    dtype: torch.dtype,
) -> Marginals:
    """Returns the layers, with bounds as the origins and margins that ``dtype`` resolves.

    ``raw`` are the bounds in raw units, ``known`` those that are known.
    """
    origin = raw[0].where(raw[0].isfinite(), raw[1])
    columns, moved = _moved(columns, origin, known)
    offset = cells.cells(moved.origin[None])[0][0]
    lower, upper, margin = limits[0] - offset, limits[1] - offset, limits[2]
    samples = [rows - offset for rows in samples]
    layers: dict[str, Bijection] = {"cells": moved}
    bounded = lower.isfinite() | upper.isfinite()
    if bounded.any():
        size = torch.stack([lower, upper]).abs()
        size = size.where(size.isfinite(), 0.0).amax(0)
        margin = margin.maximum(4 * torch.finfo(dtype).eps * size)
        layers["bounds"] = _bounded(samples[-1], (lower, upper, margin))
        samples = [layers["bounds"](rows) for rows in samples]
    if choice.any():
        layers["tails"] = _johnson(samples, choice)
    pairs = zip(*(end.tolist() for end in raw), strict=True)
    return Marginals(
        list(layers.values()),
        {name: getattr(layer, "spec", []) for name, layer in layers.items()},
        columns,
        {k: pair for k, pair in enumerate(pairs) if bounded[k]},
        choice.nonzero().flatten().tolist(),
    )
