r"""Activations: increasing functions of every element alone.

For :math:`y_i = f(x_i)` with :math:`f' > 0`, :math:`\psi = \sum_i \log f'(x_i)`; a layer gives
:math:`f`, and :math:`f', \; \psi' = (\log f')', \; \psi''`, so that :math:`f'' = f' \psi'`.
"""

__all__ = ["Elementwise", "MonotoneSpline", "SmoothLeakyReLU"]

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NonFinite
from ..networks import Jet
from .base import Bijection, Linearization, at_least_float32, sum_event


class Elementwise(Bijection):
    """An increasing function of every element, with closed-form derivatives."""

    pixelwise = True

    def local(self, x: Tensor) -> Any:  # noqa: ANN401
        """Returns what value and derivatives at ``x`` share: ``x`` itself, or more."""
        return x

    @abstractmethod
    def value(self, at: Any) -> Tensor:  # noqa: ANN401
        """Returns f(x) at a ``local``."""

    @abstractmethod
    def derivatives(self, at: Any, order: int) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Returns the first ``order`` of f', (log f')' and (log f')'', each shaped as x."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        return self.value(self.local(x))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x) and Σ log f'(x) with shape (B,)."""
        at = self.local(x)
        return self.value(at), sum_event(self.derivatives(at, 1)[0].log(), x)

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``: one evaluation of the derivatives serves every use."""
        return _ElementwiseLinearization(self, x)

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Applies Faà di Bruno's formula to second order; O(B D)."""
        x, v, a = jet
        at = self.local(x)
        d1, psi1, psi2 = self.derivatives(at, 3)
        dv, vv = d1 * v, v * v
        bend = dv * v * psi1 if a is None else d1 * (vv * psi1 + a)
        second = vv * psi2 if a is None else vv * psi2 + psi1 * a
        return Jet(self.value(at), dv, bend), sum_event(psi1 * v, x), sum_event(second, x)


class _ElementwiseLinearization(Linearization):
    def __init__(self, layer: Elementwise, x: Tensor) -> None:
        self.layer, self.x, self._at = layer, x, layer.local(x)
        self.y = layer.value(self._at)
        self._known: tuple[Tensor, ...] = ()

    def _derivatives(self, order: int) -> tuple[Tensor, ...]:
        if len(self._known) < order:
            self._known = self.layer.derivatives(self._at, order)
        return self._known

    def pullback(self, s: Tensor) -> Tensor:
        d1, psi1 = self._derivatives(2)[:2]
        return torch.addcmul(psi1, s, d1)

    def tangent(self, v: Tensor) -> Tensor:
        return v * self._derivatives(3)[0]

    def diagonal(self, s: Tensor) -> tuple[Tensor, Tensor]:
        d1, psi1, psi2 = self._derivatives(3)
        return d1, torch.addcmul(psi2, s, d1 * psi1)

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        return sum_event(v * v * self.diagonal(s)[1], self.x)

    def log_det(self) -> Tensor:
        return sum_event(self._derivatives(2)[0].log(), self.x)


