r"""Bijections, and the parts of the score chain that each one provides.

A bijection :math:`f` maps :math:`x \mapsto y` with Jacobian :math:`J(x)`. Write
:math:`\psi(x) = \log |\det J(x)|`. If :math:`s_y` is the score of a density over :math:`y`, the
score of the same density over :math:`x` and its quadratic form are

.. math::
    s_x &= J^\top s_y + \nabla \psi, \\
    v^\top \nabla s_x \, v &= \dot y^\top \nabla s_y \, \dot y
        + \left( s_y^\top f''[v, v] + v^\top \nabla^2 \psi \, v \right), \qquad \dot y = J v.

So a layer provides its value, ``pullback`` (the first line), ``tangent`` (:math:`J v`) and
``curvature`` (the bracket). With closed forms of these, a chain of layers needs neither autograd
nor a second backward pass. If :math:`J` does not depend on the input, :math:`\psi` is not in any
score: this is why score matching of a flow is cheap.

Source: Chao et al. (2023), arXiv:2305.15267.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Self

import torch
from torch import Tensor, nn


def sum_event(t: Tensor, like: Tensor) -> Tensor:
    """Sums ``t`` over the event dimensions of ``like``, which has shape (B, *event)."""
    return t.sum(dim=tuple(range(1 - like.ndim, 0)))


def unit_vectors(event: Tensor) -> Tensor:
    """Returns the D unit vectors of events like ``event``, with shape (D, *event)."""
    size = event.numel()
    units = torch.eye(size, dtype=event.dtype, device=event.device)
    return units.view(size, *event.shape)


def at_least_float32(t: Tensor) -> Tensor:
    """Returns ``t``, in float32 if its type is shorter, so that it can be factorized."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


@contextmanager
def products(precision: str, device: str = "cpu") -> Iterator[None]:
    """Sets the precision of float32 products and convolutions inside a ``with`` block.

    Arguments:
        precision: As in ``torch.set_float32_matmul_precision``; ``highest`` is float32 itself. Or
            ``bfloat16`` for autocast: products are bfloat16, weights and gradients float32.
        device: The type of device, for autocast.
    """
    if precision == "bfloat16":
        with torch.autocast(device, torch.bfloat16):
            yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def gradient(
    outputs: Sequence[Tensor], x: Tensor, seeds: Sequence[Tensor | None] | None = None
) -> Tensor:
    """Returns the differentiable gradient of outputs by ``x``; zero if they do not depend on it.

    ``seeds`` are the gradients by the outputs; None: 1 for a scalar.
    """
    seeds = [None] * len(outputs) if seeds is None else seeds
    pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if y.requires_grad]
    if not pairs:
        return torch.zeros_like(x)
    outputs, seeds = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, x, seeds, create_graph=True, materialize_grads=True)[0]


class Linearization(ABC):
    """A bijection at one batch of points ``x``, with shape (B, *event); ``y`` is its value."""

    y: Tensor

    @abstractmethod
    def pullback(self, s: Tensor) -> Tensor:
        """Returns the score over ``x`` for the score ``s`` over ``y``, with shape (B, *event)."""

    @abstractmethod
    def tangent(self, v: Tensor) -> Tensor:
        """Returns J v for ``v`` with shape (K, B, *event), or (K, 1, *event) for all rows."""

    @abstractmethod
    def curvature(self, v: Tensor, s: Tensor) -> Tensor | float:
        """Returns s·f''[v, v] + v·∇²ψ v with shape (K, B), for the score ``s`` over ``y``."""

    @abstractmethod
    def log_det(self) -> Tensor | float:
        """Returns ψ with shape (B,) for an input-dependent layer, and 0 for any other."""


