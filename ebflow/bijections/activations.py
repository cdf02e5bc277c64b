r"""Activations: increasing functions of every element alone.

For :math:`y_i = f(x_i)` with :math:`f' > 0`, :math:`\psi = \sum_i \log f'(x_i)`; a layer gives
:math:`f`, and :math:`f', \; \psi' = (\log f')', \; \psi''`, so that :math:`f'' = f' \psi'`.
"""

__all__ = ["Elementwise", "MonotoneSpline", "SmoothLeakyReLU"]

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NonFinite
from ..jets import Jet
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


class _Cell(NamedTuple):
    """Where x is: in a cell of the grid, or beyond its ends."""

    x: Tensor
    inside: Tensor
    """x moved into [−R, R]."""
    r: Tensor
    """Where ``inside`` is in its cell, from 0 to 1."""
    s0: Tensor
    s1: Tensor
    s2: Tensor
    """The three slopes that the cell sees."""
    y: Tensor
    """f at the cell's left end."""


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

    Value and derivatives cost O(1) an element, whatever M is: four numbers are looked up. The
    inverse finds the cell among f's values at the knots, and in it solves a cubic by Newton's
    iteration, held inside.

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
        owners = (shape[0], *[1] * (len(shape) - 1)) if channels else self.shape
        count = math.prod(owners)
        self.log_slopes = nn.Parameter(torch.zeros(count, cells))
        first = (torch.arange(count) * cells).view(owners)
        self.first = nn.Buffer(first, persistent=False)

    def extra_repr(self) -> str:
        """Names the sizes."""
        return f"{self.shape}, cells={self.cells}, reach={self.reach}"

    def local(self, x: Tensor) -> _Cell:
        """Looks up the cells of ``x``."""
        slopes, knots = self._tables()
        inside = x.clamp(-self.reach, self.reach)
        place = (inside + self.reach) * (self.cells / (2 * self.reach))
        cell = place.detach().long().clamp_(0, self.cells - 1)  # NaN stays in the rest
        return self._looked_up(x, inside, cell, place - cell, slopes, knots)

    def _looked_up(
        self,
        x: Tensor,
        inside: Tensor,
        cell: Tensor,
        r: Tensor,
        slopes: Tensor,
        knots: Tensor,
    ) -> _Cell:
        index = (cell + self.first).flatten()
        tables = (slopes[:, :-2], slopes[:, 1:-1], slopes[:, 2:], knots[:, :-1])
        found = (table.flatten().index_select(0, index).view(x.shape) for table in tables)
        return _Cell(x, inside, r, *found)

    def value(self, at: _Cell) -> Tensor:
        """Returns f(x)."""
        y = self._cubic(at.r, at)
        return torch.addcmul(y, at.x - at.inside, self.derivatives(at, 1)[0])

    def derivatives(self, at: _Cell, order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f'."""
        r, h = at.r, 2 * self.reach / self.cells
        rise, bend = at.s1 - at.s0, at.s0 - 2 * at.s1 + at.s2
        d1 = 0.5 * (at.s0 + at.s1) + r * (rise + (0.5 * bend) * r)
        if order == 1:
            return (d1,)
        curved = (at.x == at.inside).to(d1) / h
        psi1 = (rise + bend * r) * curved / d1
        if order == 2:
            return d1, psi1
        return d1, psi1, bend * curved.square() / d1 - psi1 * psi1

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y; in float32 where y is shorter.

        Raises:
            NonFinite: if 50 steps do not, as where y is NaN.
        """
        x = self._inverse(at_least_float32(y)).to(y.dtype)
        if not torch.is_grad_enabled():
            return x
        at = self.local(x)  # one step more carries the gradients of y and of the coefficients
        return x - (self.value(at) - y) / self.derivatives(at, 1)[0].detach()

    @torch.no_grad()
    def _inverse(self, y: Tensor) -> Tensor:
        slopes, knots = (t.to(y.dtype) for t in self._tables())
        ends = knots[:, [0, -1]].view(*self.first.shape, 2)
        clamped = torch.minimum(torch.maximum(y, ends[..., 0]), ends[..., 1])
        edges = knots[:, 1:-1].view(*self.first.shape, -1)
        cell = (clamped.unsqueeze(-1) >= edges).sum(-1)
        at = self._looked_up(y, y, cell, torch.zeros_like(y), slopes, knots)
        at = at._replace(r=self._solve(clamped, at))
        inside = (cell + at.r) * (2 * self.reach / self.cells) - self.reach
        return inside + (y - clamped) / self.derivatives(at, 1)[0]

    def _solve(self, y: Tensor, at: _Cell) -> Tensor:
        """Returns r in [0, 1] with the cubic of a cell equal to ``y``."""
        low, high = torch.zeros_like(y), torch.ones_like(y)
        r, h = 0.5 * (low + high), 2 * self.reach / self.cells
        tolerance = 8 * torch.finfo(y.dtype).eps
        for _ in range(60):
            excess = self._cubic(r, at) - y
            low, high = torch.where(excess <= 0, r, low), torch.where(excess >= 0, r, high)
            step = excess / (h * self.derivatives(at._replace(r=r), 1)[0])
            fresh = r - step
            held = torch.where((fresh >= low) & (fresh <= high), fresh, 0.5 * (low + high))
            moved, r = (held - r).abs(), held
            if (moved <= tolerance).all():
                return r
        raise NonFinite("MonotoneSpline.inverse: 60 steps did not converge")

    def _cubic(self, r: Tensor, at: _Cell) -> Tensor:
        h = 2 * self.reach / self.cells
        rise, bend = at.s1 - at.s0, at.s0 - 2 * at.s1 + at.s2
        line = 0.5 * (at.s0 + at.s1) + r * (0.5 * rise + (bend / 6) * r)
        return torch.addcmul(at.y, r, line, value=h)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Returns slopes, outermost ones doubled, (E, M + 2), and f at the knots, (E, M + 1)."""
        slopes = self.log_slopes.exp()
        slopes = torch.cat([slopes[:, :1], slopes, slopes[:, -1:]], 1)
        h = 2 * self.reach / self.cells
        rises = (slopes[:, :-2] + 4 * slopes[:, 1:-1] + slopes[:, 2:]) * (h / 6)
        knots = torch.cat([rises.new_zeros(len(rises), 1), rises.cumsum(1)], 1)
        return slopes, knots - knots[:, [self.cells // 2]]
