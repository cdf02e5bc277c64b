r"""Dense layers with a learned inverse, which stands for W⁻ᵀ in the gradient of log |det W|.

A second matrix R is drawn to :math:`W^{-1}` by the *reconstruction loss*
:math:`r(x) = \| R W x - x \|^2`. The gradient :math:`W^{-\top}` then needs no factorization:

* By *self-normalization* it is :math:`R^\top`. R also descends the negative log-likelihood of the
  layer whose inverse is R, in which Wᵀ stands for :math:`R^{-\top}`. With δ, the gradients of the
  loss by y as columns,

  .. math:: \nabla_W = \delta x^\top - R^\top, \qquad
      \nabla_R = -W^\top \delta \, (W x)^\top + W^\top.

* By the *free-form* surrogate it is the mean of :math:`v \, (R v)^\top` over directions v with
  :math:`E[v v^\top] = I`. Only the reconstruction trains R.

Both are exact, the second on average, if :math:`R = W^{-1}`. The reconstruction has no gradient
by x, so it does not reach the layers before.

Sources: Self Normalizing Flows (Keller, Peters, Jaini, Hoogeboom, Forré, Welling, 2021),
arXiv:2011.07248, whose code halves both gradients beside an r of weight 1. Free-form Flows: Make
Any Architecture a Normalizing Flow (Draxler, Sorrenson, Zimmermann, Rousselot, Köthe, 2024),
arXiv:2310.16624, for whole networks; here for each linear layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import Dense

Three = tuple[Tensor, Tensor, Tensor]


class DenseWithInverse(Dense):
    """Creates y = W x + b with a learned R near W⁻¹, which starts as W⁻¹.

    Likelihoods and samples do not depend on R. W has shape (D, D); b has shape (D,), or is None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.reverse = nn.Parameter(torch.linalg.inv(weight.double()).to(weight.dtype))

    def volume_parameters(self) -> list[nn.Parameter]:
        return [p for p in super().volume_parameters() if p is not self.reverse]

    def self_normalized(self, x: Tensor) -> Three:
        """Returns y, a zero stand-in for log |det W| with shape (B,), and r(x) with shape (B,).

        Their backward gives the gradients of W and R above. Six GEMMs forward and backward.
        """
        y, *rest = _SelfNormalized.apply(*self._as_products(x, self.weight, self.reverse))
        return (y if self.bias is None else y + self.bias), *rest

    def free_form(self, x: Tensor, v: Tensor) -> Three:
        """Returns the same; the gradient of W is that of the surrogate. Eight GEMMs.

        ``v`` has a direction for each row of ``x``.
        """
        y, *rest = _FreeForm.apply(*self._as_products(x, v, self.weight, self.reverse))
        return (y if self.bias is None else y + self.bias), *rest

    @torch.no_grad()
    def inverse_error(self) -> float:
        """Returns ‖R W − I‖ / √D, the root of the mean of r over D for x ~ N(0, I)."""
        product = self.reverse.double() @ self.weight.double()
        identity = torch.eye(len(product)).to(product)
        return float((product - identity).norm() / len(product) ** 0.5)

    @staticmethod
    def _as_products(*tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns tensors in the type of products: autocast does not see own functions."""
        device = tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            return tensors
        return tuple(t.to(torch.get_autocast_dtype(device)) for t in tensors)


def _forward(x: Tensor, weight: Tensor, reverse: Tensor) -> Three:
    """Returns W x, a zero for the log-determinant, and R W x − x."""
    z = F.linear(x, weight)
    return z, x.new_zeros(len(x)), F.linear(z, reverse) - x


class _SelfNormalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, reverse: Tensor) -> Three:  # noqa: ANN401
        z, stand_in, residual = _forward(x, weight, reverse)
        ctx.save_for_backward(x, z, residual, weight, reverse)
        return z, stand_in, residual.square().sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Three:  # noqa: ANN401
        delta, of_log_det, of_error = grads
        x, z, residual, weight, reverse = ctx.saved_tensors
        count = of_log_det.sum()  # −1 for a mean negative log-likelihood
        pull = 2 * of_error.unsqueeze(1) * residual
        grad_x = delta @ weight
        grad_weight = torch.addmm(count * reverse.mT, (delta + pull @ reverse).mT, x)
        grad_reverse = torch.addmm(-count * weight.mT, (pull - grad_x).mT, z)
        return grad_x, grad_weight, grad_reverse


class _FreeForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, weight: Tensor, reverse: Tensor) -> Three:  # noqa: ANN401
        z, stand_in, residual = _forward(x, weight, reverse)
        ctx.save_for_backward(x, z, residual, v, F.linear(v, reverse), weight, reverse)
        return z, stand_in, residual.square().sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        delta, of_log_det, of_error = grads
        x, z, residual, v, reversed_v, weight, reverse = ctx.saved_tensors
        pull = 2 * of_error.unsqueeze(1) * residual
        left = torch.cat([delta + pull @ reverse, of_log_det.unsqueeze(1) * v])
        grad_weight = left.mT @ torch.cat([x, reversed_v])
        return delta @ weight, None, grad_weight, pull.mT @ z
