r"""Affine maps of every element, by which a context c enters a flow.

.. math:: y = e^{s(c)} \odot x + t(c), \qquad \psi = \sum s(c).

One follows every linear layer. Offsets and scales then depend on the context, and linear maps do
not. :math:`\psi` is a sum of D numbers and part of the energy, so the normalizer depends neither
on x nor on c.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..networks import perceptron, zeroed
from .base import Bijection, ConstantLinearization, Contextual, Linearization

BOUND = 3.0  # Bound of |s|, by s ← bound · tanh(s / bound)


class ConditionalAffine(Contextual):
    """Creates an affine map with parameters from a context; it starts as the identity.

    (s, t) are a linear map of the context, of C elements, plus a perceptron of it, of two layers
    of width ``hidden``. Each of n elements of a vector, or n channels of an image, has its own.
    Cost: O(B (C + hidden) n).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        *,
        hidden: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(context)
        if context < 1:
            raise ValueError(f"context: found {context}, expected at least one element")
        self.shape = tuple(shape)
        self.channels = (shape[0], *[1] * (len(shape) - 1))
        outputs = 2 * shape[0]
        generator = generator or torch.Generator().manual_seed(0)
        self.line = zeroed(skip_init(nn.Linear, context, outputs))
        self.bend = perceptron(
            context, outputs, hidden=hidden, depth=2, activation="swish", generator=generator
        )
        zeroed(self.bend[-1])

    def condition(self, context: Tensor) -> Bijection:
        s, t = (self.line(context) + self.bend(context)).chunk(2, 1)
        return super().condition(torch.cat([BOUND * torch.tanh(s / BOUND), t], 1))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parts(x)
        count = math.prod(self.shape) // self.shape[0]
        return torch.addcmul(t, x, s.exp()), s.flatten(1).sum(1) * count

    def inverse(self, y: Tensor) -> Tensor:
        s, t = self._parts(y)
        inverse = (-s).exp()
        return torch.addcmul(-t * inverse, y, inverse)

    def linearize(self, x: Tensor) -> Linearization:
        y, psi = self.forward_and_log_det(x)
        scaled = partial(torch.mul, self._parts(x)[0].exp())
        return ConstantLinearization(y, scaled, scaled, psi)

    def _parts(self, x: Tensor) -> list[Tensor]:
        """Returns s and t of every row, shaped to be broadcast to it."""
        return [part.view(-1, *self.channels) for part in self.contexts(x).chunk(2, 1)]
