r"""Learned activations of every element, or of every channel of an image.

They map onto the real line, with slopes bounded away from 0 at both ends:

* ``MonotoneSpline``, a cubic spline: :math:`C^2`, O(1) an element for any number of cells;
* ``MonotoneTanh``, a line and K steps: :math:`C^\infty`, O(K) an element.

Sources: B-splines (de Boor, A Practical Guide to Splines, 1978); sums of monotone steps as in
Iterative Gaussianization (Laparra, Camps-Valls, Malo, 2011), arXiv:1602.00229, and Neural
Autoregressive Flows (Huang, Krueger, Lacoste, Courville, 2018), arXiv:1804.00779.
"""

__all__ = ["Learned", "MonotoneSpline", "MonotoneTanh"]

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NonFinite
from .activations import Elementwise
from .base import at_least_float32

Gradients = tuple[Tensor | None, ...]

STEPS = 200
"""Largest number of steps of an inverse: Newton's, and a halving for every binary digit."""


class Learned(Elementwise):
    """An ``Elementwise`` layer whose ``local`` is f(x) and at least ``order`` derivatives."""

    pixelwise = False

    def value(self, at: tuple[Tensor, ...]) -> Tensor:
        """Returns f(x)."""
        return at[0]

    def derivatives(self, at: tuple[Tensor, ...], order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f'."""
        d1 = at[1]
        if order == 1:
            return (d1,)
        psi1 = at[2] / d1
        return (d1, psi1) if order == 2 else (d1, psi1, at[3] / d1 - psi1 * psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y to 8 ε (``reach`` + |x|), at least in float32; NaN stays NaN.

        Raises:
            NonFinite: if 200 steps are not enough.
        """
        x = self.solve(at_least_float32(y)).to(y.dtype)
        if not torch.is_grad_enabled():
            return x
        value, slope, *_ = self.local(x, 1)  # one more Newton step has the gradients
        return x - (value - y) / slope.detach()

    @abstractmethod
    def solve(self, y: Tensor) -> Tensor:
        """Returns x with f(x) = y, without gradients."""


def _owners(shape: Sequence[int], channels: bool) -> tuple[int, ...]:
    """Returns the shape of the learned functions, which broadcasts over events."""
    return (shape[0], *[1] * (len(shape) - 1)) if channels else tuple(shape)


def _check_reach(reach: float) -> None:
    if not 0 < reach < math.inf:
        raise ValueError(f"reach: found {reach}, expected a positive number")


def _root(
    f: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, scale: float
) -> Tensor:
    """Returns the zeros in [low, high] of increasing functions, to 8 ε (scale + |x|).

    It is Newton's iteration. If a step would leave the interval, or is more than half as long as
    the last one, the interval is halved instead.

    Arguments:
        f: A function from points to values and slopes.
        low: Points with values of at most 0.
        high: Points with values of at least 0.
        scale: The size of x below which errors are absolute.
    """
    x, moved, epsilon = 0.5 * (low + high), high - low, 8 * torch.finfo(low.dtype).eps
    for _ in range(STEPS):
        excess, slope = f(x)
        low, high = torch.where(excess <= 0, x, low), torch.where(excess >= 0, x, high)
        step = excess / slope
        tolerance, fresh = epsilon * (scale + x.abs()), x - step
        kept = (fresh > low) & (fresh < high) & (step.abs() <= 0.5 * moved)
        held = torch.where(kept | (step.abs() <= tolerance), fresh, 0.5 * (low + high))
        moved, x = (held - x).abs(), held
        if (moved <= tolerance).all():
            return x
    raise NonFinite(f"inverse of a learned activation: {STEPS} steps did not converge")


class MonotoneSpline(Learned):
    r"""Creates a learned increasing function of every element, or of every channel of an image.

    On a uniform grid of M cells of width h over [−R, R], the slope is a quadratic B-spline with
    positive coefficients s:

    .. math:: f'(x) = s_i \frac{(1 - r)^2}{2} + s_{i+1} \left( \tfrac12 + r - r^2 \right)
        + s_{i+2} \frac{r^2}{2}, \qquad x = -R + (i + r) h,

    so f is a cubic spline, twice continuously differentiable, and f' lies between the smallest and
    the largest s. The outermost coefficients are doubled, so that f'' = 0 at both ends; beyond
    them f is a line. :math:`f(0) = 0`; at the start f is the identity. There are M coefficients
    :math:`s = e^\theta` per element.

    Value and derivatives cost O(1) an element for any M: they look up the four coefficients of a
    cubic. The inverse finds the cell among f's values at the knots, and solves the cubic inside it
    by Newton's iteration.

    Arguments:
        shape: The shape of an event.
        cells: M, an even number.
        reach: R, in the units of the elements.
        channels: True if elements of a channel, the first dimension, share their function.
    """

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
        _check_reach(reach)
        self.shape, self.cells, self.reach = tuple(shape), cells, reach
        self.width = 2 * reach / cells
        owners = _owners(shape, channels)
        count = math.prod(owners)
        self.log_slopes = nn.Parameter(torch.zeros(count, cells))
        # Two more cells for the lines beyond the ends.
        self.first = nn.Buffer((torch.arange(count) * (cells + 2)).view(owners), persistent=False)

    def extra_repr(self) -> str:
        """Names the sizes."""
        return f"{self.shape}, cells={self.cells}, reach={self.reach}"

    def local(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f(x) and its first ``order`` derivatives."""
        with torch.no_grad():
            place = (x / self.width + (self.cells / 2 + 1)).clamp(0, self.cells + 1)
            cell = place.long().clamp(0, self.cells + 1)  # NaN stays in x
            edge = self._edge(cell, x)
        return _Cubic.apply(order, x, edge, (cell + self.first).flatten(), self._cubics())

    @torch.no_grad()
    def solve(self, y: Tensor) -> Tensor:
        """Returns x, from the cell whose knots have values around y."""
        cubics = self._cubics().to(y.dtype)
        knots = cubics[0].view(-1, self.cells + 2)[:, 1:].reshape(*self.first.shape, -1)
        cell = (y.unsqueeze(-1) >= knots).sum(-1)
        index = (cell + self.first).flatten()
        p = [row.index_select(0, index).view(y.shape) for row in cubics]
        inside = (cell > 0) & (cell <= self.cells)
        line = (y - p[0]) / p[1]
        return self._edge(cell, y) + torch.where(inside, self._solved(y, p, inside), line)

    def _edge(self, cell: Tensor, like: Tensor) -> Tensor:
        """Returns the left end of cells; for the lines beyond the ends, the end of the grid."""
        return ((cell - 1).clamp(0, self.cells).to(like.dtype) - self.cells / 2) * self.width

    def _solved(self, y: Tensor, p: list[Tensor], inside: Tensor) -> Tensor:
        """Returns x in [0, h] where the cells' cubics are ``y``; any value for the lines."""

        def excess(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.where(inside, _polynomial(p, x) - y, 0), _slope(p, x)

        return _root(excess, torch.zeros_like(y), torch.full_like(y, self.width), self.reach)

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
    r"""A cubic of every element and its first derivatives, by a table of coefficients.

    The gradients of p₀ + p₁ x + p₂ x² + p₃ x³ and its derivatives, by x and by p, are polynomials
    in x, the distance from the cell's edge. So the backward pass saves only x and p.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        order: int, x: Tensor, edge: Tensor, index: Tensor, table: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns the value and ``order`` derivatives, shaped as x."""
        x = x - edge
        p = [row.index_select(0, index).view(x.shape) for row in table]
        made = (_polynomial, _slope, _bend, lambda p, x: 6 * p[3])
        return tuple(function(p, x) for function in made[: order + 1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: object) -> None:  # noqa: ANN401
        """Saves only the inputs."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:  # noqa: ANN401
        """Returns the gradients by x and by the table."""
        x, edge, index, table = ctx.saved_tensors
        x = x - edge
        p = [None, *(row.index_select(0, index).view(x.shape) for row in table[1:])]
        g0, g1 = (torch.zeros_like(x) if g is None else g for g in (*grads, None)[:2])
        down = torch.addcmul(g1 * _bend(p, x), g0, _slope(p, x))
        scaled = g0 * x
        first = scaled + g1
        second, third = (first + g1) * x, torch.add(scaled, g1, alpha=3) * x
        if len(grads) > 2 and grads[2] is not None:
            down = torch.addcmul(down, grads[2], p[3], value=6)
            second, third = second + 2 * grads[2], third + 6 * grads[2]
        third = third * x
        if len(grads) > 3 and grads[3] is not None:
            third = third + 6 * grads[3]
        rows = (g0, first, second, third)
        found = [table.new_zeros(table.shape[1]).index_add(0, index, g.flatten()) for g in rows]
        return None, down, None, None, torch.stack(found)


class MonotoneTanh(Learned):
    r"""Creates a learned increasing function of every element: a line and K steps.

    .. math:: f(x) = e^s x + \sum_k a_k \tanh(b_k (x - c_k)), \qquad a_k, b_k > 0,

    with a and b by softplus. It is :math:`C^\infty`; its slope is :math:`e^s` at ±∞ and larger in
    between. At the start f is odd, with slope 1 at 0 and near the identity: the c are spread over
    [−R, R], where the steps add up to half a line, within a twentieth on [−2R/3, 2R/3].

    Value and derivatives are O(K) an element, for K hyperbolic tangents. The inverse is Newton's
    iteration between :math:`e^{-s} (y \pm \sum a)`.

    Arguments:
        shape: The shape of an event.
        terms: K, the number of steps.
        reach: R, in the units of the elements.
        channels: True if elements of a channel, the first dimension, share their function.
    """

    max_order = 2

    def __init__(
        self, shape: tuple[int, ...], *, terms: int = 6, reach: float = 3.0, channels: bool = False
    ) -> None:
        super().__init__()
        if terms < 2:
            raise ValueError(f"terms: found {terms}, expected at least 2")
        _check_reach(reach)
        self.shape, self.terms, self.reach = tuple(shape), terms, reach
        spacing = 2 * reach / (terms - 1)
        owners = _owners(shape, channels)
        centres = torch.linspace(-reach, reach, terms).view(-1, *[1] * len(owners))
        steepness, height = torch.tensor(0.9 / spacing), torch.tensor(0.25 * spacing)
        inner = height * steepness * (1 - torch.tanh(steepness * centres).square()).sum()
        self.log_slope = nn.Parameter(torch.log1p(-inner).expand(owners).clone())
        for name, start in (("heights", height), ("steepness", steepness)):
            raw = torch.expm1(start).log()
            self.register_parameter(name, nn.Parameter(raw.expand(terms, *owners).clone()))
        self.centres = nn.Parameter(centres.expand(terms, *owners).clone())

    def extra_repr(self) -> str:
        """Names the sizes."""
        return f"{self.shape}, terms={self.terms}, reach={self.reach}"

    def local(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f(x) and its first ``order`` derivatives."""
        return _Steps.apply(order, x, *self._coefficients())

    @torch.no_grad()
    def solve(self, y: Tensor) -> Tensor:
        """Returns x, between two lines around f."""
        coefficients = [t.to(y.dtype) for t in self._coefficients()]
        slope, heights = coefficients[0], coefficients[1].sum(0)
        real = y.isfinite()
        target = torch.where(real, y, 0)

        def excess(x: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = _Steps.forward(1, x, *coefficients)
            return value - target, slope

        ends = ((target + sign * heights) / slope for sign in (-1, 1))
        return torch.where(real, _root(excess, *ends, self.reach), y)

    def _coefficients(self) -> tuple[Tensor, ...]:
        """Returns the slope of the line, and a, b and c with shape (K, *)."""
        heights, steepness = F.softplus(self.heights), F.softplus(self.steepness)
        return self.log_slope.exp(), heights, steepness, self.centres


class _Steps(torch.autograd.Function):
    r"""A line and steps of every element, and its three derivatives.

    With :math:`t = \tanh(b (x - c))`, the n-th derivative of t is :math:`b^n T_n(t)`. The backward
    pass saves only the inputs and computes t again, so that nothing of shape (K, B, D) is stored.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(order: int, x: Tensor, slope: Tensor, *steps: Tensor) -> tuple[Tensor, ...]:
        """Returns f and ``order`` of its derivatives, shaped as x."""
        value, zero = slope * x, torch.zeros_like(x)
        higher = [zero + slope, zero, zero][:order]
        for a, b, c in zip(*steps, strict=True):
            t, *towers = _towers(_tanh((x - c) * b), b, order)
            value, ab = torch.addcmul(value, a, t), a * b
            higher = [torch.addcmul(d, ab, q) for d, q in zip(higher, towers, strict=True)]
        return value, *higher

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:  # noqa: ANN401
        """Saves only the inputs."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:  # noqa: ANN401
        """Returns the gradients by x and by all parameters."""
        x, slope, *steps = ctx.saved_tensors
        order = 1 + max((n for n, g in enumerate(grads) if g is not None), default=0)
        grads = [torch.zeros_like(x) if g is None else g for g in grads[:order]]
        rows = [_of_a_step(x, grads, *step) for step in zip(*steps, strict=True)]
        down = sum((row[0] for row in rows), start=slope * grads[0])
        line = sum(grads[1:2], start=grads[0] * x)
        of_steps = (torch.stack([_owned(row[i], slope) for row in rows]) for i in range(1, 4))
        return None, down, _owned(line, slope), *of_steps


def _of_a_step(
    x: Tensor, grads: Sequence[Tensor], a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of a step by x, a, b and c, each shaped as x."""
    z = x - c
    t, *towers = _towers(_tanh(z * b), b, len(grads))
    moved = _dot(grads, towers)
    of_heights, of_steepness = grads[0] * t, moved * z
    if len(grads) > 1:
        of_heights = torch.addcmul(of_heights, b, _dot(grads[1:], towers))
        powers = [n * tower for n, tower in enumerate(towers[:-1], 1)]
        of_steepness = of_steepness + _dot(grads[1:], powers)
    down = a * b * moved
    return down, of_heights, a * of_steepness, -down


def _tanh(x: Tensor) -> Tensor:
    """Returns tanh(x) by the sigmoid, which is six times as fast as PyTorch's tanh on a CPU."""
    return 2 * torch.sigmoid(2 * x) - 1


def _towers(t: Tensor, b: Tensor, order: int) -> list[Tensor]:
    r"""Returns t, and :math:`b^{n-1} T_n(t)` for n = 1 … ``order``, at most 4."""
    found, bt = [t, 1 - t * t][: order + 1], b * t
    if order > 1:
        found.append(-2 * bt * found[1])
    if order > 2:
        found.append(2 * found[1] * (3 * bt * bt - b * b))
    if order > 3:
        found.append(4 * found[2] * (3 * bt * bt - 2 * b * b))
    return found


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Returns Σ left · right over the shorter length."""
    first, *others = zip(left, right)  # noqa: B905
    total = first[0] * first[1]
    for pair in others:
        total = torch.addcmul(total, *pair)
    return total


def _owned(t: Tensor, like: Tensor) -> Tensor:
    """Sums over the batch, and over the elements that share the parameters ``like``."""
    t = t.sum(tuple(range(t.ndim - like.ndim)))
    shared = [i for i, n in enumerate(like.shape) if n == 1 and t.shape[i] > 1]
    return t.sum(shared, keepdim=True) if shared else t
