r"""The weight gradient of a dense layer that a score uses twice, in one matrix product.

In :math:`y = W x + b` and :math:`s_x = W^\top s_y` the same W gets the gradients
:math:`\bar y^\top x` and :math:`s_y^\top \bar s_x`. Autograd computes and adds two D×D matrices;
here the second pair waits for the first, and both are one product of 2B rows. The score over y
depends on y, so the pullback's backward always comes before that of the forward step.

It is for a training step, differentiated once and as a whole; ``Flow.score`` does not use it.
"""

__all__ = ["GatheredLinearization"]

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .base import Linearization

Pairs = dict[int, tuple[Tensor, Tensor]]


class GatheredLinearization(Linearization):
    """A dense layer at ``x``, whose weight gradient is one product a step.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        x: The points, with shape (B, D).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> None:
        self.weight, self.pairs, self.pullbacks = weight, Pairs(), 0
        y = _Forward.apply(x, weight, self.pairs)
        self.y = y if bias is None else y + bias

    def pullback(self, s: Tensor) -> Tensor:
        """Returns Wᵀ s."""
        self.pullbacks += 1
        return _Pullback.apply(s, self.weight, self.pairs, self.pullbacks)

    def tangent(self, v: Tensor) -> Tensor:
        """Returns W v."""
        return F.linear(v, self.weight)

    def curvature(self, v: Tensor, s: Tensor) -> float:
        """Returns 0: the map is linear."""
        return 0.0

    def log_det(self) -> float:
        """Returns 0: the log-determinant belongs to the normaliser."""
        return 0.0


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        ctx.pairs = pairs
        return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        left, right = zip((grad, x), *ctx.pairs.values(), strict=True)
        ctx.pairs.clear()
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, torch.cat(left).mT @ torch.cat(right), None


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, weight: Tensor, pairs: Pairs, key: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(s, weight)
        ctx.pairs, ctx.key = pairs, key
        return s @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        s, weight = ctx.saved_tensors
        ctx.pairs[ctx.key] = (s, grad)
        return F.linear(grad, weight), None, None, None
