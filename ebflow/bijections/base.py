r"""What a bijection is, and what the score chain asks of one.

A bijection :math:`f` maps :math:`x \mapsto y` with Jacobian :math:`J(x)`. Write
:math:`\psi(x) = \log |\det J(x)|`. If :math:`s_y` is the score of a density over :math:`y`, the
score of the same density over :math:`x` and its quadratic form are

.. math::
    s_x &= J^\top s_y + \nabla \psi, \\
    v^\top \nabla s_x \, v &= \dot y^\top \nabla s_y \, \dot y
        + \left( s_y^\top f''[v, v] + v^\top \nabla^2 \psi \, v \right), \qquad \dot y = J v.

So a layer gives its value, ``pullback`` (the first line), ``tangent`` (:math:`J v`) and
``curvature`` (the bracket), and a chain needs neither autograd nor a second backward pass. If
:math:`J` does not depend on the input, :math:`\psi` leaves every score: this is what makes
score matching of a flow cheap.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267.
"""

__all__ = ["Bijection", "ConstantJacobian", "ConstantLinearization", "Contextual", "Linearization",
           "as_autocast", "at_least_float32", "hold", "products", "sum_event"]  # fmt: skip

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..networks import Jet, units


def sum_event(t: Tensor, like: Tensor) -> Tensor:
    """Sums ``t`` over the event dimensions of ``like``, which has shape (B, *event)."""
    return t.sum(dim=tuple(range(1 - like.ndim, 0)))


def at_least_float32(t: Tensor) -> Tensor:
    """Returns ``t``, in float32 if its type has less: what factorizes or iterates needs it."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors as autocast would take them; our own functions must see one type."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t.to(torch.get_autocast_dtype(device)) for t in tensors)


@contextmanager
def products(precision: str, device: str = "cpu") -> Iterator[None]:
    """Sets the precision of float32 products and convolutions for a while.

    Arguments:
        precision: As in ``torch.set_float32_matmul_precision``, where ``highest`` is float32
            itself and all results are float32; or ``bfloat16``, by autocast: results of products
            too are bfloat16, and weights and gradients stay float32.
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


def hold(module: nn.Module, *, trainable: bool, **tensors: Tensor | None) -> None:
    """Registers copies of tensors, as parameters or as buffers."""
    for name, tensor in tensors.items():
        value = None if tensor is None else tensor.clone()
        if trainable:
            module.register_parameter(name, None if value is None else nn.Parameter(value))
        else:
            module.register_buffer(name, value)


