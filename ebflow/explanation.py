"""Reasons why a row is unusual: the conditional distribution of each column given the others.

The p-value of a value is the probability, given all other columns, of values that are at most as
likely. Likely values are those of a large density in the coordinates after the flow's leading
elementwise layers, or of a large probability of categories. So it is uniform for rows
of the flow's own distribution, up to the steps of discrete columns.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .bijections.weighted import fixed_weights
from .conditionals import COARSE, RESOLVED, Points, among_levels, curve, on_line
from .flow import Flow
from .proposals import Proposals, hashed
from .tables import ArrayLike, Column, Columns
from .tables.frames import read
from .target import Target, rows_and_contexts

COMPLETIONS = 32  # Points of a row with missing values
SHOWN = 10  # Most rows that ``print`` shows
LIKELY = 0.05  # The p-value above which a value is no reason


@dataclass(frozen=True, repr=False)
class Explanation:
    """The conditional distribution of each of C columns given the others, for N rows."""

    columns: tuple[str, ...]
    #: log p(value | others) with shape (N, C): of a probability if the value is on a grid, a level
    #: or an atom, else of a density in the column's units. NaN if the value is missing, −∞ if it
    #: is impossible.
    log_prob: Tensor
    log_p_value: Tensor  #: The logarithms of the p-values, which rank them where they are 0
    low: Tensor  #: The lower end of the central interval of 90 %, in the numbers of the columns
    high: Tensor  #: Its upper end
    mode: Tensor  #: The most likely value
    share: Tensor  #: The probability of the mode of categories, NaN in others
    _kinds: tuple[Column, ...] = field(repr=False)
    _texts: tuple[list[str | None], ...] = field(repr=False)

    @property
    def p_value(self) -> Tensor:
        """The probability of values that are at most as likely, with shape (N, C)."""
        return self.log_p_value.exp()

    def __len__(self) -> int:
        return len(self.log_prob)

    def __repr__(self) -> str:
        """Returns the reasons of the first rows, one row a line."""
        lines = [f"Explanation({len(self)} rows, {len(self.columns)} columns)"]
        lines += [f"  row {k}: {'; '.join(self.reasons(k)) or 'nothing unlikely'}"
                  for k in range(min(len(self), SHOWN))]  # fmt: skip
        return "\n".join([*lines, "  …"] if len(self) > SHOWN else lines)

    def ranking(self, row: int) -> list[int]:
        """Returns the numbers of the columns with a value, the least likely one first."""
        pairs = torch.stack([self.log_p_value[row], self.log_prob[row]], 1).tolist()
        present = (~self.log_p_value[row].isnan()).nonzero().flatten().tolist()
        return sorted(present, key=lambda k: pairs[k])

    def reasons(self, row: int, most: int = 3, at_most: float = LIKELY) -> list[str]:
        """Returns sentences on at most ``most`` values of a row, the least likely one first.

        Their p-values are at most ``at_most``. An example of one:
        ``price = 326: expected 2,400 … 2,900, p = 0.0004``
        """
        ranked, p = self.ranking(row)[:most], self.p_value[row].tolist()
        return [f"{self.columns[k]} = {self._texts[k][row]}: expected {self._expected(row, k)}, "
                f"p = {p[k]:.2g}" for k in ranked if p[k] <= at_most]  # fmt: skip

    def _expected(self, row: int, k: int) -> str:
        column = self._kinds[k]
        low, mode, high = (column.text_of(float(t[row, k])) for t in
                           (self.low, self.mode, self.high))  # fmt: skip
        if column.dropped:
            return " = ".join(filter(None, [column.formula(), mode]))
        share = float(self.share[row, k])
        if column.kind in ("category", "boolean") and share == share:
            return f"{mode} ({100 * share:.0f} %)"
        return low if low == high else f"{low} … {high}"


@torch.no_grad()
def explain(
    flow: Flow, x: ArrayLike, *, context: ArrayLike | None = None, samples: int = 4
) -> Explanation:
    """Returns the conditional distribution of each column given the others, for all rows.

    Cost: K energies for a value of a category with K exact probabilities, about 90 for others.
    Tables with other grids, levels or atoms need ``samples`` times as many, rows with missing
    values 32 times. Memory is bounded.

    Arguments:
        flow: The flow of rows (D,).
        x: Raw rows with shape (N, D): a tensor, an array or a frame, NaN where a value is missing.
        context: The contexts of the rows, with shape (N, C); None if the flow has none, or if
            the frame has their columns.
        samples: Points in the cells of a row's other values, over which densities are averaged.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, or a value is infinite.
    """
    rows, contexts = rows_and_contexts(flow, x, context)
    rows = rows.to(flow.device)
    with fixed_weights(flow):
        target = Target.of(flow)
        result = rows.new_zeros(6, *rows.shape).double()
        unknown = rows.isnan() | target.impossible(rows) | target.off_grid(rows)
        incomplete, samples = unknown.any(1), samples if target.noisy else 1
        for count, group in ((samples, ~incomplete), (COMPLETIONS, incomplete)):
            for part in filter(len, group.nonzero().flatten().split(target.chunk(count))):
                some = (t[part] for t in (rows, unknown, contexts))
                result[:, part] = _explained(target, *some, count)
    impossible = unknown & ~rows.isnan()
    result[:2, impossible] = -torch.inf
    return _assembled(flow, x, rows, result)


def _explained(target: Target, x: Tensor, unknown: Tensor, context: Tensor, count: int) -> Tensor:
    """Returns log p, log p-values, low, high, mode and share of rows, with shape (6, R, D)."""
    x = torch.where(unknown, torch.nan, x)
    u = hashed(target, x, range(count), 0)
    places = torch.cat([u, torch.zeros_like(u[:, :1]), torch.ones_like(u[:, :1])], 1)
    z, slopes = target.place(x, places)
    own = torch.stack([z[:, 0], z[:, -2], z[:, -1], slopes[:, 0]]).double()
    z, slopes = z[:, :-2], slopes[:, :-2]
    points = Points(z, torch.where(unknown[:, None], 0.0, slopes).sum(2), context)
    columns, resolved = [], COARSE if bool(unknown.any()) else RESOLVED
    for k in range(x.shape[1]):
        if k in target.categories:
            found = among_levels(_log_levels(target, x, points, unknown, k), own[0, :, k])
        else:
            here = _completed(target, x, points, unknown, k)
            line = curve(target, here, k, own[:3, :, k].mT, resolved)
            found = on_line(line, *own[..., k])
        y = z[:, :1].repeat(1, 3, 1)
        y[..., k] = found[2:5].mT
        found[2:5] = target.raw(y)[..., k].mT
        found[:2, unknown[:, k]] = torch.nan
        columns.append(found)
    return torch.stack(columns, 2)


def _completed(
    target: Target, x: Tensor, points: Points, unknown: Tensor, without: int | None = None
) -> Points:
    """Returns points with proposals of missing elements that do not depend on a column."""
    z, log_weights, context = points
    if not bool(unknown.any()):
        return points
    observed = z if target.noisy else z[:, :1]
    proposals = Proposals(target, observed, unknown, context, without)
    y = proposals.sample(partial(hashed, target, x, range(z.shape[1])))
    return Points(y, log_weights + proposals.log_weights(y), context)


def _log_levels(target: Target, x: Tensor, points: Points, unknown: Tensor, column: int) -> Tensor:
    """Returns log-densities (R, K + 1) of the levels of a category, and of the value itself.

    Missing elements are proposed for each level.
    """
    levels = torch.arange(target.categories[column]).to(points.z) + 0.5
    nodes = torch.cat([levels.expand(len(x), -1), points.z[:, 0, column, None]], 1)
    results = []
    size = max(1, target.chunk(points.z.shape[1]) // nodes.shape[1])
    for part in torch.arange(len(x), device=x.device).split(size):
        rows = part.repeat_interleave(nodes.shape[1])
        each, missing = points.take(rows), unknown[rows]
        each.z[..., column], missing[:, column] = nodes[part].flatten()[:, None], False
        y, log_weights, context = _completed(target, x[rows], each, missing)
        log_f = (target.log_prob(y, context).double() + log_weights).logsumexp(1)
        results.append(log_f.view(len(part), -1))
    return torch.cat(results)


def _assembled(flow: Flow, x: ArrayLike, rows: Tensor, result: Tensor) -> Explanation:
    """Returns the results of modelled columns, and those of the columns that are excluded."""
    table = flow.columns or Columns.of_numbers(map(str, range(rows.shape[1])))
    parts = [result]
    named, exceptions = {}, []
    if flow.columns and not isinstance(x, Tensor):
        named, exceptions = table.named(x), table.exceptions(x)
    for column, differs, expected in exceptions:
        log_p = np.where(differs, -np.inf, 0.0)
        log_p[read(named[column.name], column.name).missing] = np.nan
        one = np.stack([log_p, log_p, expected, expected, expected, np.ones_like(expected)])
        parts.append(torch.from_numpy(one[..., None]).to(result))
    columns = [*table.modelled, *(column for column, *_ in exceptions)]
    numbers = dict(zip(table.features, rows.mT.tolist(), strict=True))
    texts = tuple(
        read(named[c.name], c.name).texts
        if c.name in named and (c.dropped or c.kind == "category")
        else [c.text_of(value) for value in numbers[c.name]]
        for c in columns
    )  # fmt: skip
    names = tuple(column.name for column in columns)
    return Explanation(names, *torch.cat(parts, 2), tuple(columns), texts)
