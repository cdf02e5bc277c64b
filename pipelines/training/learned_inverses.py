r"""Rival likelihoods: dense layers with a learned inverse, and two objectives that train them.

Beside W such a layer has a second matrix R. A *reconstruction loss*

.. math:: r(x) = \| R W x - x \|^2

draws R to :math:`W^{-1}`. Then the gradient :math:`W^{-\top}` of :math:`\log |\det W|` needs no
factorization:

* by **self-normalization** it is :math:`R^\top` itself. R then also descends the negative
  log-likelihood of the layer whose inverse is R, with Wᵀ in the place of :math:`R^{-\top}`. With
  δ the gradients of the loss by y as columns, and those by x, Wᵀδ,

  .. math:: \nabla_W = \delta x^\top - R^\top, \qquad
      \nabla_R = -W^\top \delta \, (W x)^\top + W^\top;

* by the **free-form** surrogate it is the mean of :math:`v \, (R v)^\top` over directions v with
  :math:`E[v v^\top] = I`, the gradient by W of :math:`v^\top W \, \mathrm{sg}(R v)`, where
  :math:`R v` is constant. R is trained by the reconstruction alone.

Both are exact, the second in the mean, if :math:`R = W^{-1}`, and biased by as much as it is not.
The gradient of the reconstruction stops at x: it reaches no layer before. The log-determinants of
all other layers are exact, and so are the likelihoods that are reported.

Importing this module adds ``linear="learned_inverse"`` to ``architectures.dense``.

Sources:
    Self Normalizing Flows (Keller, Peters, Jaini, Hoogeboom, Forré, Welling, 2021),
    arXiv:2011.07248. Its code halves both gradients beside an r of weight 1, and sets an r that
    is NaN to 0, unlike here.
    Free-form Flows: Make Any Architecture a Normalizing Flow (Draxler, Sorrenson, Zimmermann,
    Rousselot, Köthe, 2024), arXiv:2310.16624, for whole networks; here for each linear layer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.architectures import LINEAR
from ebflow.bijections import Dense
from ebflow.bijections.base import as_autocast
from ebflow.distribution import FlowDistribution
from ebflow.flow import Flow
from ebflow.randomness import Generator, rademacher

Three = tuple[Tensor, Tensor, Tensor]


class DenseWithInverse(Dense):
    """Creates y = W x + b with a learned R near W⁻¹, which starts as W⁻¹.

    Likelihoods and samples do not use R.

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

    def self_normalized(self, x: Tensor) -> Three:
        """Returns y, a zero stand-in for log |det W| with shape (B,), and r(x).

        Their backward gives the gradients of W and R above. Six GEMMs forward and backward.
        """
        y, *rest = _SelfNormalized.apply(*as_autocast(x, self.weight, self.reverse))
        return (y if self.bias is None else y + self.bias), *rest

    def free_form(self, x: Tensor, v: Tensor) -> Three:
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
        """Returns the gradients by x, W and R, as the module's docstring has them."""
        delta, by_log_det, by_error = grads
        x, z, residual, weight, reverse = ctx.saved_tensors
        count = float(by_log_det.sum())  # −1 for a mean negative log-likelihood
        pull = 2 * by_error.unsqueeze(1) * residual
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
        delta, by_log_det, by_error = grads
        x, z, residual, v, reversed_v, weight, reverse = ctx.saved_tensors
        pull = 2 * by_error.unsqueeze(1) * residual
        left = torch.cat([delta + pull @ reverse, by_log_det.unsqueeze(1) * v])
        grad_weight = left.mT @ torch.cat([x, reversed_v])
        return delta @ weight, None, grad_weight, pull.mT @ z


LINEAR["learned_inverse"] = DenseWithInverse

Step = Callable[[DenseWithInverse, Tensor], Three]


def self_normalizing(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has each layer's Rᵀ in the place of W⁻ᵀ.

    r is the squared error with which a layer's R undoes W. It is exact maximum likelihood if
    every R is W⁻¹. The value lacks log Z. Costs 6L GEMMs, no inverse and no determinant.

    Arguments:
        density: The density of a flow.
        x: The data, with shape (B, D).
        generator: Not used.
        reconstruction: λ; the official code has 1 beside half of the other gradients.
    """

    def step(layer: DenseWithInverse, x: Tensor) -> Three:
        return layer.self_normalized(x)

    return _loss(density, x, step, reconstruction)


def free_form(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has v (R v)ᵀ in the place of every W⁻ᵀ.

    v are independent signs for each example and layer. It is unbiased for maximum likelihood if
    every R is W⁻¹, with the mean of ``self_normalizing`` and a larger variance. This is free-form
    training of each linear layer; that of a whole network has the variance of all its layers.
    Costs 8L GEMMs. Arguments as there.
    """

    def step(layer: DenseWithInverse, x: Tensor) -> Three:
        return layer.free_form(x, rademacher(x.shape, x, generator))

    return _loss(density, x, step, reconstruction)


def inverse_error(flow: Flow) -> float | None:
    """Returns the largest ‖R W − I‖ / √D of a flow's layers; None without a learned inverse."""
    layers = [layer for layer in flow.layers if isinstance(layer, DenseWithInverse)]
    return max((layer.inverse_error() for layer in layers), default=None)


def _loss(density: FlowDistribution, x: Tensor, step: Step, reconstruction: float) -> Tensor:
    log_dets: Tensor | float = 0.0
    errors: Tensor | float = 0.0
    for layer in density.layers:
        if isinstance(layer, DenseWithInverse):
            x, log_det, error = step(layer, x)
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


RIVALS = {function.__name__: function for function in (self_normalizing, free_form)}
