r"""Layers that transform every element given those before it.

.. math:: y_i = f(x_i; h_i(x_1, \dots, x_{i-1})), \qquad
    \psi(x) = \sum_i \log \partial_x f(x_i; h_i),

with one masked network h of all elements, so that the Jacobian is triangular. The value is one
pass of h; the inverse is D of them, an element after another. Autograd takes the derivatives of h.

Sources: Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou, Murray, 2017),
arXiv:1705.07057; Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios, 2019),
arXiv:1906.04032.
"""

__all__ = ["Autoregressive"]

from functools import partial

import torch
from torch import Tensor, nn
from zuko.flows import MaskedAutoregressiveTransform
from zuko.transforms import MonotonicRQSTransform

from ..networks import started
from .base import Contextual, sum_event


class Autoregressive(Contextual):
    """Creates an autoregressive layer, the identity at the start; ``zuko``'s, as a bijection.

    h has two hidden layers of SiLU. It sees a context beside the elements, all of it for each.

    Arguments:
        size: The number D of elements. One alone has parameters of its own in place of h, unless
            there is a context.
        hidden: The width of h.
        bins: None: f is affine; else a rational-quadratic spline of that many bins on
            [−``bound``, ``bound``], the identity outside.
        bound: The half-width of the interval.
        context: The number C of elements of a context.
        generator: Where the weights come from; None: from seed 0.
    """

    def __init__(
        self,
        size: int,
        *,
        hidden: int = 64,
        bins: int | None = None,
        bound: float = 5.0,
        context: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(context)
        self.size, self.bins = size, bins
        spline = (
            {
                "univariate": partial(MonotonicRQSTransform, bound=bound),
                "shapes": [(bins,), (bins,), (bins - 1,)],
            }
            if bins
            else {}
        )
        with torch.random.fork_rng(devices=[]):  # zuko draws weights that are replaced here
            self.transform = MaskedAutoregressiveTransform(
                size, context, hidden_features=(hidden, hidden), activation=nn.SiLU, **spline
            )
        generator = generator or torch.Generator().manual_seed(0)
        layers = [m for m in self.transform.modules() if isinstance(m, nn.Linear)]
        for layer in layers[:-1]:
            started(layer, generator)
        last = layers[-1] if layers else self.transform
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and Σ log ∂f/∂x; one evaluation of h."""
        # zuko's own sum over elements does not take empty batches.
        context = self._context(x)
        at = self.transform.meta(context, x) if self.size > 1 else self.transform(context)
        y, log_slope = at.base.call_and_ladj(x)
        return y, sum_event(log_slope, x)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; D evaluations of h."""
        return self.transform(self._context(y)).inv(y)

    def _context(self, x: Tensor) -> Tensor | None:
        return self.contexts(x) if self.context else None
