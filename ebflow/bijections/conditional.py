r"""Affine maps of every element, by which a context c enters a flow.

.. math:: y = e^{s(c)} \odot x + t(c), \qquad \psi = \sum s(c).

One follows every linear layer. Offsets and scales then depend on the context, and linear maps do
not. :math:`\psi` is a sum of D numbers and part of the energy, so the normalizer depends neither
on x nor on c.
"""

__all__ = ["ConditionalAffine"]

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..networks import perceptron
from .base import Bijection, ConstantLinearization, Linearization

BOUND = 3.0  # Bound of |s|, by s ← bound · tanh(s / bound)


class ConditionalAffine(Bijection):
    """Creates an affine map with parameters from a context; it starts as the identity.

    (s, t) are a linear map of the context plus a perceptron of it. Each of n elements of a vector,
    or n channels of an image, has its own. Cost: O(B (C + hidden) n).

    Arguments:
        shape: The shape of an event.
        context: The number C of elements of a context.
        hidden: The width of the perceptron's two layers.
        generator: Source of its weights; None: seed 0.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        *,
        hidden: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if context < 1:
            raise ValueError(f"context: found {context}, expected at least one element")
        self.shape, self.context = tuple(shape), context
        self.channels = (shape[0], *[1] * (len(shape) - 1))
        outputs = 2 * shape[0]
        generator = generator or torch.Generator().manual_seed(0)
        self.line = skip_init(nn.Linear, context, outputs)
        self.bend = perceptron(
            context, outputs, hidden=hidden, depth=2, activation="swish", generator=generator
        )
        for layer in (self.line, self.bend[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def extra_repr(self) -> str:
        return f"{self.shape}, context={self.context}"

    def condition(self, context: Tensor) -> Bijection:
        """Returns the affine map for a context with shape (B, C)."""
        s, t = (self.line(context) + self.bend(context)).chunk(2, 1)
        s = BOUND * torch.tanh(s / BOUND)
        count = math.prod(self.shape) // self.shape[0]
        return _Conditioned(s.view(-1, *self.channels), t.view(-1, *self.channels), count)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ValueError, because the layer needs a context."""
        raise ValueError(f"context: found None, expected shape (*, {self.context})")

    inverse = forward_and_log_det


class _Conditioned(Bijection):
    """An affine map of rows; row i has the parameters i mod B."""

    def __init__(self, log_scale: Tensor, shift: Tensor, count: int) -> None:
        super().__init__()
        self.log_scale, self.shift, self.count = log_scale, shift, count

    def rows(self, t: Tensor, x: Tensor) -> Tensor:
        """Returns parameters, with shape (B, *channels), repeated for all rows of ``x``."""
        return t.repeat(x.shape[0] // max(t.shape[0], 1), *[1] * (t.ndim - 1))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = (self.rows(t, x) for t in (self.log_scale.exp(), self.shift))
        log_det = self.log_scale.flatten(1).sum(1) * self.count
        return torch.addcmul(shift, x, scale), self.rows(log_det, x)

    def inverse(self, y: Tensor) -> Tensor:
        inverse = (-self.log_scale).exp()
        return torch.addcmul(self.rows(-self.shift * inverse, y), y, self.rows(inverse, y))

    def linearize(self, x: Tensor) -> Linearization:
        y, psi = self.forward_and_log_det(x)
        scaled = partial(torch.mul, self.rows(self.log_scale.exp(), x))
        return ConstantLinearization(y, scaled, scaled, psi)
