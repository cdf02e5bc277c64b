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

__all__ = ["ScaleShift", "Spline", "Univariate"]

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Parameters of splines processed at once: a megabyte in float32, about a core's cache.
PART = 1 << 18

# Log of the least slope of a spline at its knots, and of the least ratio of two bins' sizes.
LEAST = math.log(1e-3)


class Univariate(ABC):
    """An increasing function f(x; h) of every element, with ``count`` parameters an element.

    ``x`` has shape (B, C, *) and ``h`` (B, C, count, *).
    """

    @property
    @abstractmethod
    def count(self) -> int:
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
        bound: c in s ← c tanh(s / c), which keeps |s| below c; None: s is free.
        inverted: Use the second form.
    """

    bound: float | None = None
    inverted: bool = False
    count = 2

    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x; h) and ±s."""
        s, t = self._read(h)
        return ((x - t) * torch.exp(-s), -s) if self.inverted else (x * torch.exp(s) + t, s)

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Returns the other form at ``y``."""
        s, t = self._read(h)
        return y * torch.exp(s) + t if self.inverted else (y - t) * torch.exp(-s)

    def _read(self, h: Tensor) -> tuple[Tensor, Tensor]:
        s, t = h.unbind(2)
        return (s if self.bound is None else self.bound * torch.tanh(s / self.bound)), t


class _Bin(NamedTuple):
    """The bin of every element: its lower knot, its size, and the slopes at its two ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Spline(Univariate):
    """A monotonic rational-quadratic spline on [−bound, bound], the identity outside.

    h holds the unconstrained widths and heights of the bins and slopes at the inner knots. Their
    values are bounded, so that large steps of an optimizer do no harm. O(K) an element.

    Source: Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios, 2019), arXiv:1906.04032;
    parametrized as ``zuko.transforms.MonotonicRQSTransform``.

    Attributes:
        bins: The number of bins K.
        bound: The half-width of the interval.
    """

    bins: int = 8
    bound: float = 5.0

    @property
    def count(self) -> int:
        """3 K − 1."""
        return 3 * self.bins - 1

    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the spline at ``x`` and its log-slope; x and 0 outside, even at ±∞."""
        at, inside = self._bins(x, h, 0)
        z = ((x.clamp(-self.bound, self.bound) - at.x) / at.width).clamp(0, 1)
        s, rest = at.height / at.width, 1 - z
        product, square = z * rest, z * z
        below = torch.addcmul(s, torch.add(at.first + at.last, s, alpha=-2), product)
        share = torch.addcmul(at.first * product, s, square) / below
        above = torch.addcmul(2 * s * product, at.first, rest * rest)
        slope = torch.addcmul(above, at.last, square) * (s / below).square()
        y = torch.addcmul(at.y, at.height, share)
        return torch.where(inside, y, x), torch.where(inside, slope, 1.0).log()

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Returns x, by the root of a quadratic equation in z in its form without cancellation."""
        at, inside = self._bins(y, h, 1)
        share = ((y.clamp(-self.bound, self.bound) - at.y) / at.height).clamp(0, 1)
        s = at.height / at.width
        bend = share * torch.add(at.first + at.last, s, alpha=-2)
        b, c = at.first - bend, s * share
        root = torch.addcmul(b * b, s - b, c, value=4).clamp(min=0).sqrt()
        return torch.where(inside, torch.addcmul(at.x, at.width, 2 * c / (b + root)), y)

    def _bins(self, t: Tensor, h: Tensor, axis: int) -> tuple[_Bin, Tensor]:
        """Returns the bins of ``t``, points of an axis (0: x, 1: y), and a mask of those inside.

        Points outside have the bin of the nearest end.
        """
        if torch.compiler.is_compiling():  # a graph serves any number of rows
            return self._of_part(t, h, axis), t.abs() <= self.bound
        rows = max(1, PART // max(h[:1].numel(), 1))
        parts = [
            self._of_part(*part, axis) for part in zip(t.split(rows), h.split(rows), strict=True)
        ]
        bins = parts[0] if len(parts) == 1 else _Bin(*map(torch.cat, zip(*parts, strict=True)))
        return bins, t.abs() <= self.bound

    def _of_part(self, t: Tensor, h: Tensor, axis: int) -> _Bin:
        """Returns the bins of some rows. Only sizes are computed of every bin."""
        K, h = self.bins, h.movedim(2, -1)
        sizes = _bounded(h[..., : 2 * K], LEAST / 2).exp_().unflatten(-1, (2, K))
        ends = sizes.cumsum(-1)
        scale = 2 * self.bound / ends[..., -1]
        with torch.no_grad():
            target = (t + self.bound) / scale[..., axis]
            k = (ends[..., axis, :-1] < target.unsqueeze(-1)).sum(-1, keepdim=True)
        pair = k.unsqueeze(-2).expand(*k.shape[:-1], 2, 1)
        size, end = (each.gather(-1, pair).squeeze(-1) for each in (sizes, ends))
        start = (end - size) * scale - self.bound
        slope = F.pad(h[..., 2 * K :], (1, 1)).gather(-1, torch.cat([k, k + 1], -1))
        pairs = (start, size * scale, _bounded(slope, LEAST).exp_())
        return _Bin(*(end for pair in pairs for end in pair.unbind(-1)))


def _bounded(h: Tensor, bound: float) -> Tensor:
    """Returns h / (1 + |h / bound|), which is smaller than the bound."""
    return h / h.abs().mul_(1 / abs(bound)).add_(1)  # in place: memory takes most of the time
