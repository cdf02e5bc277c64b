"""Learned activations of every element."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .activations import Elementwise, root
from .base import at_least_float32


class MonotoneSpline(Elementwise):
    r"""Creates a learned increasing function of every element.

    On a uniform grid of M cells of width h over [−R, R], the slope is a quadratic B-spline with
    positive coefficients s:

    .. math:: f'(x) = s_i \frac{(1 - r)^2}{2} + s_{i+1} \left( \tfrac12 + r - r^2 \right)
        + s_{i+2} \frac{r^2}{2}, \qquad x = -R + (i + r) h,

    so f is a cubic spline, twice continuously differentiable, and f' lies between the smallest and
    the largest s. The outermost coefficients are doubled, so that f'' = 0 at both ends; beyond
    them f is a line. :math:`f(0) = 0`; at the start f is the identity. There are M coefficients
    :math:`s = e^\theta` per element.

    Source: A Practical Guide to Splines (de Boor, 1978), for B-splines.

    Value and derivatives cost O(1) an element for any M: they look up the four coefficients of a
    cubic.

    ``cells`` is M, an even number, and ``reach`` is R, in the units of the elements.
    """

    def __init__(self, shape: tuple[int, ...], *, cells: int = 16, reach: float = 4.0) -> None:
        super().__init__()
        if cells < 2 or cells % 2:
            raise ValueError(f"cells: found {cells}, expected an even number of at least 2")
        if not 0 < reach < math.inf:
            raise ValueError(f"reach: found {reach}, expected a positive number")
        self.shape, self.cells, self.reach = tuple(shape), cells, reach
        self.width = 2 * reach / cells
        count = math.prod(shape)
        self.log_slopes = nn.Parameter(torch.zeros(count, cells))
        first = torch.arange(count) * (cells + 2)  # two more cells for the lines beyond the ends
        self.first = nn.Buffer(first.view(self.shape), persistent=False)

    def local(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f(x) and its first ``order`` derivatives."""
        with torch.no_grad():
            place = (x / self.width + (self.cells / 2 + 1)).clamp(0, self.cells + 1)
            cell = place.long().clamp(0, self.cells + 1)  # NaN stays in x
            edge = self._edge(cell, x)
        index = (cell + self.first).flatten()
        p = [row.index_select(0, index).view(x.shape) for row in self._cubics()]
        made = (_polynomial, _slope, _bend, lambda p, x: 6 * p[3])
        x = x - edge
        return tuple(function(p, x) for function in made[: order + 1])

    def value(self, at: tuple[Tensor, ...]) -> Tensor:
        return at[0]

    def derivatives(self, at: tuple[Tensor, ...], order: int) -> tuple[Tensor, ...]:
        d1 = at[1]
        if order == 1:
            return (d1,)
        psi1 = at[2] / d1
        return (d1, psi1) if order == 2 else (d1, psi1, at[3] / d1 - psi1 * psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y to 8 ε (``reach`` + |x|), at least in float32; NaN stays NaN."""
        x = self._solved(at_least_float32(y)).to(y.dtype)
        if not torch.is_grad_enabled():
            return x
        value, slope, *_ = self.local(x, 1)  # one more Newton step has the gradients
        return x - (value - y) / slope.detach()

    @torch.no_grad()
    def _solved(self, y: Tensor) -> Tensor:
        """Returns x, from the cell whose knots have values around y."""
        cubics = self._cubics().to(y.dtype)
        knots = cubics[0].view(-1, self.cells + 2)[:, 1:].reshape(*self.first.shape, -1)
        cell = (y.unsqueeze(-1) >= knots).sum(-1)
        index = (cell + self.first).flatten()
        p = [row.index_select(0, index).view(y.shape) for row in cubics]
        inside = (cell > 0) & (cell <= self.cells)

        def excess(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.where(inside, _polynomial(p, x) - y, 0), _slope(p, x)

        x = root(excess, torch.zeros_like(y), torch.full_like(y, self.width), self.reach)
        return self._edge(cell, y) + torch.where(inside, x, (y - p[0]) / p[1])

    def _edge(self, cell: Tensor, like: Tensor) -> Tensor:
        """Returns the left end of cells; for the lines beyond the ends, the end of the grid."""
        return ((cell - 1).clamp(0, self.cells).to(like.dtype) - self.cells / 2) * self.width

    def _cubics(self) -> Tensor:
        """Returns the coefficients of every cell's cubic, with shape (4, E (M + 2))."""
        s, h = self.log_slopes.exp(), self.width
        s = torch.cat([s[:, :1], s, s[:, -1:]], 1)
        rises = (s[:, :-2] + 4 * s[:, 1:-1] + s[:, 2:]) * (h / 6)
        knots = torch.cat([rises.new_zeros(len(rises), 1), rises.cumsum(1)], 1)
        knots = knots - knots[:, self.cells // 2, None]
        slopes = 0.5 * (s[:, :-1] + s[:, 1:])
        bends, zero = s.diff(), s.new_zeros(len(s), 1)
        second = torch.cat([zero, bends[:, :-1] / (2 * h), zero], 1)
        third = torch.cat([zero, bends.diff() / (6 * h * h), zero], 1)
        ends = (torch.cat([t[:, :1], t], 1) for t in (knots, slopes))
        return torch.stack([t.flatten() for t in (*ends, second, third)])


def _polynomial(p: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.addcmul(p[0], torch.addcmul(p[1], torch.addcmul(p[2], p[3], x), x), x)


def _slope(p: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.addcmul(p[1], torch.addcmul(p[2], p[3], x, value=1.5), x, value=2)


def _bend(p: Sequence[Tensor], x: Tensor) -> Tensor:
    return 2 * torch.addcmul(p[2], p[3], x, value=3)