class Linearization(ABC):
    """A bijection at one batch of points ``x``, with shape (B, *event); ``y`` is its value."""

    y: Tensor

    @abstractmethod
    def pullback(self, s: Tensor) -> Tensor:
        """Turns the score over ``y`` into the score over ``x``, both with shape (B, *event)."""

    @abstractmethod
    def tangent(self, v: Tensor) -> Tensor:
        """Returns J v for ``v`` with shape (K, B, *event)."""

    @abstractmethod
    def curvature(self, v: Tensor, s: Tensor) -> Tensor | float:
        """Returns s·f''[v, v] + v·∇²ψ v with shape (K, B), for the score ``s`` over ``y``."""

    def diagonal(self, s: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns f' and s f'' + ψ'' of every element, with shape (B, *event).

        Only a layer that acts on every element alone has them; None for any other.
        """
        return None

    @abstractmethod
    def log_det(self) -> Tensor | float:
        """Returns ψ with shape (B,) for an input-dependent layer, and 0 for any other."""


class Bijection(nn.Module, ABC):
    """A smooth invertible map between events, from data towards the latent.

    Implementing a bijection:

    * ``forward_and_log_det`` and ``inverse`` are enough; the score chain then uses autograd
      for this layer alone (one more backward pass for ``pullback``, two for ``curvature``);
    * ``linearize`` and ``jet`` may be overridden by closed forms;
    * if it depends on a context, override ``condition``;
    * if it takes statistics from data, override ``initialize`` and ``initialized``;
    * if the Jacobian does not depend on the input, derive from ``ConstantJacobian``.
    """

    constant_jacobian = False
    pixelwise = False
    """Whether one function of one variable acts on every element alone."""

    @property
    def initialized(self) -> bool:
        """Whether the layer has what it takes from data."""
        return True

    def initialize(self, x: Tensor) -> None:
        """Takes from a batch ``x`` of this layer's inputs, with shape (B, *event), what it needs.

        Most layers need nothing. ``Flow.initialize`` calls it, once, before training.
        """

    def condition(self, context: Tensor) -> "Bijection":
        """Returns the bijection given a context with shape (B, C); itself unless it depends on it.

        Its inputs are R B rows, R of them for every row of the context, the context's rows in
        turn: row i is given row i mod B.
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

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``.

        Arguments:
            x: The points, with shape (B, *event).
            training: Whether all of what comes of it is differentiated as a whole, by one
                backward pass: a layer may then add up its weight's gradients first.
        """
        return _AutogradLinearization(self, x)

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Pushes a jet through; also returns the first and second derivative of ψ along it."""
        return _autograd_jet(self, jet)


class Contextual(Bijection):
    """A bijection by a network that sees a context, if there is one, beside its own input.

    Arguments:
        context: The number C of elements of a context; 0: there is none.
    """

    def __init__(self, context: int) -> None:
        super().__init__()
        self.context = context
        self.seen: Tensor | None = None

    def condition(self, context: Tensor) -> Bijection:
        """Returns the layer given a context with shape (B, C), sharing its network."""
        if not self.context:
            return self
        bound = copy.copy(self)
        bound.seen = context
        return bound

    def contexts(self, x: Tensor) -> Tensor:
        """Returns the context of every row of ``x``, with shape (R B, C)."""
        if self.seen is None:
            raise ValueError(f"context: found None, expected shape (*, {self.context})")
        return self.seen.repeat(x.shape[0] // max(self.seen.shape[0], 1), 1)


class ConstantJacobian(Bijection):
    """A bijection whose Jacobian is the same at every input; only weights enter its log-det."""

    constant_jacobian = True
    lazy = False
    """Whether ``log_det`` is costly, so that an anchor refreshes its gradient by rule.

    The ``unwrapped`` form of such a layer is ``Weighted``.
    """

    @property
    def unwrapped(self) -> "ConstantJacobian":
        """The layer whose log-determinant this one's is: itself, unless it wraps another."""
        return self

    @abstractmethod
    def log_det(self) -> Tensor:
        """Returns log |det J| in nats, a scalar."""

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns the trainable parameters that ``log_det`` depends on."""
        return [p for p in self.parameters() if p.requires_grad]

    @abstractmethod
    def transpose(self, s: Tensor) -> Tensor:
        """Returns Jᵀ s, the pullback of a score."""

    @abstractmethod
    def linear(self, v: Tensor) -> Tensor:
        """Returns J v, the map without its offset; any leading dimensions."""

    def columns(self, event: Tensor) -> Tensor:
        """Returns J e for the D unit vectors e of the inputs, which are shaped as ``event``."""
        return self.linear(units(event))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and the log-det expanded to (B,). The score-matching path never calls this."""
        return self.forward(x), self.log_det().to(x.device).expand(x.shape[0])

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a (B,) stand-in for the log-det, both exact in their relative gradient."""
        return self.forward_and_log_det(x)

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``: its value, and J as two linear maps."""
        return ConstantLinearization(self.forward(x), self.linear, self.transpose)

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Pushes the three coefficients through the linear map; ψ does not change."""
        zero = jet.x.new_zeros(())
        a = None if jet.a is None else self.linear(jet.a)
        return Jet(self.forward(jet.x), self.linear(jet.v), a), zero, zero


class ConstantLinearization(Linearization):
    """A layer that is affine in x at one batch: its value ``y``, and J and Jᵀ as functions.

    ψ is 0 of a layer of constant Jacobian, whose log-determinant belongs to the normalizer.
    """

    def __init__(
        self,
        y: Tensor,
        linear: Callable[[Tensor], Tensor],
        transpose: Callable[[Tensor], Tensor],
        psi: Tensor | float = 0.0,
    ) -> None:
        self.y, self._linear, self._transpose, self._psi = y, linear, transpose, psi

    def pullback(self, s: Tensor) -> Tensor:
        """Returns Jᵀ s."""
        return self._transpose(s)

    def tangent(self, v: Tensor) -> Tensor:
        """Returns J v."""
        return self._linear(v)

    def curvature(self, v: Tensor, s: Tensor) -> float:
        """Returns 0: the map is linear."""
        return 0.0

    def log_det(self) -> Tensor | float:
        """Returns ψ."""
        return self._psi


class _AutogradLinearization(Linearization):
    def __init__(self, layer: Bijection, x: Tensor) -> None:
        self.layer = layer
        self._last: tuple[Tensor, tuple[Jet, Tensor, Tensor]] | None = None
        with _differentiating():
            x = _ordinary(x)
            self.x = x if x.requires_grad else x.detach().requires_grad_()
            self.y, self.psi = layer.forward_and_log_det(self.x)

    def pullback(self, s: Tensor) -> Tensor:
        with _differentiating():
            s = _ordinary(s)
            outputs, seeds = [self.y], [s]
            if self.psi.requires_grad:
                outputs, seeds = [self.y, self.psi], [s, torch.ones_like(self.psi)]
            return torch.autograd.grad(outputs, self.x, seeds, create_graph=True)[0]

    def tangent(self, v: Tensor) -> Tensor:
        return self._jet(v)[0].v

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        jet, _, second = self._jet(v)
        return sum_event(jet.a * s, jet.x) + second

    def log_det(self) -> Tensor:
        return self.psi

    def _jet(self, v: Tensor) -> tuple[Jet, Tensor, Tensor]:
        # A sweep asks for the tangent and the curvature of the same v: one jet gives both.
        if self._last is None or self._last[0] is not v:
            self._last = v, self.layer.jet(Jet(self.x, v, None))
        return self._last[1]


@contextmanager
def _differentiating() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _ordinary(t: Tensor) -> Tensor:
    """Returns a tensor that autograd can keep."""
    return t.clone() if t.is_inference() else t


def _autograd_jet(layer: Bijection, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
    if jet.v.ndim > jet.x.ndim:
        parts = [
            _autograd_jet(layer, Jet(jet.x, v, None if jet.a is None else jet.a[k]))
            for k, v in enumerate(jet.v)
        ]
        v, a = (torch.stack([getattr(p[0], name) for p in parts]) for name in "va")
        first, second = (torch.stack([p[i] for p in parts]) for i in (1, 2))
        return Jet(parts[0][0].x, v, a), first, second

    def curve(t: Tensor) -> tuple[Tensor, Tensor]:
        bend = 0.0 if jet.a is None else 0.5 * t * t * jet.a
        return layer.forward_and_log_det(jet.x + t * jet.v + bend)

    def slope(t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return torch.func.jvp(curve, (t,), (one,))

    with torch.inference_mode(False):
        jet = jet.each(_ordinary)
        zero, one = jet.x.new_zeros(()), jet.x.new_ones(())
        ((y, _), (v, first)), (_, (a, second)) = torch.func.jvp(slope, (zero,), (one,))
    return Jet(y, v, a), first, second
