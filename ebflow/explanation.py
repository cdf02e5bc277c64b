"""Reasons why a row is unusual: the conditional distribution of each column given the others.

The p-value of a value is the probability, given all other columns, of values that are at most as
likely. Likely values are those of a large density in the coordinates after the flow's leading
elementwise layers, or of a large probability in columns of few values. So it is uniform for rows
of the flow's own distribution, up to the steps of discrete columns.

Columns that the flow leaves out are explained, too. A row that differs from a constant, or from
an exact linear function of other columns, has the p-value 0 there. So has an unknown level.
"""

__all__ = ["Explanation", "explain"]

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .bijections import Cells
from .bijections.weighted import fixed_weights
from .conditionals import Conditionals, Points, Values
from .flow import Flow
from .proposals import Proposals, hashed
from .tables import ArrayLike, Column
from .tables.frames import read
from .tables.rows import refuse
from .target import Target

COMPLETIONS = 64
"""Points of a row with missing values."""

ROWS = 256
"""Rows at a time."""

SHOWN = 10
"""Most rows that ``print`` shows."""

LIKELY = 0.05
"""The p-value above which a value is no reason."""


@dataclass(frozen=True, repr=False)
class Explanation:
    """The conditional distribution of each of C columns given the others, for N rows.

    Attributes:
        columns: The names of the columns.
        log_prob: log p(value | others) with shape (N, C): of a probability if the value is on a
            grid, a level or an atom, else of a density in the column's units. NaN if the value is
            missing, −∞ if it is impossible.
        p_value: The probability of values that are at most as likely, with shape (N, C).
        low, high: The central interval of 90 % given the others, in the numbers of the columns.
        mode: The most likely value.
        share: The probability of the mode in columns of few values, NaN in others.
        log_p_value: The logarithms of the p-values, which rank them where they are 0.
    """

    columns: tuple[str, ...]
    log_prob: Tensor
    p_value: Tensor
    low: Tensor
    high: Tensor
    mode: Tensor
    share: Tensor
    log_p_value: Tensor
    _kinds: tuple[Column | None, ...] = field(repr=False)
    _texts: tuple[list[str | None], ...] = field(repr=False)
    _formulas: dict[str, str] = field(repr=False)

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
        log_p, log_prob = (t[row].nan_to_num(torch.inf).tolist() for t in
                           (self.log_p_value, self.log_prob))  # fmt: skip
        order = sorted(range(len(log_p)), key=lambda k: (log_p[k], log_prob[k]))
        return [k for k in order if not self.log_p_value[row, k].isnan()]

    def reasons(self, row: int, most: int = 3, at_most: float = LIKELY) -> list[str]:
        """Returns sentences on the least likely values of a row, the least likely one first.

        Arguments:
            row: The number of the row.
            most: The largest number of sentences.
            at_most: The largest p-value of a reason.

        Example:
            ``price = 326: expected 2,400 … 2,900, p = 0.0004``
        """
        columns = [k for k in self.ranking(row)[:most] if self.p_value[row, k] <= at_most]
        return [self._sentence(row, k) for k in columns]

    def _sentence(self, row: int, k: int) -> str:
        value, p = self._texts[k][row], float(self.p_value[row, k])
        return f"{self.columns[k]} = {value}: expected {self._expected(row, k)}, p = {p:.2g}"

    def _expected(self, row: int, k: int) -> str:
        column = self._kinds[k]
        low, mode, high = (_text(column, float(t[row, k])) for t in
                           (self.low, self.mode, self.high))  # fmt: skip
        if self.columns[k] in self._formulas:
            return " = ".join(filter(None, [self._formulas[self.columns[k]], mode]))
        if column is not None and column.kind in ("category", "boolean"):
            return f"{mode} ({100 * float(self.share[row, k]):.0f} %)"
        return low if low == high else f"{low} … {high}"


