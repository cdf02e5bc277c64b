r"""Couplings: layers that transform one part of an event, given the other.

Split :math:`x = (x_1, x_2)`. A *conditioner* h gives parameters to an increasing function of every
element of the second part, and the first part passes:

.. math:: y_1 = x_1, \qquad y_2 = f(x_2; h(x_1)), \qquad
    \psi(x) = \sum \log \partial_x f(x_2; h(x_1)).

The inverse needs only that of f. The score contains :math:`\partial h / \partial x_1`, so score
matching differentiates h twice: by autograd, for this layer alone, or by the Taylor polynomial of
h where ``networks.through`` has it: along a direction, and in full if one number passes.

With h of kinked activations (leaky ReLU), or f a rational-quadratic spline, whose second
derivative jumps at its knots, the score has jumps. ``ssm`` and ``ssm_vr`` then miss what these
contribute to the trace of its Jacobian; ``dsm``, ``fd_ssm``, whose differences reach across a
jump, and the likelihoods do not. The same holds of autoregressive layers.
"""

__all__ = ["Coupling", "ScaleShift", "Spline", "Univariate"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from ..networks import Jet, through
from .base import Contextual, Linearization, sum_event


class Univariate(ABC):
    """An increasing function f(x; h) of every element, with ``count`` parameters an element.

    ``x`` has shape (B, C, *) and ``h`` (B, C, count, *).
    """

    bilinear = False
    """Whether f is affine in x, with coefficients that are smooth in h; it then has ``jet``."""

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
        inverted: Whether f is the second form.
    """

    bound: float | None = None
    inverted: bool = False
    count = 2
    bilinear = True

    def forward_and_log_slope(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x; h) and ±s."""
        s, t = self._read(h)
        return ((x - t) * torch.exp(-s), -s) if self.inverted else (x * torch.exp(s) + t, s)

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Returns the other form at ``y``."""
        s, t = self._read(h)
        return y * torch.exp(s) + t if self.inverted else (y - t) * torch.exp(-s)

    def jet(self, x: Jet, h: Jet) -> tuple[Jet, Jet]:
        """Returns the jets of f and of log ∂f/∂x, for ``h`` of (…, C, 2)."""
        s, t = (Jet(*parts) for parts in zip(*(c.unbind(-1) for c in h), strict=True))
        s = s if self.bound is None else _bounded(s, self.bound)
        if self.inverted:
            s = s.each(torch.neg)
            return _times_exp(Jet(x.x - t.x, x.v - t.v, x.bend - t.a), s), s
        y = _times_exp(Jet(x.x, x.v, x.bend), s)
        return Jet(*(p + q for p, q in zip(y, t, strict=True))), s

    def _read(self, h: Tensor) -> tuple[Tensor, Tensor]:
        s, t = h.unbind(2)
        return (s if self.bound is None else self.bound * torch.tanh(s / self.bound)), t


@dataclass(frozen=True)
class Spline(Univariate):
    """A monotonic rational quadratic spline on [−bound, bound], the identity outside.

    h holds the unconstrained widths and heights of the bins and slopes at the inner knots;
    h = 0 is the identity.

    Source: Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios, 2019), arXiv:1906.04032;
    ``zuko.transforms.MonotonicRQSTransform``.

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
        """Returns the spline at ``x`` and its log-slope."""
        return self._spline(h).call_and_ladj(x)

    def inverse(self, y: Tensor, h: Tensor) -> Tensor:
        """Solves a quadratic equation an element."""
        return self._spline(h).inv(y)

    def _spline(self, h: Tensor) -> MonotonicRQSTransform:
        sizes = (self.bins, self.bins, self.bins - 1)
        return MonotonicRQSTransform(*h.movedim(2, -1).split(sizes, -1), bound=self.bound)


