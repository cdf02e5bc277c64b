r"""Couplings: layers that transform one part of an event by parameters from the other part.

Split :math:`x = (x_1, x_2)`. The first part passes unchanged. A *conditioner* h of it gives the
parameters of an increasing function of every element of the second part:

.. math:: y_1 = x_1, \qquad y_2 = f(x_2; h(x_1)), \qquad
    \psi(x) = \sum \log \partial_x f(x_2; h(x_1)).

The inverse needs the inverse of f only. The score contains :math:`\partial h / \partial x_1`, so
score matching differentiates h twice. If h has kinked activations (leaky ReLU), the score has
jumps: ``bijections.univariate`` lists which objectives miss them.
"""

import torch
from torch import Tensor, nn

from .base import Contextual, sum_event
from .univariate import Univariate


class Coupling(Contextual):
    """Creates y = (x₁, f(x₂; h(x₁))), split by elements of a vector or channels of an image.

    Arguments:
        sizes: The sizes of the two parts.
        conditioner: h, from the passed part with shape (B, size, *) to
            (B, other size · f.count, *). The parameters of an element are neighbours.
        transform: f.
        flip: Pass the second part and transform the first.
        context: The number C of elements of a context, which h sees after the passed part, in an
            image as constant planes.
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

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        passed, moved = self._parts(x)
        y, log_slope = self.transform.forward_and_log_slope(moved, self._conditioned(passed))
        return self._joined(passed, y), sum_event(log_slope, x)

    def inverse(self, y: Tensor) -> Tensor:
        passed, moved = self._parts(y)
        return self._joined(passed, self.transform.inverse(moved, self._conditioned(passed)))

    def _conditioned(self, passed: Tensor) -> Tensor:
        if self.context:
            rows, pixels = self.contexts(passed), passed.shape[2:]
            planes = rows.view(*rows.shape, *[1] * len(pixels)).expand(-1, -1, *pixels)
            passed = torch.cat([passed, planes], 1)
        return self.conditioner(passed).unflatten(1, (-1, self.transform.count))

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, 1)
        return (second, first) if self.flip else (first, second)

    def _joined(self, passed: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, passed] if self.flip else [passed, moved], 1)
