r"""Conditional distributions of single columns given all others, by quadrature.

The density of a flow along column j, with all other columns fixed, is the conditional density of
the column up to a constant:

.. math:: p(z_j \mid z_{-j}) = \frac{p(z_j, z_{-j})}{\int p(t, z_{-j}) \, dt}.

The logarithm of the density is linear between nodes, so each interval has a mass in closed form.
A round of the refinement adds nodes, in proportion to the widths of the intervals times their
larger densities. It ends when the sum of these is close to the mass. The relative error is then
below 1 %. The probability of a value with a cell is the mass of the cell. A category of exact
probabilities needs one node for each level.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .target import Target

# Relative excess of the upper sum over the mass, up to which a density counts as resolved; the
# same given missing values.
RESOLVED, COARSE = 0.1, 0.5

ADDED, ROUNDS = 16, 12  # Nodes that a round of the refinement adds, and most rounds
BEYOND = (0.05, 0.2, 0.5, 1.0, 3.0, 10.0)  # Distances of nodes beyond the samples, in their range
INNER = 17  # Nodes at quantiles of the samples of a column
NOWHERE = -1e30  # Logarithm of a density of 0
TIE = 1e-4  # Relative difference up to which probabilities count as equal
TAIL = 0.05  # Probability outside each end of the interval of expected values


class Points(NamedTuple):
    """M points (R, M, D) for each of R rows in coordinates, over which densities are averaged.

    ``log_weights`` has the shape (R, M), the contexts of the rows (R, C).
    """

    z: Tensor
    log_weights: Tensor
    context: Tensor

    def take(self, rows: Tensor) -> "Points":
        """Returns the points of some rows."""
        return Points(*(t[rows] for t in self))


@dataclass(frozen=True)
class Curve:
    """Densities of one variable for R rows, up to constants, log-linear between nodes (R, G)."""

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

    def at(self, z: Tensor) -> Tensor:
        """Returns log f at nodes (R,)."""
        k = torch.searchsorted(self.z, z[:, None].contiguous()).clamp(max=self.z.shape[1] - 1)
        return self.log_f.gather(1, k)[:, 0]

    def log_masses_below(self, level: Tensor) -> Tensor:
        """Returns the logarithms of the intervals' masses where log f is at most a level (R,)."""
        low = torch.minimum(self.log_f[:, 1:], self.log_f[:, :-1])
        high = torch.maximum(self.log_f[:, 1:], self.log_f[:, :-1])
        # Of ∫ exp over an interval, the part up to a level is linear in the level's density.
        part = (level[:, None] - high).exp() - (low - high).exp()
        whole = -torch.expm1(low - high)
        share = torch.where(whole > 1e-9, part / whole.clamp(min=1e-9), part >= 0)
        return self.log_masses + share.clamp(0, 1).log()


def curve(
    target: Target, points: Points, column: int, nodes: Tensor, resolved: float = RESOLVED
) -> Curve:
    """Returns the densities of a column given the others, at some nodes (R, G) and more."""
    z, (low, high) = target.z[:, column].double(), target.bounds[:, column]
    inner = torch.quantile(z, torch.linspace(0, 1, INNER).to(z))
    beyond = z.new_tensor(BEYOND) * (inner[-1] - inner[0]).clamp(min=1e-6)
    first = torch.cat([inner[0] - beyond.flip(0), inner, inner[-1] + beyond])
    nodes = torch.cat([first.expand(len(nodes), -1), nodes], 1).clamp(low, high).sort(1).values
    found = Curve(nodes, log_densities(target, points, column, nodes))
    shares = (torch.arange(ADDED).to(nodes) + 0.5) / ADDED
    for _ in range(ROUNDS):
        upper = found.log_upper
        excess = upper.logsumexp(1) - found.log_masses.logsumexp(1)
        rows = (excess > resolved).nonzero().flatten()
        if not len(rows):
            break
        nodes, log_f = (t[:, -1:].repeat(1, ADDED) for t in (found.z, found.log_f))
        nodes[rows] = found.quantiles(shares, upper)[rows]
        log_f[rows] = log_densities(target, points.take(rows), column, nodes[rows])
        found = found.joined(nodes, log_f)
    return found


def log_densities(target: Target, points: Points, column: int, nodes: Tensor) -> Tensor:
    """Returns the logarithms of the densities at nodes (R, G) of a column, up to constants."""
    rows = []
    for part in target.parts(len(nodes), nodes.shape[1] * points.z[0].numel()):
        some = points.take(part)
        z = some.z[:, :, None].repeat(1, 1, nodes.shape[1], 1)
        z[..., column] = nodes[part, None].to(z)
        log_f = target.log_prob(z.flatten(1, 2), some.context).double().view(z.shape[:3])
        rows.append((log_f + some.log_weights[..., None]).logsumexp(1))
    return torch.cat(rows).nan_to_num(NOWHERE).clamp(min=NOWHERE)


def on_line(curve: Curve, z: Tensor, start: Tensor, end: Tensor, log_slope: Tensor) -> Tensor:
    """Returns the distributions of a column at R rows, with shape (6, R).

    They are the log-probability of a value with a cell, or the log-density of others. Then follow
    the logarithm of the probability of values that are at most as likely, and the ends of the
    central interval of 90 %. The last ones are the most likely value, in coordinates, and NaN.

    Arguments:
        z: The values, at some place in their cells.
        start, end: The ends of the cells; equal without a cell.
        log_slope: The logarithm of dz/dx at values without a cell.
    """
    cell, masses = end > start, curve.log_masses
    log_total = masses.logsumexp(1)
    within = (curve.z[:, :-1] >= start[:, None]) & (curve.z[:, 1:] <= end[:, None])
    mass = torch.where(within, masses, -torch.inf).logsumexp(1)
    level = torch.where(cell, mass - (end - start).log(), curve.at(z))
    below = torch.where(within, -torch.inf, curve.log_masses_below(level)).logsumexp(1)
    log_p = torch.where(cell, torch.logaddexp(below, mass), below) - log_total
    log_prob = torch.where(cell, mass, level + log_slope) - log_total
    low, high = curve.quantiles(masses.new_tensor([TAIL, 1 - TAIL]), masses).unbind(1)
    mode = curve.z.gather(1, curve.log_f.argmax(1, keepdim=True))[:, 0]
    nothing = torch.full_like(mode, torch.nan)
    return torch.stack([log_prob, log_p.clamp(max=0.0), low, high, mode, nothing])


def among_levels(log_f: Tensor, z: Tensor) -> Tensor:
    """Returns what ``on_line`` returns, and last the mode's probability, for a category.

    Arguments:
        log_f: The log-densities of K levels, and last of the value itself, (R, K + 1).
        z: The values, with shape (R,); beyond the levels for a value that is none.
    """
    count = log_f.shape[1] - 1
    inside = (z >= 0) & (z < count)
    log_f[inside, -1] = -torch.inf
    log_p = log_f.log_softmax(1)
    mine = log_p.gather(1, torch.where(inside, z, count).long()[:, None])
    log_p_value = torch.where(log_p <= mine + TIE, log_p, -torch.inf).logsumexp(1)
    share, mode = log_p[:, :count].exp().max(1)
    cdf = log_p[:, :count].softmax(1).cumsum(1)
    low, high = ((cdf < tail).sum(1).clamp(max=count - 1) for tail in (TAIL, 1 - TAIL))
    places = (place + 0.5 for place in (low, high, mode))
    return torch.stack([mine[:, 0], log_p_value.clamp(max=0.0), *places, share])