class Bijection(nn.Module, ABC):
    """A smooth invertible map between events, from data towards the latent.

    Implementing a bijection:

    * ``forward_and_log_det`` and ``inverse`` are enough. The score chain then uses autograd for
      this layer alone: a backward pass for ``pullback``, two for ``tangent``, and one more forward
      pass for ``curvature``;
    * ``linearize`` may be overridden by closed forms;
    * if it depends on a context, override ``condition``;
    * if it takes statistics from data, override ``initialize`` and ``initialized``;
    * if the Jacobian does not depend on the input, derive from ``ConstantJacobian``.
    """

    constant_jacobian = False
    pixelwise = False  #: True if one function of one variable acts on every element alone

    @property
    def initialized(self) -> bool:
        """True if the layer has the statistics that it takes from data."""
        return True

    def initialize(self, x: Tensor) -> None:
        """Takes statistics from a batch ``x`` of this layer's inputs, with shape (B, *event).

        Most layers need none. ``Flow.initialize`` calls it once, before training.
        """

    def condition(self, context: Tensor) -> "Bijection":
        """Returns the bijection given a context with shape (B, C); itself if it needs none.

        Its inputs are R B rows. Row i has the context i mod B.
        """
        return self

    @abstractmethod
    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y with shape (B, *event) and log |det J(x)| in nats, with shape (B,)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Returns x with ``forward(x) = y``."""

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x with ``forward(x) = y``, and log |det J(x)| with shape (B,)."""
        x = self.inverse(y)
        return x, self.forward_and_log_det(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Returns y with shape (B, *event)."""
        return self.forward_and_log_det(x)[0]

    def linearize(self, x: Tensor) -> Linearization:
        """Returns this layer at points with shape (B, *event)."""
        return _AutogradLinearization(self, x)

    def extra_repr(self) -> str:
        """Returns the arguments that are plain attributes."""
        values = {name: vars(self).get(name) for name in signature(type(self)).parameters}
        plain = {n: value for n, value in values.items() if not isinstance(value, Tensor | None)}
        return ", ".join(f"{name}={value}" for name, value in plain.items())


class Conditioned:
    """A module that takes a context of C elements, its ``context``; 0: it takes none."""

    context: int
    rows: Tensor | None = None  #: The contexts of a batch, with shape (B, C)

    def condition(self, context: Tensor) -> Self:
        """Returns the module given a context with shape (B, C); itself if it needs none."""
        if not self.context:
            return self
        bound = copy.copy(self)
        bound.rows = context
        return bound

    def contexts(self, x: Tensor) -> Tensor | None:
        """Returns the context of every row of ``x``, with shape (R B, C); None if C = 0."""
        if not self.context:
            return None
        if self.rows is None:
            raise ValueError(f"context: found None, expected shape (*, {self.context})")
        return self.rows.repeat(x.shape[0] // max(self.rows.shape[0], 1), 1)


class Contextual(Conditioned, Bijection):
    """A bijection by a network of its own input and, if C > 0, of a context of C elements."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.context = context


class ConstantJacobian(Bijection):
    """A bijection with the same Jacobian at every input; its log-det depends on weights alone."""

    constant_jacobian = True

    @property
    def unwrapped(self) -> "ConstantJacobian":
        """The wrapped layer with the same log-determinant, or the layer itself."""
        return self

    @abstractmethod
    def log_det(self) -> Tensor:
        """Returns log |det J| in nats, a scalar."""

    @abstractmethod
    def transpose(self, s: Tensor) -> Tensor:
        """Returns Jᵀ s, the pullback of a score."""

    @abstractmethod
    def linear(self, v: Tensor) -> Tensor:
        """Returns J v, the map without its offset; any leading dimensions."""

    def columns(self, event: Tensor) -> Tensor:
        """Returns J e for the unit vectors e of inputs like ``event``, with shape (D, *event)."""
        return self.linear(unit_vectors(event))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and the log-det expanded to (B,). Score matching never calls this."""
        y, log_det = self.forward(x), self.log_det()
        return y, log_det + log_det.new_zeros(x.shape[0], device=x.device)

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a (B,) stand-in for the log-det, both exact in their relative gradient."""
        return self.forward_and_log_det(x)

    def linearize(self, x: Tensor) -> Linearization:
        return ConstantLinearization(self.forward(x), self.linear, self.transpose)


class ConstantLinearization(Linearization):
    """A layer that is affine in x at one batch: its value ``y``, J and Jᵀ as functions, and ψ."""

    def __init__(
        self,
        y: Tensor,
        linear: Callable[[Tensor], Tensor],
        transpose: Callable[[Tensor], Tensor],
        psi: Tensor | float = 0.0,
    ) -> None:
        self.y, self._linear, self._transpose, self._psi = y, linear, transpose, psi

    def pullback(self, s: Tensor) -> Tensor:
        return self._transpose(s)

    def tangent(self, v: Tensor) -> Tensor:
        return self._linear(v)

    def curvature(self, v: Tensor, s: Tensor) -> float:
        return 0.0

    def log_det(self) -> Tensor | float:
        return self._psi


class _AutogradLinearization(Linearization):
    def __init__(self, layer: Bijection, x: Tensor) -> None:
        self.layer = layer
        with torch.inference_mode(False), torch.enable_grad():
            x = _without_inference(x)
            self.x = x if x.requires_grad else x.detach().requires_grad_()
            self.y, self.psi = layer.forward_and_log_det(self.x)

    def pullback(self, s: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return _pulled(self.x, self.y, self.psi, _without_inference(s))

    def tangent(self, v: Tensor) -> Tensor:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # Jᵀ w is linear in w, and its gradient along v is J v
            w = torch.zeros_like(self.y, requires_grad=True)
            return _along(gradient([self.y], self.x, [w]), w, v)

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # at a copy of x, because s depends on x and is constant here
            x = self.x.view_as(self.x)
            score = _pulled(x, *self.layer.forward_and_log_det(x), _without_inference(s))
            return sum_event(_along(score, x, v) * _without_inference(v), x)

    def log_det(self) -> Tensor:
        return self.psi


def _pulled(x: Tensor, y: Tensor, psi: Tensor, s: Tensor) -> Tensor:
    return gradient([y, psi], x, [s, torch.ones_like(psi)])


def _along(y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Returns the gradients of v·y by ``x`` for K directions, with shape (K, B, *event)."""
    rows = [_without_inference(row).expand_as(y) for row in v]
    return torch.stack([gradient([y], x, [row]) for row in rows])


def _without_inference(t: Tensor) -> Tensor:
    """Returns a tensor that autograd can save for the backward pass."""
    return t.clone() if t.is_inference() else t
