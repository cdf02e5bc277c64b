r"""Autoregressive layers: every element is transformed given those before it.

.. math:: y_i = f(x_i; h_i(x_1, \dots, x_{i-1})), \qquad
    \psi(x) = \sum_i \log \partial_x f(x_i; h_i),

with f increasing and h one masked network of all elements, so that the Jacobian is triangular.
The value is one pass of h; the inverse is D of them, an element after another. The score contains
the derivatives of h, which autograd takes for this layer alone.

f is affine, or a rational-quadratic spline. The latter is :math:`C^1` only: the score has jumps
at its knots, and ``ssm`` and ``ssm_vr`` miss what these contribute to the trace of its Jacobian;
``dsm``, ``fd_ssm``, whose differences reach across a jump, and the likelihoods do not. With affine
f the score is continuous, since h is smooth.

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
    """Creates the layer above, the identity at the start; ``zuko``'s, as a bijection.

    h has two hidden layers of SiLU. It sees a context beside the elements, all of it for each.

    Arguments:
        size: The number D of elements, at least 2.
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
        if size < 2:
            raise ValueError(f"size: found {size}, expected at least two elements")
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
        *inner, last = (m for m in self.transform.modules() if isinstance(m, nn.Linear))
        for layer in inner:
            started(layer, generator)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and Σ log ∂f/∂x; one evaluation of h."""
        # zuko's own sum over elements does not take empty batches.
        y, log_slope = self.transform.meta(self._context(x), x).base.call_and_ladj(x)
        return y, sum_event(log_slope, x)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; D evaluations of h."""
        return self.transform(self._context(y)).inv(y)

    def _context(self, x: Tensor) -> Tensor | None:
        return self.contexts(x) if self.context else None
