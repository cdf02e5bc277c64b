r"""Conditional distributions of single columns given all others, by quadrature.

The density of a flow along column j, with all other columns fixed, is the conditional density of
the column up to a constant:

.. math:: p(z_j \mid z_{-j}) = \frac{p(z_j, z_{-j})}{\int p(t, z_{-j}) \, dt}.

The logarithm of the density is linear between nodes, so each interval has a mass in closed form.
A round of the refinement adds nodes, in proportion to the widths of the intervals times their
larger densities. It ends when the sum of these is close to the mass. The relative error is then
below 1 %. The mass of a value on a grid is that of its cell.

The cells of a column of at most ``FEW`` values (a category, a grid, levels) are enumerated, with
``PARTS`` nodes in each. A category of exact probabilities needs one.
"""

__all__ = ["Conditionals", "Curve", "Points", "Values"]

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .bijections import Cells
from .target import VALUES, Target

FEW, PARTS = 32, 8
"""Most cells of a column that are enumerated, and nodes in each cell."""

ADDED = 16
"""Nodes that a round of the refinement adds."""

ROUNDS = 12
"""Largest number of rounds."""

RESOLVED = 0.1
"""Relative excess of the upper sum over the mass, up to which a density counts as resolved."""

COARSE = 0.5
"""The same of a curve for proposals."""

BEYOND = (0.05, 0.2, 0.5, 1.0, 3.0, 10.0)
"""Distances of nodes beyond the samples of a column, as multiples of their range."""

INNER = 17
"""Nodes at quantiles of the samples of a column."""

NOWHERE = -1e30
"""Logarithm of a density of 0."""

TIE = 1e-4
"""Relative difference up to which probabilities count as equal."""

TAIL = 0.05
"""Probability outside each end of the interval of expected values."""


