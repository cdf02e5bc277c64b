r"""Couplings: layers that transform one part of an event, given the other.

Split :math:`x = (x_1, x_2)`. A *conditioner* h gives parameters to an increasing function of every
element of the second part, and the first part passes:

.. math:: y_1 = x_1, \qquad y_2 = f(x_2; h(x_1)), \qquad
    \psi(x) = \sum \log \partial_x f(x_2; h(x_1)).

The inverse needs only that of f. The score contains :math:`\partial h / \partial x_1`, so score
matching differentiates h twice, by autograd for this layer alone.

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

from .base import Contextual, sum_event


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
        inverted: Whether f is the second form.
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

    def _conditioned(self, passed: Tensor) -> Tensor:
        if self.context:
            passed = torch.cat([passed, self._planes(passed)], 1)
        return self.conditioner(passed).unflatten(1, (-1, self.transform.count))

    def _planes(self, passed: Tensor) -> Tensor:
        """Returns the context of every row, spread over the image."""
        rows = self.contexts(passed)
        return rows.view(*rows.shape, *[1] * (passed.ndim - 2)).expand(-1, -1, *passed.shape[2:])

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, 1)
        return (second, first) if self.flip else (first, second)

    def _joined(self, passed: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, passed] if self.flip else [passed, moved], 1)
