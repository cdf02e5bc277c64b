r"""Dense layers that learn their inverse beside themselves.

A layer y = W x + b holds a second matrix R, which a *reconstruction loss*

.. math:: r(x) = \| R W x - x \|^2

draws to :math:`W^{-1}`. Where it is there, the gradient :math:`W^{-\top}` of
:math:`\log |\det W|` is had without a factorisation:

* by **self-normalization** it is :math:`R^\top` itself. R then also descends the negative
  log-likelihood of the layer whose inverse is R, of which Wᵀ takes the place of
  :math:`R^{-\top}`: with δ the gradients of the loss by y as columns, and those by x, Wᵀδ,

  .. math:: \nabla_W = \delta x^\top - R^\top, \qquad
      \nabla_R = -W^\top \delta \, (W x)^\top + W^\top;

* by the **free-form** surrogate it is the mean of :math:`v \, (R v)^\top` over directions v with
  :math:`E[v v^\top] = I`, the gradient by W of :math:`v^\top W \, \mathrm{sg}(R v)`, whose
  :math:`R v` is held constant. R is trained by the reconstruction alone.

Both are exact, the second in the mean, if :math:`R = W^{-1}`, and biased by as much as it is not.
The reconstruction is of x as it is: no gradient of it reaches the layers before.

References:
    Self Normalizing Flows (Keller, Peters, Jaini, Hoogeboom, Forré, Welling, 2021),
    arXiv:2011.07248. Its code halves both gradients beside an r of weight 1, and sets an r that
    is NaN to 0, which is not done here.
    Free-form Flows: Make Any Architecture a Normalizing Flow (Draxler, Sorrenson, Zimmermann,
    Rousselot, Köthe, 2024), arXiv:2310.16624, for whole nets; here for each linear layer.
"""

__all__ = ["DenseWithInverse"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import as_autocast
from .linear import Dense


class DenseWithInverse(Dense):
    """Creates y = W x + b with a learned R near W⁻¹, which starts as W⁻¹.

    All but the two methods here is that of ``Dense``: likelihoods and samples do not see R.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.reverse = nn.Parameter(torch.linalg.inv(weight.double()).to(weight.dtype))

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns W, unless it is frozen."""
        return [p for p in super().volume_parameters() if p is not self.reverse]

    def self_normalized(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns y, a zero stand-in for log |det W| with shape (B,), and r(x).

        Their backward gives the gradients of W and R above. Six GEMMs forward and backward.
        """
        y, *rest = _SelfNormalized.apply(*as_autocast(x, self.weight, self.reverse))
        return (y if self.bias is None else y + self.bias), *rest

    def free_form(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the same; the gradient of W is that of the surrogate. Eight GEMMs.

        Arguments:
            x: The points, with shape (B, D).
            v: A direction for each.
        """
        y, *rest = _FreeForm.apply(*as_autocast(x, v, self.weight, self.reverse))
        return (y if self.bias is None else y + self.bias), *rest

    @torch.no_grad()
    def inverse_error(self) -> float:
        """Returns ‖R W − I‖ / √D: the root of r over D, for x ~ N(0, I) in the mean."""
        product = self.reverse.double() @ self.weight.double()
        return float((product - torch.eye(len(product)).to(product)).norm() / len(product) ** 0.5)


Three = tuple[Tensor, Tensor, Tensor]


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
        """Returns the gradients by x, W and R, of which the module tells."""
        delta, of_log_det, of_error = grads
        x, z, residual, weight, reverse = ctx.saved_tensors
        count = float(of_log_det.sum())  # −1 of a mean negative log-likelihood
        pull = 2 * of_error.unsqueeze(1) * residual
        grad_x = delta @ weight
        grad_weight = torch.addmm(reverse.mT, (delta + pull @ reverse).mT, x, beta=count)
        grad_reverse = torch.addmm(weight.mT, (pull - grad_x).mT, z, beta=-count)
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