class Points(NamedTuple):
    """M points for each of R rows in coordinates, over which densities are averaged.

    Attributes:
        z: The points, with shape (R, M, D).
        log_weights: The logarithms of their weights, with shape (R, M).
        context: The contexts of the rows, with shape (R, C), or None.
    """

    z: Tensor
    log_weights: Tensor
    context: Tensor | None

    def take(self, rows: Tensor) -> "Points":
        """Returns the points of some rows."""
        return Points(*(t if t is None else t[rows] for t in self))

    def at(self, column: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points (R, M, G, D) at nodes (R, G) of a column, and log-weights."""
        z = self.z[:, :, None].repeat(1, 1, nodes.shape[1], 1)
        z[..., column] = nodes[:, None].to(z)
        return z, self.log_weights[..., None]


class Values(NamedTuple):
    """The values of a column in R rows, in coordinates: five tensors (R,).

    Attributes:
        z: The values, at some place in their cells.
        start, end: The ends of the cells; equal without a cell.
        log_slope: The logarithm of dz/dx at a value without a cell.
        missing: True if there is no value.
    """

    z: Tensor
    start: Tensor
    end: Tensor
    log_slope: Tensor
    missing: Tensor


class Axis(NamedTuple):
    """The nodes of a column.

    Attributes:
        nodes: The first nodes of a line, with shape (G,).
        bounds: The ends of the column's known bounds, infinite without one.
        cells: The starts and the ends of K cells, with shape (2, K), if they are enumerated.
        parts: Nodes in each cell; 1 if the density is constant in a cell, whose width is 1.
    """

    nodes: Tensor
    bounds: tuple[float, float]
    cells: Tensor | None = None
    parts: int = PARTS


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
    """

    z: Tensor
    log_f: Tensor

    @property
    def log_masses(self) -> Tensor:
        """The logarithms of the masses of the intervals, with shape (R, G − 1)."""
        gap, step = self.z.diff(dim=1), self.log_f.diff(dim=1)
        rise = step.abs()
        mean = torch.where(rise > 1e-6, -torch.expm1(-rise) / rise.clamp(min=1e-6), 1 - rise / 2)
        top = torch.maximum(self.log_f[:, 1:], self.log_f[:, :-1])
        return top + (gap * mean).log()

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
        return Curve(nodes, torch.cat([self.log_f, log_f], 1).gather(1, order))

    def log_steps(self, z: Tensor) -> Tensor:
        """Returns log-densities at z (R, P), if they are constant in each interval.

        They are ∞ beyond the nodes, so that a value there always moves.
        """
        k = torch.searchsorted(self.z, z.contiguous()).clamp(1, self.z.shape[1] - 1) - 1
        inside = (z >= self.z[:, :1]) & (z <= self.z[:, -1:])
        log_p = (self.log_masses - self.z.diff(dim=1).log()).gather(1, k)
        return torch.where(inside, log_p, torch.inf)

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

    def summary(self, points: Points, column: int, values: Values) -> Summary:
        """Returns the conditional distributions of a column at rows; O(M G) energies for each."""
        axis = self.axes[column]
        if axis.cells is None:
            nodes = torch.stack([values.start, values.z, values.end], 1)
            found = _in_line(self._curve(points, column, nodes), values)
        else:
            own = torch.stack([values.start, values.end], 1)[..., None]
            cells = torch.cat([axis.cells[:, None].expand(2, len(own), -1), own.movedim(1, 0)], 2)
            inside = (values.z >= axis.cells[0, 0]) & (values.z <= axis.cells[1, -1])
            masses = self._masses(points, column, cells, axis.parts)
            masses[inside, -1] = -torch.inf
            found = _in_cells(masses, axis.cells, values.z, inside)
        log_prob, log_p = (torch.where(values.missing, torch.nan, t) for t in found[:2])
        return found._replace(log_prob=log_prob, log_p_value=log_p)

    def sample(self, points: Points, column: int, u: Tensor) -> Tensor:
        """Returns values (R,) of a column that are moved given the others, M = 1 point a row.

        Levels of exact probabilities are sampled. Other values have proposals from a coarse curve,
        constant between nodes, and the test of Metropolis and Hastings.

        Arguments:
            points: The rows at their present values.
            column: The column.
            u: Uniform numbers, with shape (R, 2).
        """
        if self.axes[column].parts > 1:
            return self._moved(points, column, u)
        cells = self.axes[column].cells[:, None].expand(2, len(u), -1)
        p = self._masses(points, column, cells, 1).softmax(1)
        ends = p.cumsum(1)
        k = torch.searchsorted(ends, u[:, :1].contiguous()).clamp(max=p.shape[1] - 1)
        return (k + u[:, 1:].clamp(max=1 - 1e-4))[:, 0]

    def _moved(self, points: Points, column: int, u: Tensor) -> Tensor:
        here = points.z[:, 0, column].double()
        curve = self._curve(points, column, points.z[:, 0, :0].double(), COARSE)
        there = curve.quantiles(u[:, :1], curve.log_masses)[:, 0]
        both = torch.stack([here, there], 1)
        log_f, log_q = self._log_f(points, column, both), curve.log_steps(both)
        gain = (log_f - log_q).diff(dim=1)[:, 0]
        return torch.where(u[:, 1].log() < gain, there, here)

    def _masses(self, points: Points, column: int, cells: Tensor, parts: int) -> Tensor:
        """Returns log-masses (R, K), up to constants, of cells (2, R, K)."""
        start, width = cells[0], cells[1] - cells[0]
        shares = (torch.arange(parts).to(cells) + 0.5) / parts
        nodes = start[..., None] + width[..., None] * shares
        log_f = self._log_f(points, column, nodes.flatten(1)).view(nodes.shape)
        return log_f.logsumexp(2) + (width / parts).log()

    def _curve(
        self, points: Points, column: int, nodes: Tensor, resolved: float = RESOLVED
    ) -> Curve:
        """Returns the densities of a column given the others, at some nodes (R, G) and more."""
        axis = self.axes[column]
        nodes = torch.cat([axis.nodes.expand(len(nodes), -1), nodes], 1)
        nodes = nodes.clamp(*axis.bounds).sort(1).values
        curve = Curve(nodes, self._log_f(points, column, nodes))
        shares = (torch.arange(ADDED).to(nodes) + 0.5) / ADDED
        for _ in range(ROUNDS):
            upper = curve.log_upper
            excess = upper.logsumexp(1) - curve.log_masses.logsumexp(1)
            rows = (excess > resolved).nonzero().flatten()
            if not len(rows):
                break
            nodes, log_f = (t[:, -1:].repeat(1, ADDED) for t in (curve.z, curve.log_f))
            nodes[rows] = curve.quantiles(shares, upper)[rows]
            log_f[rows] = self._log_f(points.take(rows), column, nodes[rows])
            curve = curve.joined(nodes, log_f)
        return curve

    def _log_f(self, points: Points, column: int, nodes: Tensor) -> Tensor:
        """Returns the logarithms of the densities at nodes (R, G) of a column."""
        rows, size = [], max(1, VALUES // (nodes.shape[1] * points.z[0].numel()))
        for part in torch.arange(len(nodes), device=nodes.device).split(size):
            some = points.take(part)
            z, log_weights = some.at(column, nodes[part])
            log_f = self.target.log_prob(z.flatten(1, 2), some.context).double().view(z.shape[:3])
            rows.append((log_f + log_weights).logsumexp(1))
        return torch.cat(rows).nan_to_num(NOWHERE).clamp(min=NOWHERE)


def _in_line(curve: Curve, values: Values) -> Summary:
    """Returns the distributions of a column whose cells are not enumerated."""
    cell, masses = values.end > values.start, curve.log_masses
    log_total = masses.logsumexp(1)
    within = curve.between(values.start, values.end)
    mass = torch.where(within, masses, -torch.inf).logsumexp(1)
    log_width = (values.end - values.start).log()
    level = torch.where(cell, mass - log_width, curve.at(values.z))
    below = torch.where(within, -torch.inf, curve.log_masses_below(level)).logsumexp(1)
    log_p = torch.where(cell, torch.logaddexp(below, mass), below) - log_total
    log_prob = torch.where(cell, mass, level + values.log_slope) - log_total
    ends = curve.quantiles(masses.new_tensor([TAIL, 1 - TAIL]), masses)
    mode = curve.z.gather(1, curve.log_f.argmax(1, keepdim=True))[:, 0]
    share = torch.full_like(mode, torch.nan)
    return Summary(log_prob, log_p.clamp(max=0.0), *ends.unbind(1), mode, share)


def _in_cells(log_masses: Tensor, cells: Tensor, z: Tensor, inside: Tensor) -> Summary:
    """Returns the distributions of a column of K cells.

    Arguments:
        log_masses: Those of the cells, and last of a value that is in none, with shape (R, K + 1).
        cells: The starts and the ends of the cells, with shape (2, K).
        z: The values, with shape (R,).
        inside: True for values in one of the K cells.
    """
    log_p, count, middle = log_masses.log_softmax(1), cells.shape[1], cells.mean(0)
    k = (torch.searchsorted(cells[0].contiguous(), z.contiguous(), right=True) - 1).clamp(min=0)
    mine = log_p.gather(1, torch.where(inside, k, count)[:, None])
    log_p_value = torch.where(log_p <= mine + TIE, log_p, -torch.inf).logsumexp(1)
    share, mode = log_p[:, :count].exp().max(1)
    cdf = log_p[:, :count].softmax(1).cumsum(1)
    low, high = (middle[(cdf < tail).sum(1).clamp(max=count - 1)] for tail in (TAIL, 1 - TAIL))
    return Summary(mine[:, 0], log_p_value.clamp(max=0.0), low, high, middle[mode], share)


def _axes(target: Target) -> list[Axis]:
    """Returns the nodes of each column."""
    z, axes = target.z.double(), []
    inner = torch.quantile(z, torch.linspace(0, 1, INNER).to(z), dim=0)
    width = (inner[-1] - inner[0]).clamp(min=1e-6)
    beyond = z.new_tensor(BEYOND)[:, None] * width
    nodes = torch.cat([inner[0] - beyond.flip(0), inner, inner[-1] + beyond]).mT
    for k, column in enumerate(nodes):
        bounds = tuple(target.bounds[:, k].tolist())
        if k in target.categories:
            starts = torch.arange(target.categories[k]).to(z)
            axes.append(Axis(column, bounds, torch.stack([starts, starts + 1]), 1))
        elif target.cells is None:
            axes.append(Axis(column, bounds))
        else:
            values, enumerated = _values(target.cells, k)
            cells = _cells(target, k, values)
            line = torch.cat([column, cells.flatten()])
            axes.append(Axis(line, bounds, cells if enumerated else None))
    return axes


def _values(cells: Cells, column: int) -> tuple[Tensor, bool]:
    """Returns the values of a column with cells, and True if the column has no others."""
    step, least, most = (float(t[column]) for t in (cells.step, cells.least, cells.most))
    if step and most - least < (FEW - 0.5) * step:
        return least + step * torch.arange(round((most - least) / step) + 1).to(cells.origin), True
    special = (cells.special == column).nonzero().flatten()
    widths, lengths = (t[special].flatten() for t in (cells.width, cells.length))
    values, lengths = (t[widths > 0] for t in (cells.value[special].flatten(), lengths))
    exact = bool(cells.exact[column])
    levels = len(values) > 0 and not step and (exact or bool((lengths > 0).all()))
    return values[:FEW], levels and len(values) <= FEW


def _cells(target: Target, column: int, values: Tensor) -> Tensor:
    """Returns the starts and ends of cells of a column's values in coordinates, (2, K)."""
    rows = target.cells.origin.repeat(len(values), 1)
    rows[:, column] = values
    ends = (t.to(target.z) for t in target.cells.cells(rows))
    return torch.stack([target.transform(t)[0][:, column].double() for t in ends])
