r"""Increasing functions of one element, which couplings and autoregressive layers parametrize.

A function :math:`f(x; h)` acts on every element alone. Its parameters h are unconstrained, and
h = 0 is the identity.

The rational-quadratic spline runs through knots :math:`(x_k, y_k)` with slopes :math:`d_k`. In a
bin of width w, height v and mean slope s = v / w, with z = (x − x₀) / w,

.. math::
    f(x) = y_0 + v \, \frac{s z^2 + d_0 z (1 - z)}{s + t z (1 - z)}, \qquad
    f'(x) = s^2 \, \frac{2 s z (1 - z) + d_0 (1 - z)^2 + d_1 z^2}{(s + t z (1 - z))^2}, \qquad
    t = d_0 + d_1 - 2 s.

Its second derivative jumps at the knots, so the score has jumps. ``ssm`` and ``ssm_vr`` miss what
these contribute to the trace of the score's Jacobian. The likelihoods and ``dsm`` do not, nor
does ``fd_ssm``, whose differences reach across a jump.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Log of the least slope of a spline at its knots, and of the least ratio of two bins' sizes.
LEAST = math.log(1e-3)
LN_2 = math.log(2)  # Powers of 2 take half as long as those of e


class Univariate(ABC):
    """An increasing function f(x; h) of every element, with ``count`` parameters an element.

    ``x`` has shape (B, C, *) and ``h`` (B, C, count, *).
    """

    count: int
    """The number of parameters of an element."""

    @abstractmethod
    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x; h) and log ∂f/∂x, both shaped as ``x``."""

    @abstractmethod
    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Returns x with f(x; h) = y."""


@dataclass(frozen=True)
class ScaleShift(Univariate):
    """y = x eˢ + t, or its inverse y = (x − t) e⁻ˢ; h = (s, t).

    Source: Density estimation using Real NVP (Dinh, Sohl-Dickstein, Bengio, 2017),
    arXiv:1605.08803.

    Attributes:
        bound: c in s ← c tanh(s / c), so that |s| is below c; None: s is free.
        inverted: Use the second form.
    """

    bound: float | None = None
    inverted: bool = False
    count = 2

    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._read(h)
        return ((x - t) * torch.exp(-s), -s) if self.inverted else (x * torch.exp(s) + t, s)

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        s, t = self._read(h)
        return y * torch.exp(s) + t if self.inverted else (y - t) * torch.exp(-s)

    def _read(self, h: Tensor) -> tuple[Tensor, Tensor]:
        s, t = h.unbind(2)
        return (s if self.bound is None else self.bound * torch.tanh(s / self.bound)), t


class _Bin(NamedTuple):
    """The bin of every element; pairs are of the axes x and y, before division by the totals."""

    total: tuple[Tensor, Tensor]
    start: tuple[Tensor, Tensor]
    size: tuple[Tensor, Tensor]
    place: Tensor  # from 0 to 1, of the point in the bin
    first: Tensor  # the slope at its first end
    last: Tensor


@dataclass(frozen=True)
class Spline(Univariate):
    """A monotonic rational-quadratic spline of K bins on [−bound, bound], the identity outside.

    h holds the unconstrained widths and heights of the bins and slopes at the inner knots. Their
    values are bounded, so that large steps of an optimizer do no harm. O(K) an element.

    Source: Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios, 2019), arXiv:1906.04032;
    parametrized as ``zuko.transforms.MonotonicRQSTransform``.
    """

    bins: int = 8
    bound: float = 5.0

    @property
    def count(self) -> int:
        return 3 * self.bins - 1

    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the spline at ``x`` and its log-slope; x and 0 outside, even at ±∞."""
        rows, (x, h) = x, _rows_last(x, h)
        nearest = x.clamp(-self.bound, self.bound)
        at, inside = self._bins(nearest, h, 0), nearest == x
        z, s = at.place, _mean_slope(at)
        rest, square = 1 - z, z * z
        product = z * rest
        below = torch.addcmul(s, torch.add(at.first + at.last, s, alpha=-2), product)
        share = torch.addcmul(at.first * product, s, square) / below
        above = (at.first * rest * rest).addcmul_(at.last, square).addcmul_(s, product, value=2)
        y = torch.where(inside, self._position(at, 1, share), x)
        log_slope = torch.where(inside, (s / below).square() * above, 1.0).log()
        return _rows_first(rows, y), _rows_first(rows, log_slope)

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Returns x, by the root of a quadratic equation in z in its form without cancellation."""
        rows, (y, h) = y, _rows_last(y, h)
        nearest = y.clamp(-self.bound, self.bound)
        at = self._bins(nearest, h, 1)
        share, s = at.place, _mean_slope(at)
        bend = share * torch.add(at.first + at.last, s, alpha=-2)
        b, c = at.first - bend, s * share
        root = torch.addcmul(b * b, s - b, c, value=4).clamp(min=0).sqrt()
        x = self._position(at, 0, 2 * c / (b + root))
        return _rows_first(rows, torch.where(nearest == y, x, y))

    def _bins(self, t: Tensor, h: Tensor, axis: int) -> _Bin:
        """Returns the bins of points ``t`` of an axis (0: x, 1: y), which lie inside."""
        K = self.bins
        sizes, knots = h.split([2 * K, K - 1], 2)
        sizes = _bounded_exp(sizes.unflatten(2, (2, K)), LEAST / 2)
        total = sizes.sum(3).unbind(2)
        target = torch.addcmul(0.5 * total[axis], t, total[axis], value=0.5 / self.bound)
        before, here = _masks(target, sizes.select(2, axis))
        start, size = ((sizes * mask.unsqueeze(2)).sum(3).unbind(2) for mask in (before, here))
        place = ((target - start[axis]) / size[axis]).clamp(0, 1)
        beside = here.unfold(2, K - 1, 1).movedim(-1, 3)  # the bins before and after each knot
        slopes = _bounded_exp((knots.unsqueeze(2) * beside).sum(3), LEAST)
        last, first = slopes.unbind(2)
        return _Bin(total, start, size, place, first, last)

    def _position(self, at: _Bin, axis: int, share: Tensor) -> Tensor:
        """Returns the point of an axis at a share of the bin."""
        place = torch.addcmul(at.start[axis], at.size[axis], share) / at.total[axis]
        return torch.rsub(place, -self.bound, alpha=-2 * self.bound)


def _mean_slope(at: _Bin) -> Tensor:
    width, height = (size / total for size, total in zip(at.size, at.total, strict=True))
    return height / width


@torch.no_grad()
def _masks(target: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns 1 for the bins before a point, else 0, and the same of the bin of the point."""
    inner = (sizes.cumsum(2)[:, :, :-1] < target.unsqueeze(2)).to(sizes)
    first, last = torch.ones_like(inner[:, :, :1]), torch.zeros_like(inner[:, :, :1])
    before = torch.cat([inner, last], 2)  # rounding does not move a point beyond the last end
    return before, torch.cat([first, inner], 2) - before


def _bounded_exp(h: Tensor, bound: float) -> Tensor:
    """Returns exp(h / (1 + |h / bound|)), which is between exp(±bound)."""
    stretch = torch.rsub(h.abs(), LN_2, alpha=LN_2 / -abs(bound))
    return torch.div(h, stretch).exp2_()


def _rows_last(t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows of points and parameters as one image, the layout of the fastest loops."""
    if t.ndim > 2:
        return t, h
    return t.mT.contiguous()[None], h.flatten(1).mT.contiguous().unflatten(0, h.shape[1:])[None]


def _rows_first(like: Tensor, t: Tensor) -> Tensor:
    """Returns results for points ``like`` with the rows in dimension 0 again."""
    return t[0].mT if like.ndim == 2 else t