class Coupling(Contextual):
    """Creates y = (x₁, f(x₂; h(x₁))), split along the first dimension of an event.

    That is by elements of a vector and by channels of an image.

    Arguments:
        sizes: The sizes of the two parts.
        conditioner: h, from the passed part with shape (B, size, *) to
            (B, other size · f.count, *): the parameters of an element are neighbours.
        transform: f.
        flip: Whether the second part passes and the first is transformed.
        context: The number C of elements of a context, which h sees behind the passed part (as
            constant planes of an image).
    """

    def __init__(
        self,
        sizes: tuple[int, int],
        conditioner: nn.Module,
        transform: Univariate,
        *,
        flip: bool = False,
        context: int = 0,
    ) -> None:
        super().__init__(context)
        if min(sizes) < 1:
            raise ValueError(f"sizes: found {tuple(sizes)}, expected two positive numbers")
        self.sizes, self.flip = tuple(sizes), flip
        self.conditioner, self.transform = conditioner, transform

    def extra_repr(self) -> str:
        """Names the parts and f."""
        return f"{self.sizes}, {self.transform}, flip={self.flip}, context={self.context}"

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and Σ log ∂f/∂x; one evaluation of h."""
        passed, moved = self._parts(x)
        y, log_slope = self.transform.forward_and_log_slope(moved, self._conditioned(passed))
        return self._joined(passed, y), sum_event(log_slope, x)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; one evaluation of h."""
        passed, moved = self._parts(y)
        return self._joined(passed, self.transform.inverse(moved, self._conditioned(passed)))

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``; in closed form if one number passes and h is known."""
        passed = self._parts(x)[0]
        if passed.shape[1:] == (1,):
            h = self._jet_of_h(Jet(passed, torch.ones_like(passed), None))
            if h is not None:
                return _LineLinearization(self, x, h)
        return super().linearize(x)

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Pushes a jet through, by that of h where it is known and by autograd elsewhere."""
        passed, moved = self._parts_of_jet(jet)
        h = self._jet_of_h(passed)
        if h is None:
            return super().jet(jet)
        y, slopes = self.transform.jet(moved, h)
        parts = zip((passed.x, passed.v, passed.bend), y, strict=True)
        wide = ((p.expand(*moved.shape[:-1], -1), moved) for p, moved in parts)
        joined = Jet(*(self._joined(*pair, dim=-1) for pair in wide))
        return joined, sum_event(slopes.v, jet.x), sum_event(slopes.a, jet.x)

    def _jet_of_h(self, passed: Jet) -> Jet | None:
        if not self.transform.bilinear or passed.x.ndim > 2:
            return None
        h = through(self.conditioner, self._with_context(passed))
        if h is None:
            return None
        h = h._replace(a=h.bend)
        return h.each(lambda c: c.unflatten(-1, (-1, self.transform.count)))

    def _parts_of_jet(self, jet: Jet) -> tuple[Jet, Jet]:
        dim = 1 - jet.x.ndim
        pairs = ((None, None) if c is None else self._parts(c, dim) for c in jet)
        return tuple(Jet(*part) for part in zip(*pairs, strict=True))

    def _conditioned(self, passed: Tensor) -> Tensor:
        if self.context:
            passed = torch.cat([passed, self._planes(passed)], 1)
        return self.conditioner(passed).unflatten(1, (-1, self.transform.count))

    def _planes(self, passed: Tensor) -> Tensor:
        """Returns the context of every row, spread over the image."""
        rows = self.contexts(passed)
        return rows.view(*rows.shape, *[1] * (passed.ndim - 2)).expand(-1, -1, *passed.shape[2:])

    def _with_context(self, passed: Jet) -> Jet:
        if not self.context:
            return passed
        x, still = self._planes(passed.x), passed.v.new_zeros(*passed.v.shape[:-1], self.context)
        beside = (x, still, still)
        pairs = zip(passed, beside, strict=True)
        return Jet(*(None if t is None else torch.cat([t, c], -1) for t, c in pairs))

    def _parts(self, x: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, dim)
        return (second, first) if self.flip else (first, second)

    def _joined(self, passed: Tensor, moved: Tensor, dim: int = 1) -> Tensor:
        return torch.cat([moved, passed] if self.flip else [passed, moved], dim)


class _LineLinearization(Linearization):
    r"""A coupling of which one number z passes: its derivatives are those of h on that line.

    With y = f(x₂; h(z)), affine in x₂ and of slope :math:`e^p`, and derivatives by z at fixed x₂
    written y', p': the score over z is :math:`s_z + s_y \cdot y' + \sum p'`, and along (a, v)
    the second derivative of y is :math:`y'' a^2 + 2 e^p p' a v`.
    """

    def __init__(self, layer: Coupling, x: Tensor, h: Jet) -> None:
        self.layer = layer
        passed, moved = layer._parts(x)
        still = Jet(moved, torch.zeros_like(moved), None)
        (y, self.first, self.second), self.p = layer.transform.jet(still, h)
        self.scale = self.p.x.exp()
        self.y = layer._joined(passed, y)

    def pullback(self, s: Tensor) -> Tensor:
        line, moved = self.layer._parts(s)
        line = line + (moved * self.first + self.p.v).sum(1, keepdim=True)
        return self.layer._joined(line, moved * self.scale)

    def tangent(self, v: Tensor) -> Tensor:
        a, v = self.layer._parts(v, -1)
        moved = self.scale * v + self.first * a
        return self.layer._joined(a.expand(*moved.shape[:-1], -1), moved, -1)

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        a, v = self.layer._parts(v, -1)
        moved = self.layer._parts(s)[1]
        bend = self.second * a * a + 2 * self.scale * self.p.v * a * v
        return (moved * bend + self.p.a * a * a).sum(-1)

    def log_det(self) -> Tensor:
        return self.p.x.sum(1)


def _bounded(s: Jet, c: float) -> Jet:
    """Returns the jet of c tanh(s / c)."""
    value = torch.tanh(s.x / c)
    slope = 1 - value * value
    bend = -2 / c * value * slope
    return Jet(c * value, slope * s.v, torch.addcmul(slope * s.a, bend, s.v * s.v))


def _times_exp(x: Jet, s: Jet) -> Jet:
    """Returns the jet of x eˢ."""
    e, bend = s.x.exp(), torch.addcmul(s.a, s.v, s.v)
    return Jet(e * x.x, e * (x.v + s.v * x.x), e * (x.a + 2 * s.v * x.v + bend * x.x))
