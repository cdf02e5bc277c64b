r"""Conditional distributions of single columns given all others, by quadrature.

The density of a flow along column j, with all other columns fixed, is the conditional density of
the column up to a constant:

.. math:: p(z_j \mid z_{-j}) = \frac{p(z_j, z_{-j})}{\int p(t, z_{-j}) \, dt}.

The nodes lie in the coordinates after the flow's leading elementwise layers. The logarithm of the
density is linear between nodes, so each interval has a mass in closed form. A round of the
refinement adds nodes, in proportion to the widths of the intervals times their larger densities.
It ends when the sum of these is close to the mass. The relative error is then below 1 %.

A column of at most ``FEW`` cells (a category, a grid, levels) has nodes just inside the ends of
its cells, where the density may jump. The mass of a cell is the probability of its value. A
category of exact probabilities needs no quadrature: one node for each level is enough.
"""

__all__ = ["Conditionals", "Curve"]

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .bijections import Cells
from .points import Points, ends_of_bounds
from .target import Target

FEW = 256
"""Most cells of a column that are all enumerated."""

INSIDE = 1e-3
"""Distance of nodes from the ends of a cell, as a share of the cell."""

ADDED = 16
"""Nodes that a round of the refinement adds."""

ROUNDS = 12
"""Largest number of rounds."""

RESOLVED = 0.2
"""Relative excess of the upper sum over the mass, up to which a density counts as resolved."""

BEND = 0.2
"""Largest correction of the logarithm of an interval's mass."""

BEYOND = (0.05, 0.2, 0.5, 1.0, 3.0, 10.0)
"""Distances of nodes beyond the samples of a column, as multiples of their range."""

INNER = 17
"""Nodes at quantiles of the samples of a column."""

VALUES = 1 << 22
"""Largest number of values of an evaluation."""

NOWHERE = -1e30
"""Logarithm of a density of 0."""

TIE = 1e-4
"""Relative difference up to which probabilities count as equal."""

TAIL = 0.05
"""Probability outside each end of the interval of expected values."""


class Axis(NamedTuple):
    """The nodes of a column.

    Attributes:
        nodes: The first nodes, with shape (G,).
        jumps: The ends of cells, ascending, where the density may jump.
        cells: The starts and the ends of K cells, with shape (2, K), if they are all that the
            column has; else None.
        bounds: The ends of the column's known bounds, infinite without one.
        exact: True if the density is constant in each cell, whose width is 1.
    """

    nodes: Tensor
    jumps: Tensor
    cells: Tensor | None = None
    bounds: tuple[float, float] = (-torch.inf, torch.inf)
    exact: bool = False


class Summary(NamedTuple):
    """The conditional distributions of a column, at R rows: six tensors (R,).

    Attributes:
        log_prob: The log-probability of a value with a cell, the log-density of others.
        log_p_value: The logarithm of the probability of values that are at most as likely.
        low, high: The ends of the central interval of 90 %, in coordinates.
        mode: The most likely value, in coordinates.
        share: The probability of the mode, NaN if the cells are not enumerated.
    """

    log_prob: Tensor
    log_p_value: Tensor
    low: Tensor
    high: Tensor
    mode: Tensor
    share: Tensor


