r"""Dequantization of the columns of a table: grids, levels, and atoms in continuous columns.

:class:`Cells` maps every column of a table to the line. A value that many rows share gets a
*cell*, an interval of the line, and uniform noise places the row in it. The inverse maps every
point of a cell to its value, so samples contain exactly the values of the table.

* A value of a *grid* :math:`a + h k` has the cell :math:`[a + h k, a + h (k + 1))`.
* A *level*, one of a few values :math:`v_1 < \dots < v_K`, has the cell :math:`[v_k, v_{k + 1})`.
* An *atom*, a repeated value of a column that is continuous otherwise, has a cell of width w. The
  cell is inserted into the line: the values above it move up by w. Atoms of a grid are values
  with a wider cell.

Long gaps without rows, between an atom and the other values, are squeezed. So the map is linear
in pieces. The density is with respect to Lebesgue measure, in the units of the column, except at
the atoms of continuous columns: there it is the probability. At an exact level it is the
probability over the width of the interval that the level has otherwise. Any other value of a
column of exact levels has the cell [−1, 0), and beyond a known bound the cell [−2, −1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import ConstantLinearization, Linearization
from .preprocessing import Dequantizer

DIGITS = 4 * torch.finfo(torch.float32).eps  # Relative distance at which values are equal
FEW = 100  # Levels of a column up to which other values are off the grid


@dataclass(frozen=True)
class Knot:
    """A value at which the map of a column changes.

    The interval [value, value + length) is mapped to the cell.
    """

    value: float  #: The level, or the atom, or the end of a squeezed gap
    width: float = 0.0  #: The width of its cell; 0: the value has no cell
    length: float = 0.0  #: The length of the interval; 0 for an atom of a continuous column
    slope: float = 1.0  #: The slope of the map from the interval to the next knot


@dataclass(frozen=True)
class ColumnCells:
    """The cells of one column."""

    origin: float = 0.0  #: The number that is mapped to 0; the first value of a grid
    step: float = 0.0  #: The step h of a grid; 0: there is no grid
    decimals: int = 0  #: The decimal places of a grid
    knots: Sequence[Knot] = ()  #: The knots, sorted by their values
    least: float = -torch.inf  #: The smallest sample
    most: float = torch.inf  #: The largest sample
    exact: bool = False  #: The cell of the k-th level is k + [0, 1), for exact probabilities

    @property
    def atoms(self) -> list[float]:
        """The atoms."""
        return [knot.value for knot in self.knots if knot.width > knot.length and not self.exact]

    @property
    def levels(self) -> list[float]:
        """The levels."""
        return [knot.value for knot in self.knots if 0 < knot.width == knot.length or self.exact]

    @property
    def count(self) -> int:
        """The number of exact levels, 0 if they are not exact."""
        if not self.exact or self.knots:
            return len(self.knots) * self.exact
        return round((self.most - self.least) / self.step) + 1

    @property
    def is_discrete(self) -> bool:
        """True if all values have cells."""
        return self.step > 0 or bool(self.levels)

    @property
    def is_binary(self) -> bool:
        """True if the column has two values."""
        return len(self.levels) == 2 or 0 < self.most - self.least < 1.5 * self.step

    @property
    def ends(self) -> tuple[bool, bool]:
        """True if no value is below the smallest one, and above the largest one.

        This is so in columns of two values, and at atoms.
        """
        atoms = self.atoms or [torch.nan]
        return self.is_binary or atoms[0] == self.least, self.is_binary or atoms[-1] == self.most


# A piece of f: a knot x and its y, the ends of its interval and of its cell, from which f
# continues with the slope, and the lengths of both.
PIECE = ("value", "start", "base", "end", "width", "length", "slope")


class Cells(Dequantizer):
    r"""Dequantization of the columns of a table.

    A row x becomes :math:`y = f(x) + u w` with u uniform on [0, 1), the width w of the cell of x,
    and its start f(x), which is linear in pieces. A value off its grid has no cell, w = 0. On such
    y the layer is the identity. Its log-determinant is the sum of :math:`\log f'`, or log w at
    atoms, and −∞ outside known bounds.

    The constants, and samples, are in float64 whatever the dtype of the flow. Rows are converted
    to the dtype of the flow after the origin is subtracted.
    """

    pixelwise = True

    def __init__(self, columns: Sequence[ColumnCells]) -> None:
        super().__init__()
        for name in ("origin", "step", "least", "most"):
            self.register_buffer(name, _double([getattr(column, name) for column in columns]))
        self.scale = nn.Buffer(_double([10.0**column.decimals for column in columns]))
        special = [k for k, column in enumerate(columns) if column.knots] or [0]
        self.special = nn.Buffer(torch.tensor(special, dtype=torch.long))
        tables = [_double(_pieces(columns[k])) for k in special]
        size = max(map(len, tables))
        padding = _double([torch.inf, torch.inf, 0, torch.inf, 0, 0, 1])
        pieces = [torch.cat([t, padding.expand(size - len(t), -1)]) for t in tables]
        for name, table in zip(PIECE, torch.stack(pieces).unbind(2), strict=True):
            self.register_buffer(name, table.clone(memory_format=torch.contiguous_format))
        self.low = nn.Buffer(torch.full_like(self.origin, -torch.inf))
        self.high = nn.Buffer(-self.low)
        self.closed = nn.Buffer(self.low < 0)
        self.exact = nn.Buffer(torch.tensor([column.count for column in columns]))
        self.noisy = any(column.is_discrete or column.atoms for column in columns)
        zero = self._ends(self.origin[None])[0][0, self.special, None]
        self.start, self.end = self.start - zero, self.end - zero

    @property
    def spec(self) -> list[int]:
        """The arguments of ``placeholder`` after the first one."""
        return [*self.value.shape, int(self.noisy)]

    @classmethod
    def placeholder(cls, width: int, count: int, size: int, noisy: int) -> "Cells":
        """Returns cells of ``width`` columns, to load a state with this ``spec`` into."""
        some = ColumnCells(knots=[Knot(0.0)] * (size - 1))
        cells = cls([some] * count + [ColumnCells()] * (width - count))
        cells.noisy = bool(noisy)
        return cells

    def extra_repr(self) -> str:
        grids, special = int((self.step > 0).sum()), int((self.width > 0).any(1).sum())
        return f"columns={len(self.origin)}, grids={grids}, with levels or atoms={special}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Cells":
        """Moves the constants to another device, with the same dtype."""

        def moved(t: Tensor) -> Tensor:
            result = fn(t)
            return result if result.dtype == t.dtype else t.to(result.device)

        return super()._apply(moved, recurse)

    @property
    def noisy_columns(self) -> list[int]:
        """The numbers of the columns with cells."""
        some = self.step > 0
        some = some.index_put((self.special,), some[self.special] | (self.width > 0).any(1))
        return some.nonzero().flatten().tolist()

    @property
    def uneven(self) -> bool:
        """True if the density of a flow may differ within a cell."""
        return self.noisy and not bool(self.exact[self.noisy_columns].all())

    def bound(self, lower: Tensor, upper: Tensor) -> None:
        """Sets known bounds of raw values, (D,) each in float64, infinite where there is none."""
        steps = self._steps
        last = self.origin + steps * ((upper - self.origin) / steps + DIGITS).floor()
        last = torch.where((self.step > 0) & upper.isfinite(), last, upper)
        start, end = self._ends(torch.stack([lower, last, self.most]))
        self.low = start[0]
        observed = end[2].where(self.most.isfinite(), -torch.inf)
        self.closed = (end[1] == start[1]) & (observed <= end[1])
        self.high = end[1].maximum(observed)
        self.least, self.most = self.least.maximum(lower), self.most.minimum(upper)

    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the starts and the ends of the cells of rows (N, D) of float64.

        Both are the same for a value without a cell.
        """
        start, end = self._ends(x)
        is_level = (start >= 0) & (start < end) & (end <= self.exact)
        other = torch.where((start < self.low) | self._above(start), -2.0, -1.0).to(start)
        replaced = (self.exact > 0) & ~is_level
        return torch.where(replaced, other, start), torch.where(replaced, other + 1, end)

    def off_grid(self, x: Tensor) -> Tensor:
        """Returns True for values between those of discrete columns, or far from exact ones."""
        start, end = self._ends(x := x.to(self.origin).flatten(1))
        width = self.most - self.least
        far = (self.exact > 0) & ((x - self.least).maximum(self.most - x) > 2 * width)
        some = self.value.isfinite()  # of more than FEW levels, others may occur as well
        levels = some.any(1) & (some.sum(1) <= FEW) & ((self.length > 0) | ~some).all(1)
        discrete = (self.step > 0).index_put((self.special,), levels, accumulate=True)
        off = (start == end) & discrete
        whole = (self.exact[self.special] > 0) & ((self.value % 1 == 0) | ~some).all(1)
        off[:, self.special] &= ~whole | (x[:, self.special] % 1 > 0)  # 3 may follow 1, 2 and 4
        return far | off

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the starts and the ends of cells, before other values of exact columns move."""
        steps = self._steps
        place = (x - self.origin) / steps
        tolerance = (1e-6 + DIGITS * x.abs() / steps).clamp(max=0.25)
        on_grid = (self.step > 0) & ((place - place.round()).abs() <= tolerance)
        cell = place.round()
        start, end = (self._line(torch.where(on_grid, k * steps, x - self.origin))
                      for k in (cell, cell + 1))  # fmt: skip
        some = x[:, self.special]
        slack = DIGITS * some.abs()
        index = _index(self.value, some + slack)
        near = some.isfinite() & ((some - _take(self.value, index)).abs() <= slack)
        hit = near & (_take(self.width, index) > 0)
        start = self._replaced(start, hit, _take(self.start, index))
        return start, self._replaced(end, hit, _take(self.end, index))

    def add_noise(self, x: Tensor, like: Tensor, noise: Tensor) -> Tensor:
        rows = x.to(self.origin).flatten(1)
        if not self.noisy:
            return (rows - self.origin).to(like.dtype).view(x.shape)
        start, end = self.cells(rows)
        y = (start + noise.to(start).flatten(1) * (end - start)).to(like.dtype)
        inside = y.minimum(_before(end.to(like.dtype))).maximum(start.to(like.dtype))
        return torch.where(end > start, inside, y).view(x.shape)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the values whose cells contain ``y``, in float64, within observed bounds."""
        flat = y.flatten(1)
        index, inside = self._piece(flat)
        past = (flat[:, self.special].double() - _take(self.end, index)) / _take(self.slope, index)
        past = past.clamp(min=0).where(index > 0, past)  # ends were rounded to the flow's dtype
        raw = _take(self.base, index) + past - self.origin[self.special]
        offset = flat.double().index_copy(1, self.special, raw)
        steps = self._steps
        cell = (offset / steps).floor()
        # An end of a cell that was rounded to the flow's dtype may be on either side of y.
        cell = cell + (_rounded(self._line((cell + 1) * steps), flat) <= flat).double()
        cell = cell - (_rounded(self._line(cell * steps), flat) > flat).double()
        first, step = ((t * self.scale).round() for t in (self.origin, steps))
        x = torch.where(self.step > 0, (first + cell * step) / self.scale, offset + self.origin)
        x = self._replaced(x, inside, _take(self.value, index))
        return x.clamp(self.least, self.most).view(y.shape)

    def log_slopes(self, y: Tensor) -> Tensor:
        """Returns the sum of log f', or of log w at atoms, with shape (B,)."""
        return self._special_slopes(y).sum(1).to(y.dtype)

    def column_slopes(self, y: Tensor) -> Tensor:
        """Returns log f', or log w at atoms, of each column, with shape (B, D)."""
        slopes = self._special_slopes(y)
        return slopes.new_zeros(y.shape).index_copy(1, self.special, slopes).to(y.dtype)

    def outside(self, y: Tensor) -> Tensor:
        """Returns True for elements outside the known bounds, with shape (B, D)."""
        flat = y.flatten(1)
        low = torch.where(self.exact > 0, -1.0, self.low)
        return (flat < low.to(y.dtype)) | self._above(flat)

    def forward_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y, torch.where(self.outside(y).any(1), -torch.inf, self.log_slopes(y))

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(y), self.log_slopes(y)

    def linearize(self, x: Tensor) -> Linearization:
        y, log_det = self.forward_and_log_det(x)
        return ConstantLinearization(y, nn.Identity(), nn.Identity(), log_det)

    def _above(self, y: Tensor) -> Tensor:
        """Returns True for elements above the known upper bounds, with shape (B, D)."""
        high = self.high.to(y.dtype)
        return y > torch.where(self.closed, high, _before(high))

    @property
    def _steps(self) -> Tensor:
        """The steps of grids, 1 for other columns."""
        return torch.where(self.step > 0, self.step, 1.0)

    def _special_slopes(self, y: Tensor) -> Tensor:
        """Returns log f', or log w at atoms, of the special columns."""
        return self._slopes(*self._piece(y.flatten(1))).log()

    def _slopes(self, index: Tensor, inside: Tensor) -> Tensor:
        """Returns the slope of f in or after the interval of a knot; w in an atom's cell."""
        cell = self.width / torch.where(self.length > 0, self.length, 1.0)
        return torch.where(inside, _take(cell, index), _take(self.slope, index))

    def _line(self, offset: Tensor) -> Tensor:
        """Returns f at the origin plus ``offset``, with shape (N, D)."""
        raw = offset[:, self.special] + self.origin[self.special]
        index = _index(self.value, raw)
        past = raw - _take(self.base, index)
        inside = (past < 0) & (_take(self.length, index) > 0)
        line = _take(self.end, index) + past * self._slopes(index, inside)
        return offset.index_copy(1, self.special, line)

    def _piece(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the index of the piece of each special y, and True if y is in its cell."""
        some = y[:, self.special].double()
        index = _index(_rounded(self.start, y), some)
        inside = some < _take(_rounded(self.end, y), index)
        return index, inside & (_take(self.width, index) > 0)

    def _replaced(self, t: Tensor, some: Tensor, values: Tensor) -> Tensor:
        """Returns ``t`` with ``values`` in the place of some elements of special columns."""
        return t.index_copy(1, self.special, torch.where(some, values, t[:, self.special]))


def _pieces(column: ColumnCells) -> list[tuple[float, ...]]:
    """Returns the pieces of f, as named in ``PIECE``, such that f is 0 at the first knot."""
    first = column.knots[0].value if column.knots else column.origin
    pieces = [(-torch.inf, -torch.inf, first, 0.0, 0.0, 0.0, 1.0)]
    for knot in column.knots:
        *_, base, end, _, _, slope = pieces[-1]
        y = end + slope * (knot.value - base)
        base = knot.value + knot.length
        pieces.append((knot.value, y, base, y + knot.width, knot.width, knot.length, knot.slope))
    return pieces


def _double(values: Sequence[object]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _rounded(t: Tensor, like: Tensor) -> Tensor:
    """Returns float64 numbers after rounding to the dtype of ``like``."""
    return t.to(like.dtype).double()


def _before(t: Tensor) -> Tensor:
    """Returns a number just below each of ``t``, at most two units in the last place."""
    kind = torch.finfo(t.dtype)
    return t - (t.abs() * kind.eps).clamp(min=kind.tiny)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """Returns elements ``index``, (N, S), of the rows of a table (S, J)."""
    return table[torch.arange(len(table), device=table.device), index]


def _index(table: Tensor, values: Tensor) -> Tensor:
    """Returns the index of the last element of each sorted row, (S, J), up to values (N, S)."""
    if torch.compiler.is_exporting():  # formats of graphs have no binary search
        return (values.unsqueeze(-1) >= table).sum(-1) - 1
    return torch.searchsorted(table, values.mT.contiguous(), right=True).mT - 1