@dataclass(frozen=True)
class Incomplete:
    """Points of rows whose missing elements are proposed for each level of a category.

    Attributes:
        target: The flow in coordinates.
        x: The raw rows with shape (R, D), NaN where a value is missing.
        points: The observed elements.
        missing: True where an element is missing, with shape (R, D).
    """

    target: Target
    x: Tensor
    points: Points
    missing: Tensor

    @property
    def z(self) -> Tensor:
        """The observed elements, with shape (R, M, D)."""
        return self.points.z

    @property
    def context(self) -> Tensor | None:
        """The contexts of the rows."""
        return self.points.context

    def take(self, rows: Tensor) -> "Incomplete":
        """Returns the points of some rows."""
        return replace(
            self, x=self.x[rows], points=self.points.take(rows), missing=self.missing[rows]
        )

    def completed(self, without: int | None = None) -> Points:
        """Returns the points with proposals that do not depend on a column."""
        z, log_weights, context = self.points
        proposals = Proposals(self.target, z, self.missing, context, without)
        y = proposals.sample(partial(hashed, self.target, self.x, z.shape[1]))
        return Points(y, log_weights + proposals.log_weights(y), context)

    def at(self, column: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns proposals (R, M, G, D) given nodes (R, G) of a column, and log-weights."""
        shape = nodes.shape
        each = self.take(torch.arange(len(nodes)).repeat_interleave(shape[1]))
        each.z[..., column] = nodes.flatten()[:, None].to(self.z)
        each.missing[:, column] = False
        y, log_weights, _ = each.completed()
        return (y.unflatten(0, shape).transpose(1, 2), log_weights.unflatten(0, shape).mT)


@torch.no_grad()
def explain(
    flow: Flow, x: ArrayLike, *, context: ArrayLike | None = None, draws: int = 4
) -> Explanation:
    """Returns the conditional distribution of each column given the others, for all rows.

    Cost: K energies for a value of a category with K exact probabilities, about 90 for others.
    Tables with other grids, levels or atoms need ``draws`` times as many, rows with missing
    values 64 times. Memory is bounded.

    Arguments:
        flow: The flow, of rows (D,).
        x: Raw rows with shape (N, D): a tensor, an array or a frame, NaN where a value is missing.
        context: The contexts of the rows, with shape (N, C); None if the flow has none, or if
            the frame has their columns.
        draws: Points in the cells of a row's other values, over which densities are averaged.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, or a value is infinite.
    """
    _check(flow)
    contexts, rows = flow.as_context(flow.context_of(x, context)), flow.as_events(x)
    rows = rows.reshape(-1, rows.shape[-1]).to(flow.device)
    refuse(rows, rows.isinf(), "x", flow.columns.features if flow.columns else None,
           "a finite number")  # fmt: skip
    if contexts is not None:
        contexts = contexts.expand(len(rows), -1)
    with fixed_weights(flow):
        target = Target.of(flow)
        conditionals, result = Conditionals(target), rows.new_zeros(6, *rows.shape).double()
        unknown = rows.isnan() | target.impossible(rows)
        incomplete = unknown.any(1)
        for count, group in ((draws, ~incomplete), (COMPLETIONS, incomplete)):
            for part in filter(len, group.nonzero().flatten().split(ROWS)):
                own = None if contexts is None else contexts[part]
                result[:, part] = _explained(conditionals, rows[part], unknown[part], own, count)
    impossible = unknown & ~rows.isnan()
    result[:2, impossible] = -torch.inf
    return _assembled(flow, x, rows, result)


def _check(flow: Flow) -> None:
    if len(flow.event_shape) != 1 or not isinstance(flow.dequantizer, Cells | None):
        raise ValueError(
            f"explain: found a flow of events {flow.event_shape} with {flow.dequantizer}, "
            "expected a flow of the rows of a table"
        )


def _explained(
    conditionals: Conditionals, x: Tensor, unknown: Tensor, context: Tensor | None, count: int
) -> Tensor:
    """Returns log p, log p-values, low, high, mode and share of rows, with shape (6, R, D)."""
    target, missing = conditionals.target, unknown[:, None]
    count = count if target.noisy or bool(unknown.any()) else 1
    x = torch.where(unknown, torch.nan, x)
    z, slopes = target.place(x, hashed(target, x, count, 0))
    log_slope = torch.where(missing, 0.0, slopes).sum(2)
    own = (z[:, 0].double(), *target.ends(x), slopes[:, 0], unknown)
    columns = []
    for k in range(x.shape[1]):
        here = Points(z, log_slope, context)
        if bool(unknown.any()):
            here = Incomplete(target, x, here, unknown)
            here = here if k in target.categories else here.completed(k)
        values = Values(*(t[:, k] for t in own))
        log_prob, log_p, *places, share = conditionals.summary(here, k, values)
        y = z[:, :1].repeat(1, 3, 1)
        y[..., k] = torch.stack(places, 1).to(y)
        found = target.raw(y)[..., k].double()
        columns.append(torch.stack([log_prob, log_p, *found.unbind(1), share]))
    return torch.stack(columns, 2)


def _assembled(flow: Flow, x: ArrayLike, rows: Tensor, result: Tensor) -> Explanation:
    """Returns the results of modelled columns, and those of the columns that are left out."""
    if not flow.columns:
        names = tuple(str(k) for k in range(rows.shape[1]))
        texts = tuple([_text(None, value) for value in column] for column in rows.mT.tolist())
        return _explanation(names, (None,) * len(names), texts, {}, result)
    table = flow.columns
    known = {} if isinstance(x, Tensor) else table.named(x)
    columns, formulas, parts = table.modelled, {}, [result]
    for name, (differs, expected) in (
        {} if isinstance(x, Tensor) else table.exceptions(x)
    ).items():
        log_p = torch.where(torch.from_numpy(differs), -torch.inf, 0.0).double()
        log_p[torch.from_numpy(read(known[name], name).missing)] = torch.nan
        value = torch.from_numpy(np.asarray(expected, np.float64))
        one = torch.stack([log_p, log_p, value, value, value, torch.ones_like(value)])
        parts.append(one[..., None].to(result))
        column = next(c for c in table if c.name == name)
        columns, formulas[name] = [*columns, column], column.formula() if column.terms else ""
    numbers = dict(zip(table.features, rows.mT.tolist(), strict=True))
    texts = tuple(
        read(known[c.name], c.name).texts
        if c.name in known and (c.dropped or c.kind not in ("time", "duration"))
        else [_text(c, value) for value in numbers[c.name]]
        for c in columns
    )  # fmt: skip
    names = tuple(column.name for column in columns)
    return _explanation(names, tuple(columns), texts, formulas, torch.cat(parts, 2))


def _explanation(
    names: tuple[str, ...],
    columns: tuple[Column | None, ...],
    texts: tuple[list[str | None], ...],
    formulas: dict[str, str],
    result: Tensor,
) -> Explanation:
    log_prob, log_p, low, high, mode, share = result
    return Explanation(names, log_prob, log_p.exp(), low, high, mode, share, log_p,
                       columns, texts, formulas)  # fmt: skip


def _text(column: Column | None, value: float) -> str:
    if value != value:
        return "no value"
    return f"{value:,.5g}" if column is None else column.text_of(value)