@dataclass(frozen=True)
class Curve:
    """Densities of one variable for R rows, up to constants, log-linear between nodes.

    Attributes:
        z: The nodes, ascending, with shape (R, G).
        log_f: The logarithms of the densities there.
        jumps: Places where the densities may jump, ascending, with shape (E,).
    """

    z: Tensor
    log_f: Tensor
    jumps: Tensor

    @property
    def log_masses(self) -> Tensor:
        """The logarithms of the masses of the intervals, with shape (R, G − 1)."""
        gap, step = self.z.diff(dim=1), self.log_f.diff(dim=1)
        rise = step.abs()
        mean = torch.where(rise > 1e-6, -torch.expm1(-rise) / rise.clamp(min=1e-6), 1 - rise / 2)
        top = torch.maximum(self.log_f[:, 1:], self.log_f[:, :-1])
        return top + (gap * mean).log() + self._bend(step / gap, gap)

    def _bend(self, slope: Tensor, gap: Tensor) -> Tensor:
        """Returns the logarithms of the corrections for the curvature of log f, (R, G − 1).

        A jump is no curvature: it says nothing about the intervals next to it.
        """
        first, last = (torch.searchsorted(self.jumps, self.z.contiguous(), right=right)
                       for right in (False, True))  # fmt: skip
        slope = slope.masked_fill(last[:, 1:] > first[:, :-1], torch.nan)
        curved = 2 * slope.diff(dim=1) / (gap[:, 1:] + gap[:, :-1])
        curved = torch.nn.functional.pad(curved[:, None], (1, 1), mode="replicate")[:, 0]
        bend = -(curved[:, 1:] + curved[:, :-1]) / 2 * gap.square() / 12
        return bend.nan_to_num(0.0, 0.0, 0.0).clamp(-BEND, BEND)

    @property
    def log_upper(self) -> Tensor:
        """The logarithms of the intervals' widths times their larger densities, (R, G − 1)."""
        return torch.maximum(self.log_f[:, 1:], self.log_f[:, :-1]) + self.z.diff(dim=1).log()

    def quantiles(self, shares: Tensor, log_masses: Tensor) -> Tensor:
        """Returns the quantiles of P shares, with shape (R, P), if intervals have these masses."""
        mass = log_masses.softmax(1)
        cdf = mass.cumsum(1)
        shares = shares.to(cdf).expand(len(cdf), -1).contiguous()
        k = torch.searchsorted(cdf, shares).clamp(max=mass.shape[1] - 1)
        here = mass.gather(1, k)
        inside = ((shares - cdf.gather(1, k)) / here.clamp(min=1e-300) + 1).clamp(0, 1)
        return self.z.gather(1, k) + inside * self.z.diff(dim=1).gather(1, k)

    def joined(self, z: Tensor, log_f: Tensor) -> "Curve":
        """Returns the curve with further nodes, (R, P)."""
        nodes, order = torch.cat([self.z, z], 1).sort(1)
        return Curve(nodes, torch.cat([self.log_f, log_f], 1).gather(1, order), self.jumps)

    def at(self, z: Tensor) -> Tensor:
        """Returns log f at nodes (R,)."""
        k = torch.searchsorted(self.z, z[:, None].contiguous()).clamp(max=self.z.shape[1] - 1)
        return self.log_f.gather(1, k)[:, 0]

    def between(self, start: Tensor, end: Tensor) -> Tensor:
        """Returns True for intervals between nodes (R,) and (R,), with shape (R, G − 1)."""
        return (self.z[:, :-1] >= start[:, None]) & (self.z[:, 1:] <= end[:, None])

    def log_masses_below(self, level: Tensor) -> Tensor:
        """Returns the logarithms of the intervals' masses where log f is at most a level (R,)."""
        low = torch.minimum(self.log_f[:, 1:], self.log_f[:, :-1])
        high = torch.maximum(self.log_f[:, 1:], self.log_f[:, :-1])
        # Of ∫ exp over an interval, the part up to a level is linear in the level's density.
        part = (level[:, None] - high).exp() - (low - high).exp()
        whole = -torch.expm1(low - high)
        share = torch.where(whole > 1e-9, part / whole.clamp(min=1e-9), part >= 0)
        return self.log_masses + share.clamp(0, 1).log()


