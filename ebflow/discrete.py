"""Detection of grids, levels and atoms in one column of a table.

These are the first two steps of ``ebflow.marginals``.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .bijections import ColumnCells, Knot

ATOM, REPEATS = 0.01, 5  # Share of the rows, and rows, from which on a value is heavy
SPIKE = 5  # Rows of an atom of a grid, over the median of the other values' rows
DECIMALS, SPARSE, LEVELS = 6, 10, 1000  # Most decimal places, points per value of a grid, levels
FEW, OFTEN = 100, 15  # Most values of a column whose levels are exact, and least rows of each
SINGLE = 0.1  # Share of values with one row from which on others may occur as well
GAP = 1e-5  # Width in spreads to which a gap between an atom and the other values is squeezed
EXTREME, PIECES = 5, 16  # Rows in the last piece of a tail beside an atom, and its pieces
NO_GAP = 1e-100  # Slope between intervals of exact levels, so that their cells are neighbours
SHARP = 0.01  # Largest rounding error of float32 over the step of a grid in any unit
ROUNDING = 1e-12  # Largest error of its values in float64, over the largest one
PARTS = 100  # Most steps of the smallest distance of its values
DIGITS = 15  # Digits of the values of such a grid
EPSILON = float(np.finfo(np.float32).eps)


def column_cells(
    x: np.ndarray, *, codes: bool = False, examine: bool = True, exact: bool = False
) -> ColumnCells:
    """Returns the cells of one column ``x`` (N,).

    Arguments:
        codes: True for the codes of categories, which are always dequantized.
        examine: True to look for grids, levels and atoms.
        exact: True to give the levels of columns of few values the cells k + [0, 1).
    """
    values, counts = np.unique(x, return_counts=True)
    if len(values) == 1 and codes:
        return ColumnCells(float(x[0]), 1.0, least=float(x[0]), most=float(x[0]))
    column = _cells(values, counts, codes=codes, examine=examine)
    if not exact or not column.is_discrete:
        return column
    if codes:
        return replace(column, knots=(), exact=True)
    return _exact(column, values, counts)


def _cells(values: np.ndarray, counts: np.ndarray, *, codes: bool, examine: bool) -> ColumnCells:
    """Returns the cells of sorted values with their numbers of rows."""
    heavy = counts >= max(ATOM * counts.sum(), REPEATS)
    rare = (~heavy).sum()
    few = rare <= max(heavy.sum(), counts[~heavy].sum() / REPEATS)
    whole = abs(values).max() < 2**53 and (values == np.round(values)).all()
    atoms = heavy & examine & (len(values) > 1)
    for k in np.flatnonzero(atoms):
        atoms[k] = counts[k] > SPIKE * np.median(np.delete(counts, k))
    if len(values) > 1 and (codes or examine):
        sparse = math.inf if whole or atoms.any() else SPARSE
        step, decimals = _grid(values, sparse)
        if not step:
            step, decimals = _scaled_grid(values, sparse)
            if step and not atoms.any() and np.ptp(values) < LEVELS * step:
                return _levels(_points(values, step))
        if not step and few and len(values) <= LEVELS:
            return _levels(values)
        if step:
            least, most = float(values[0]), float(values[-1])
            grid = ColumnCells(least, step, decimals, least=least, most=most)
            return _with_atoms(grid, values, counts, atoms)
    middle = np.median(np.repeat(values[~atoms], counts[~atoms]))
    least = 0.0 if examine and values[0] >= 0 else -math.inf
    return _with_atoms(ColumnCells(float(middle), least=least), values, counts, atoms)


def _exact(column: ColumnCells, values: np.ndarray, counts: np.ndarray) -> ColumnCells:
    """Returns the levels of a column of few values, or the column itself.

    If several values occur in one row, other points of the grid may occur as well.
    """
    single = (counts == 1).sum() > SINGLE * len(values)
    points = round(np.ptp(values) / column.step) + 1 if column.step else len(column.knots)
    if (points if single else len(values)) > min(FEW, counts.sum() // OFTEN):
        return column
    width = {knot.value: knot.width for knot in column.knots}
    if single and points > len(values):
        values = _points(values, column.step).round(column.decimals) if column.step else [*width]
    if column.step == 1 and np.ptp(values) == len(values) - 1:
        return replace(column, knots=(), exact=True)
    knots = [Knot(float(value), 1.0, column.step or width[value], NO_GAP) for value in values]
    knots[-1] = replace(knots[-1], slope=1.0)
    return replace(_levels(np.array(values)), knots=knots, exact=True)


def _grid(values: np.ndarray, sparse: float) -> tuple[float, int]:
    """Returns the step of the grid of sorted values and its decimal places, or 0 and 0.

    A grid has at most ``sparse`` points for each value.
    """
    for decimals in range(DECIMALS + 1):
        scaled = values * 10.0**decimals
        near = np.round(scaled)
        rounding = (1e-6 + EPSILON * abs(scaled)).clip(max=0.1)
        if abs(near).max() < 2**53 and (abs(scaled - near) <= rounding).all():
            step = int(np.gcd.reduce(np.diff(near.astype(np.int64))))
            if step and near[-1] - near[0] <= sparse * len(values) * step:
                return step / 10.0**decimals, decimals
            return 0.0, 0
    return 0.0, 0


def _scaled_grid(values: np.ndarray, sparse: float) -> tuple[float, int]:
    """Returns the step of a grid in any unit, and decimals for ``DIGITS`` digits, or 0 and 0.

    The smallest gap is a few steps.
    """
    size, extent = float(abs(values).max()), float(values[-1]) - float(values[0])
    with np.errstate(over="ignore"):
        gap, single = float(np.diff(values).min()), (values == values.astype(np.float32)).all()
    error = size / extent * (EPSILON if single else ROUNDING)
    most = min(sparse * len(values), SHARP * extent / (EPSILON * size))
    for part in range(1, PARTS + 1):
        steps = part * extent / gap
        if not steps < most:
            break
        places = (values - values[0]) / extent * round(steps)
        if abs(places - places.round()).max() < 4 * error * steps:
            return float(extent / round(steps)), min(DIGITS - math.ceil(math.log10(size)), 300)
    return 0.0, 0


def _points(values: np.ndarray, step: float) -> np.ndarray:
    """Returns all points of a grid, those of the values to the bit."""
    places = ((values - values[0]) / step).round().astype(int)
    points = values[0] + step * np.arange(places[-1] + 1)
    points[places] = values
    return points


def _levels(values: np.ndarray) -> ColumnCells:
    """Returns cells between neighbouring levels; the last one has their median width."""
    gaps = np.diff(values)
    pairs = zip(values.tolist(), np.append(gaps, np.median(gaps)).tolist(), strict=True)
    knots = [Knot(value, width, width) for value, width in pairs]
    first, last = knots[0].value, knots[-1].value
    return ColumnCells(first, knots=knots, least=first, most=last)


def _with_atoms(
    column: ColumnCells, values: np.ndarray, counts: np.ndarray, atoms: np.ndarray
) -> ColumnCells:
    """Returns the cells of a grid or a continuous column with atoms added."""
    if not atoms.any() or atoms.all():
        return column
    rest = np.repeat(values[~atoms], counts[~atoms])
    low, high = np.quantile(rest, [0.25, 0.75])
    spread = max((high - low) / 1.349, column.step) or float(abs(rest[0] - values[atoms]).max())
    widths = math.sqrt(2 * math.pi) * spread * counts[atoms] / len(rest)
    pairs = zip(values[atoms].tolist(), widths.tolist(), strict=True)
    knots = [Knot(value, w, column.step) for value, w in pairs if w > 4 * column.step]
    if not knots:
        return column
    ends = {"least": values[0]} if values[0] == knots[0].value else {}
    ends |= {"most": values[-1]} if values[-1] == knots[-1].value else {}
    first, last, edges = knots[0], knots[-1], []
    if first.value < rest[0]:
        edges += _edges(rest, first.value + first.length)
    if last.value > rest[-1]:
        edges += _edges(rest[::-1] + (column.step or GAP * spread), last.value)
    knots = _squeezed(knots, edges, rest, spread) if edges else knots
    return replace(column, knots=knots, **{name: float(end) for name, end in ends.items()})


def _edges(rest: np.ndarray, limit: float) -> list[float]:
    """Returns the ends of pieces of a tail, from the median to beyond the first of ``rest``.

    The tail ends as far beyond it as its first rows reach, at most at ``limit``. Single precision
    would not resolve the start of a long gap, so the gap has a short piece there.
    """
    ranks = np.geomspace(EXTREME, max(len(rest) / 2, EXTREME), PIECES).clip(max=len(rest))
    values = rest[ranks.astype(int) - 1]
    beyond = 2 * rest[0] - values[0]
    gap = np.clip([2 * beyond - values[-1], beyond], *sorted((rest[0], limit)))
    return [*gap.tolist(), *values.tolist()]


def _squeezed(
    knots: list[Knot], edges: list[float], rest: np.ndarray, spread: float
) -> list[Knot]:
    """Returns atoms and pieces of tails with slopes that make all about as dense.

    So flows need no sharp step beside an atom. A gap without rows has nearly no width.
    """
    edges = {*edges} - {knot.value for knot in knots}
    knots = sorted([*knots, *map(Knot, edges)], key=lambda knot: knot.value)
    for k, (one, other) in enumerate(pairwise(knots)):
        start = one.value + one.length
        rows = np.diff(np.searchsorted(rest, [start, other.value]))[0]
        width = spread * (math.sqrt(2 * math.pi) * rows / len(rest) + GAP)
        knots[k] = replace(one, slope=float(width / max(other.value - start, width)))
    return knots