class SmoothLeakyReLU(Elementwise):
    r"""Creates f(x) = α x + (1 − α) log(1 + eˣ), plus x if ``residual``.

    Slopes run from α to 1, or from 1 + α to 2 with ``residual``. The inverse is Newton's
    iteration to a relative tolerance of a few units in the last place.

    Arguments:
        alpha: The slope α at −∞, in (0, 1).
        residual: Whether x is added.
    """

    def __init__(self, alpha: float = 0.3, *, residual: bool = False) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: found {alpha}, expected a slope in (0, 1)")
        self.alpha, self.residual = alpha, residual

    def extra_repr(self) -> str:
        """Names the two constants."""
        return f"alpha={self.alpha}, residual={self.residual}"

    def value(self, x: Tensor) -> Tensor:
        """Returns f(x), with one softplus."""
        # PyTorch's default, from 20 on the identity, is a step down: not monotone.
        softplus = F.softplus(x, threshold=50)
        return torch.add(softplus * (1 - self.alpha), x, alpha=self.alpha + self.residual)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f', all from one sigmoid."""
        sigma = torch.sigmoid(x)
        d1 = sigma * (1 - self.alpha) + (self.alpha + self.residual)
        if order == 1:
            return (d1,)
        psi1 = sigma * (1 - sigma) * (1 - self.alpha) / d1
        if order == 2:
            return d1, psi1
        return d1, psi1, psi1 * (1 - 2 * sigma - psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y; raises NonFinite if 50 Newton steps do not, as where y is NaN."""
        low, high, dtype = self.alpha + self.residual, 1.0 + self.residual, y.dtype
        y = at_least_float32(y)
        x = torch.where(y > 0, y / high, y / low)
        tolerance = 8 * torch.finfo(y.dtype).eps
        for _ in range(50):
            step = (self.value(x) - y) / self.derivatives(x, 1)[0]
            x = x - step
            if (step.abs() <= tolerance * (1 + x.abs())).all():
                return x.to(dtype)
        raise NonFinite("SmoothLeakyReLU.inverse: 50 Newton steps did not converge")


class MonotoneSpline(Elementwise):
    r"""Creates a learned increasing function of every element, or of every channel of an image.

    On a uniform grid of M cells of width h over [−R, R], the slope is a quadratic B-spline with
    positive coefficients s:

    .. math:: f'(x) = s_i \frac{(1 - r)^2}{2} + s_{i+1} \left( \tfrac12 + r - r^2 \right)
        + s_{i+2} \frac{r^2}{2}, \qquad x = -R + (i + r) h,

    so f is a cubic spline, twice continuously differentiable, and f' lies between the least and
    the largest s. The outermost coefficients are doubled, so that f'' = 0 at both ends, where f
    goes on as a line. :math:`f(0) = 0`; at the start f is the identity. Coefficients are
    :math:`s = e^\theta`, M of them an element.

    Value and derivatives cost O(1) an element, whatever M is: the four coefficients of a cubic are
    looked up. The inverse finds the cell among f's values at the knots, and in it solves the cubic
    by Newton's iteration, held inside.

    Arguments:
        shape: The shape of an event.
        cells: M, an even number.
        reach: R, in the units of the elements.
        channels: Whether elements of a channel, the first dimension, share their function.
    """

    pixelwise = False

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        cells: int = 16,
        reach: float = 4.0,
        channels: bool = False,
    ) -> None:
        super().__init__()
        if cells < 2 or cells % 2:
            raise ValueError(f"cells: found {cells}, expected an even number of at least 2")
        if not reach > 0:
            raise ValueError(f"reach: found {reach}, expected a positive number")
        self.shape, self.cells, self.reach = tuple(shape), cells, reach
        self.width = 2 * reach / cells
        owners = (shape[0], *[1] * (len(shape) - 1)) if channels else self.shape
        count = math.prod(owners)
        self.log_slopes = nn.Parameter(torch.zeros(count, cells))
        # Two cells more, the lines beyond the ends.
        self.first = nn.Buffer((torch.arange(count) * (cells + 2)).view(owners), persistent=False)

    def extra_repr(self) -> str:
        """Names the sizes."""
        return f"{self.shape}, cells={self.cells}, reach={self.reach}"

    def local(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns f(x) and its first three derivatives."""
        with torch.no_grad():
            place = (x / self.width + (self.cells / 2 + 1)).clamp_(0, self.cells + 1)
            cell = place.long().clamp_(0, self.cells + 1)  # NaN stays in x
            edge = self._edge(cell, x)
        return _Cubic.apply(x, edge, (cell + self.first).flatten(), self._cubics())

    def value(self, at: tuple[Tensor, ...]) -> Tensor:
        """Returns f(x)."""
        return at[0]

    def derivatives(self, at: tuple[Tensor, ...], order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f'."""
        _, d1, d2, d3 = at
        if order == 1:
            return (d1,)
        psi1 = d2 / d1
        return (d1, psi1) if order == 2 else (d1, psi1, d3 / d1 - psi1 * psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y; in float32 where y is shorter; NaN where y is.

        Raises:
            NonFinite: if 60 steps do not.
        """
        x = self._inverse(at_least_float32(y)).to(y.dtype)
        if not torch.is_grad_enabled():
            return x
        value, slope, *_ = self.local(x)  # one step more carries gradients
        return x - (value - y) / slope.detach()

    @torch.no_grad()
    def _inverse(self, y: Tensor) -> Tensor:
        cubics = self._cubics().to(y.dtype)
        knots = cubics[0].view(-1, self.cells + 2)[:, 1:].reshape(*self.first.shape, -1)
        cell = (y.unsqueeze(-1) >= knots).sum(-1)
        index = (cell + self.first).flatten()
        p = [row.index_select(0, index).view(y.shape) for row in cubics]
        inside = (cell > 0) & (cell <= self.cells)
        line = (y - p[0]) / p[1]
        return self._edge(cell, y) + torch.where(inside, self._solved(y, p, inside), line)

    def _edge(self, cell: Tensor, like: Tensor) -> Tensor:
        """Returns the left end of cells; of those beyond the ends, the end."""
        return ((cell - 1).clamp_(0, self.cells).to(like.dtype) - self.cells / 2) * self.width

    def _solved(self, y: Tensor, p: list[Tensor], inside: Tensor) -> Tensor:
        """Returns where in [0, h] the cubics of cells are ``y``; of others, anything."""
        low, high = torch.zeros_like(y), torch.full_like(y, self.width)
        x, tolerance = 0.5 * high, 8 * torch.finfo(y.dtype).eps * self.reach
        for _ in range(60):
            excess = _polynomial(p, x) - y
            low, high = torch.where(excess <= 0, x, low), torch.where(excess >= 0, x, high)
            fresh = x - excess / _slope(p, x)
            held = torch.where((fresh >= low) & (fresh <= high), fresh, 0.5 * (low + high))
            moved, x = (held - x).abs(), held
            if ((moved <= tolerance) | ~inside).all():
                return x
        raise NonFinite("MonotoneSpline.inverse: 60 steps did not converge")

    def _cubics(self) -> Tensor:
        """Returns the coefficients of every cell's cubic, with shape (4, E (M + 2))."""
        s, h = self.log_slopes.exp(), self.width
        s = torch.cat([s[:, :1], s, s[:, -1:]], 1)
        rises = (s[:, :-2] + 4 * s[:, 1:-1] + s[:, 2:]) * (h / 6)
        knots = torch.cat([rises.new_zeros(len(rises), 1), rises.cumsum(1)], 1)
        knots = knots - knots[:, [self.cells // 2]]
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


class _Cubic(torch.autograd.Function):
    r"""A cubic of every element and its three derivatives, looked up in a table.

    Of p₀ + p₁ x + p₂ x² + p₃ x³, x from the cell's edge on, the gradients of all four values by x
    and by the coefficients are polynomials in x again: nothing but x and p is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, edge: Tensor, index: Tensor, table: Tensor) -> tuple:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, edge, index, table)
        x = x - edge
        p = [row.index_select(0, index).view(x.shape) for row in table]
        return _polynomial(p, x), _slope(p, x), _bend(p, x), 6 * p[3]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, edge, index, table = ctx.saved_tensors
        x = x - edge
        p = [None, *(row.index_select(0, index).view(x.shape) for row in table[1:])]
        g0, g1, g2, g3 = (torch.zeros_like(x) if g is None else g for g in grads)
        down = torch.addcmul(torch.addcmul(6 * g2 * p[3], g1, _bend(p, x)), g0, _slope(p, x))
        scaled = g0 * x
        first = scaled + g1
        second = (first + g1) * x + 2 * g2
        third = ((scaled + 3 * g1) * x + 6 * g2) * x + 6 * g3
        rows = (g0, first, second, third)
        found = [table.new_zeros(table.shape[1]).index_add(0, index, g.flatten()) for g in rows]
        return down, None, None, torch.stack(found)