class Conditionals:
    """The conditional distributions of a flow's columns.

    Arguments:
        target: The flow in coordinates.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.axes = target, _axes(target)

    def summary(self, points: Points, column: int) -> Summary:
        """Returns the conditional distributions of a column at rows; O(M G) energies for each."""
        axis, unknown = self.axes[column], points.unknown[:, column]
        own, start, end = (t[:, column].double() for t in (points.own, points.start, points.end))
        if axis.cells is None:
            found = _in_line(self.curve(points, column), own, start, end)
            slope = torch.where(end > start, 0.0, points.log_slopes[:, column])
            found = found._replace(log_prob=found.log_prob + slope)
        elif axis.exact:
            found = _in_cells(self._levels(points, column), axis.cells, own)
        else:
            masses = _cell_masses(self.curve(points, column), axis.cells, own, start, end)
            found = _in_cells(masses, axis.cells, own)
        log_prob, log_p = (torch.where(unknown, torch.nan, t) for t in found[:2])
        return found._replace(log_prob=log_prob, log_p_value=log_p)

    def _levels(self, points: Points, column: int) -> Tensor:
        """Returns log-probabilities of K levels and of a value beyond them, up to a constant."""
        cells, own = self.axes[column].cells, points.own[:, column].double()
        nodes = torch.cat([cells.mean(0).expand(len(own), -1), own[:, None]], 1)
        log_f = self._log_f(points, column, nodes)
        log_f[_inside(cells, own), -1] = -torch.inf
        return log_f

    def curve(self, points: Points, column: int) -> Curve:
        """Returns the densities of a column given the others."""
        axis = self.axes[column]
        own = torch.stack([t[:, column] for t in (points.start, points.own, points.end)], 1)
        nodes = torch.cat([axis.nodes.expand(len(own), -1), own.double()], 1)
        nodes = nodes.clamp(*axis.bounds).sort(1).values
        curve = Curve(nodes, self._log_f(points, column, nodes), axis.jumps)
        shares = (torch.arange(ADDED).to(nodes) + 0.5) / ADDED
        for _ in range(ROUNDS):
            upper = curve.log_upper
            excess = upper.logsumexp(1) - curve.log_masses.logsumexp(1)
            rows = (excess > RESOLVED).nonzero().flatten()
            if not len(rows):
                break
            nodes, log_f = (t[:, -1:].repeat(1, ADDED) for t in (curve.z, curve.log_f))
            nodes[rows] = curve.quantiles(shares, upper)[rows]
            log_f[rows] = self._log_f(points[rows], column, nodes[rows])
            curve = curve.joined(nodes, log_f)
        return curve

    def _log_f(self, points: Points, column: int, nodes: Tensor) -> Tensor:
        """Returns the logarithms of the densities at nodes (R, G) of a column."""
        size = max(1, VALUES // (nodes.shape[1] * points.z[0].numel()))
        rows = torch.arange(len(nodes), device=nodes.device).split(size)
        return torch.cat([self._part(points[part], column, nodes[part]) for part in rows])

    def _part(self, points: Points, column: int, nodes: Tensor) -> Tensor:
        z = points.z[:, :, None].repeat(1, 1, nodes.shape[1], 1)
        z[..., column] = nodes[:, None]
        log_f = self.target.log_prob(z.flatten(1, 2), points.context)
        log_f = log_f.double().view(z.shape[:3]) + points.log_weights[:, :, None]
        return log_f.logsumexp(1).nan_to_num(NOWHERE).clamp(min=NOWHERE)


def _in_line(curve: Curve, own: Tensor, start: Tensor, end: Tensor) -> Summary:
    """Returns the distributions of a column with values that have no cell."""
    cell, masses = end > start, curve.log_masses
    log_total = masses.logsumexp(1)
    within = curve.between(start, end)
    mass = torch.where(within, masses, -torch.inf).logsumexp(1)
    level = torch.where(cell, mass - (end - start).log(), curve.at(own))
    below = torch.where(within, -torch.inf, curve.log_masses_below(level)).logsumexp(1)
    log_p = torch.where(cell, torch.logaddexp(below, mass), below) - log_total
    log_prob = torch.where(cell, mass, level) - log_total
    ends = curve.quantiles(masses.new_tensor([TAIL, 1 - TAIL]), masses)
    mode = curve.z.gather(1, curve.log_f.argmax(1, keepdim=True))[:, 0]
    share = torch.full_like(mode, torch.nan)
    return Summary(log_prob, log_p.clamp(max=0.0), *ends.unbind(1), mode, share)


def _in_cells(log_masses: Tensor, cells: Tensor, own: Tensor) -> Summary:
    """Returns the distributions of a column, by the log-masses (R, K + 1) of ``_cell_masses``."""
    log_p, count, middle = log_masses.log_softmax(1), cells.shape[1], cells.mean(0)
    k = (torch.searchsorted(cells[0].contiguous(), own.contiguous(), right=True) - 1).clamp(min=0)
    mine = log_p.gather(1, torch.where(_inside(cells, own), k, count)[:, None])
    log_p_value = torch.where(log_p <= mine + TIE, log_p, -torch.inf).logsumexp(1)
    share, mode = log_p[:, :count].exp().max(1)
    cdf = log_p[:, :count].softmax(1).cumsum(1)
    low, high = (middle[(cdf < tail).sum(1).clamp(max=count - 1)] for tail in (TAIL, 1 - TAIL))
    return Summary(mine[:, 0], log_p_value.clamp(max=0.0), low, high, middle[mode], share)


def _cell_masses(curve: Curve, cells: Tensor, own: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Returns the log-masses of K cells, and of that of a value beyond them, (R, K + 1).

    Its cell is from ``start`` to ``end``; its mass is 0 if the value is in one of the K cells.
    """
    place, count, masses = _cell_of(curve, cells), cells.shape[1], curve.log_masses
    beyond = curve.between(start, end) & ~_inside(cells, own)[:, None]
    place = torch.where(beyond, count, torch.where(place < 0, count + 1, place))
    weights = (masses - masses.amax(1, keepdim=True)).exp()
    sums = weights.new_zeros(len(masses), count + 2).scatter_add_(1, place, weights)
    return sums[:, :-1].log()


