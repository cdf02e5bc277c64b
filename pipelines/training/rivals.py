r"""Rivals of lazily refreshed normalizers: learned inverses.

``DenseWithInverse`` has a matrix R beside W, trained by a *reconstruction loss*
:math:`r(x) = \| R W x - x \|^2`, so that the gradient :math:`W^{-\top}` of
:math:`\log |\det W|` needs no factorization. With δ the gradients of the loss by y = W x as
columns, it is

* by **self-normalization** :math:`R^\top` itself. R also descends the negative log-likelihood of
  the layer whose inverse is R, with Wᵀ in the place of :math:`R^{-\top}`:

  .. math:: \nabla_W = \delta x^\top - R^\top, \qquad
      \nabla_R = -W^\top \delta \, (W x)^\top + W^\top;

* by the **free-form** surrogate the mean of :math:`v \, (R v)^\top` over directions v with
  :math:`E[v v^\top] = I`. R is trained by the reconstruction alone.

Both are exact, the second in the mean, if :math:`R = W^{-1}`. The gradient of the reconstruction
stops at x. Reported likelihoods are exact.

Importing this module adds ``linear="learned_inverse"`` to ``architectures.dense``.

Sources:
    Self Normalizing Flows (Keller et al., 2021), arXiv:2011.07248. Its code halves both gradients
    beside an r of weight 1, and sets an r that is NaN to 0, unlike here.
    Free-form Flows (Draxler et al., 2024), arXiv:2310.16624, for whole networks.
"""

__all__ = ["ARCHITECTURES", "RIVALS", "DenseWithInverse", "inverse_error",
           "learned_inverses", "load"]  # fmt: skip

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.architectures import ARCHITECTURES, LINEAR
from ebflow.bijections import Dense
from ebflow.bijections.base import as_autocast
from ebflow.checkpoint import load
from ebflow.distribution import FlowDistribution
from ebflow.flow import Flow
from ebflow.randomness import Generator, rademacher

Three = tuple[Tensor, Tensor, Tensor]
"""W x, a zero stand-in for log |det W| with shape (B,), and r(x)."""


class DenseWithInverse(Dense):
    """Creates y = W x + b with a learned R near W⁻¹, which starts as W⁻¹.

    Likelihoods and samples do not use R. W has the shape (D, D), and b (D,) if there is one.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.reverse = nn.Parameter(torch.linalg.inv(weight.double()).to(weight.dtype))

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns W, unless it is frozen."""
        return [p for p in super().volume_parameters() if p is not self.reverse]

    def reconstruct(self, x: Tensor, v: Tensor | None = None) -> Three:
        """Returns y, a zero stand-in for log |det W| with shape (B,), and r(x).

        Their backward gives the gradients of W and R above, in six GEMMs forward and backward; in
        eight with directions.

        Arguments:
            x: The points, with shape (B, D).
            v: A direction for each, for the free-form surrogate; None: self-normalization.
        """
        parts = (x, self.weight, self.reverse)
        y, *rest = _Reconstruct.apply(*as_autocast(*parts if v is None else (*parts, v)))
        return (y if self.bias is None else y + self.bias), *rest


class _Reconstruct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, reverse: Tensor, *v: Tensor) -> Three:  # noqa: ANN401
        z = F.linear(x, weight)
        residual = F.linear(z, reverse) - x
        directions = [part for one in v for part in (one, F.linear(one, reverse))]
        ctx.save_for_backward(x, z, residual, weight, reverse, *directions)
        return z, x.new_zeros(len(x)), residual.square().sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Returns the gradients by x, W and R, as the module's docstring has them."""
        delta, by_log_det, by_error = grads
        x, z, residual, weight, reverse, *directions = ctx.saved_tensors
        pull = 2 * by_error.unsqueeze(1) * residual
        grad_x = delta @ weight
        if directions:
            v, reversed_v = directions
            left = torch.cat([delta + pull @ reverse, by_log_det.unsqueeze(1) * v])
            return grad_x, left.mT @ torch.cat([x, reversed_v]), pull.mT @ z, None
        count = float(by_log_det.sum())  # −1 for a mean negative log-likelihood
        grad_weight = torch.addmm(reverse.mT, (delta + pull @ reverse).mT, x, beta=count)
        grad_reverse = torch.addmm(weight.mT, (pull - grad_x).mT, z, beta=-count)
        return grad_x, grad_weight, grad_reverse


LINEAR["learned_inverse"] = DenseWithInverse


def learned_inverses(
    density: FlowDistribution,
    x: Tensor,
    *,
    generator: Generator,
    directions: bool,
    reconstruction: float = 2.0,
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has a layer's surrogate in the place of W⁻ᵀ.

    The sum is over layers. It is exact maximum likelihood, with directions in the mean, if every R
    is W⁻¹. The value lacks log Z. Costs 6L GEMMs, with directions 8L; no inverse, no determinant.

    Arguments:
        density: The density of a flow.
        x: The data, with shape (B, D).
        generator: The source of directions.
        directions: True for the free-form surrogate, by independent signs for each example and
            layer; False for self-normalization.
        reconstruction: λ; the official code of self-normalization has 1 beside half of the other
            gradients.
    """
    log_dets: Tensor | float = 0.0
    errors: Tensor | float = 0.0
    for layer in density.layers:
        if isinstance(layer, DenseWithInverse):
            v = rademacher(x.shape, x, generator) if directions else None
            x, log_det, error = layer.reconstruct(x, v)
            errors = errors + error
        elif (
            layer.constant_jacobian
            and layer.unwrapped.lazy
            and layer.unwrapped.volume_parameters()
        ):
            raise ValueError(f"layer: found {type(layer).__name__}, expected a learned inverse")
        else:
            x, log_det = layer.forward_and_log_det(x)
        log_dets = log_dets + log_det
    return density.base.energy(x) - log_dets + reconstruction * errors


RIVALS = {
    "self_normalizing": partial(learned_inverses, directions=False),
    "free_form": partial(learned_inverses, directions=True),
}


@torch.no_grad()
def inverse_error(flow: Flow) -> float | None:
    """Returns the largest ‖R W − I‖ / √D of a flow's layers; None without a learned inverse.

    It is the root of r over D, for x ~ N(0, I) in the mean.
    """
    layers = [layer for layer in flow.layers if isinstance(layer, DenseWithInverse)]
    products = [layer.reverse.double() @ layer.weight.double() for layer in layers]
    errors = [(p - torch.eye(len(p)).to(p)).norm() / len(p) ** 0.5 for p in products]
    return max(map(float, errors), default=None)