def _inside(cells: Tensor, own: Tensor) -> Tensor:
    """Returns True for values (R,) between the first and the last end of cells."""
    return (own >= cells[0, 0]) & (own <= cells[1, -1])


def _cell_of(curve: Curve, cells: Tensor) -> Tensor:
    """Returns the number of the cell of each interval, (R, G − 1), −1 at the ends of cells."""
    start, end = _inner(cells)
    k = torch.searchsorted(start, curve.z[:, :-1].contiguous(), right=True) - 1
    return torch.where((k >= 0) & (curve.z[:, 1:] <= end[k.clamp(min=0)]), k, -1)


def _inner(cells: Tensor) -> Tensor:
    """Returns points just inside the starts and the ends of cells, with shape (2, K)."""
    margin = INSIDE * cells.diff(dim=0)
    return torch.cat([cells[:1] + margin, cells[1:] - margin])


def _axes(target: Target) -> list[Axis]:
    """Returns the nodes of each column."""
    z, cells = target.z.double(), target.preprocessing.dequantizer
    inner = torch.quantile(z, torch.linspace(0, 1, INNER).to(z), dim=0)
    width = (inner[-1] - inner[0]).clamp(min=1e-6)
    beyond = z.new_tensor(BEYOND)[:, None] * width
    nodes = torch.cat([inner[0] - beyond.flip(0), inner, inner[-1] + beyond]).mT
    axes, none = [], z.new_empty(0)
    bounds = ends_of_bounds(target)
    for k, column in enumerate(nodes):
        if k in target.categories:
            starts = torch.arange(target.categories[k]).to(z)
            axes.append(Axis(none, none, torch.stack([starts, starts + 1]), exact=True))
            continue
        if cells is None:
            axes.append(Axis(column, none))
            continue
        values, enumerated = _values(cells, k)
        ends = _ends(target, cells, k, values)
        inner = torch.cat([_inner(ends), ends.mean(0, keepdim=True)]).flatten()
        first = inner if enumerated else torch.cat([column, ends.flatten()])
        jumps, bound = ends.flatten().sort().values, tuple(bounds[:, k].tolist())
        axes.append(Axis(first, jumps, ends if enumerated else None, bound))
    return axes


def _values(cells: Cells, column: int) -> tuple[Tensor, bool]:
    """Returns the values of a column with cells, and True if the column has no others."""
    step, least, most = (float(t[column]) for t in (cells.step, cells.least, cells.most))
    count = round((most - least) / step) + 1 if step else 0
    if 0 < count <= FEW:
        return least + step * torch.arange(count).to(cells.origin), True
    special = (cells.special == column).nonzero().flatten()
    widths, lengths = (t[special].flatten() for t in (cells.width, cells.length))
    values, lengths = (t[widths > 0] for t in (cells.value[special].flatten(), lengths))
    exact = bool(cells.exact[column])
    levels = len(values) > 0 and not step and (exact or bool((lengths > 0).all()))
    return values[:FEW], levels and len(values) <= FEW


def _ends(target: Target, cells: Cells, column: int, values: Tensor) -> Tensor:
    """Returns the starts and ends of cells of a column's values in coordinates, (2, K)."""
    rows = cells.origin.repeat(len(values), 1)
    rows[:, column] = values
    starts, ends = (t.to(target.z) for t in cells.cells(rows))
    return torch.stack([target.transform(t)[0][:, column].double() for t in (starts, ends)])
