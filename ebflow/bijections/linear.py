r"""Dense layers.

:math:`y = W x + b` has :math:`\log |\det J| = \log |\det W|`, O(D³) to compute and with gradient
:math:`W^{-\top}`. Training by score matching needs neither; evaluation factorizes W once per
weight version, in float64.
"""

__all__ = ["Dense"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from .base import ConstantLinearization, Linearization, as_autocast
from .weighted import Weighted


class Pairs(dict[object, tuple[Tensor, Tensor]]):
    """Rows whose products add up to one weight gradient, by the steps that have them."""

    closed = False


class Dense(Weighted):
    r"""Creates y = W x + b with an arbitrary square matrix W.

    ``forward``, ``linear`` and ``transpose`` are one GEMM of 2 B D² FLOP each. ``log_det`` and
    ``inverse`` factorize W, O(D³), once per version of the weights while no gradient is needed.

    References:
        Relative gradient optimization of the Jacobian term in unsupervised deep learning
        (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090 — for
        ``relative``.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        trainable: True if W and b are parameters; buffers otherwise.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, trainable: bool = True) -> None:
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (D, D)")
        super().__init__((len(weight),), weight, bias, trainable=trainable)

    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns W v + b; one GEMM."""
        return F.linear(v, weight, bias)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns Wᵀ s; one GEMM."""
        return s @ weight

    def blocks(self, weight: Tensor) -> Tensor:
        """Returns W, the one block."""
        return weight

    def to_blocks(self, z: Tensor) -> Tensor:
        return z.reshape(-1, z.shape[-1]).mT

    def from_blocks(self, columns: Tensor, shape: torch.Size) -> Tensor:
        return columns.mT.reshape(shape)

    def solver(self, gradient: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns r ↦ W₀⁻¹ r: the gradient is W₀⁻ᵀ, so no factorization."""
        return lambda r: r @ gradient

    def columns(self, event: Tensor) -> Tensor:
        """Returns the columns of W."""
        return self.weight.mT

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``; in training one product computes its weight gradient."""
        weight = self.weight
        differentiated = weight.requires_grad and torch.is_grad_enabled()
        if not (training and differentiated) or torch.compiler.is_compiling():
            return self._linearized(x, weight)
        x, weight = as_autocast(x, weight)
        return _one_product(weight, self.bias, x)

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a zero stand-in; their backward gives the *relative* gradient G WᵀW of W.

        G is the gradient of the loss with the log-determinant included, which relative form
        needs no inverse: W⁻ᵀWᵀW = W. Four GEMMs forward and backward. Parametrized weights get
        G itself.
        """
        if is_parametrized(self, "weight"):
            return super().relative(x)
        y, stand_in = _RelativeLinear.apply(*as_autocast(x, self.weight))
        return (y if self.bias is None else y + self.bias), stand_in


def _one_product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Linearization:
    r"""Returns a dense layer at ``x``, whose weight gradient is one product a step.

    In :math:`y = W x + b`, :math:`\dot y = W v` and :math:`s_x = W^\top s_y` the same W gets the
    gradients :math:`\bar y^\top x`, :math:`\bar{\dot y}^\top v` and :math:`s_y^\top \bar s_x`.
    Autograd would compute and add three D×D matrices. Here the other pairs wait for the forward
    step, whose backward comes last, and all become one product.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        x: The points, with shape (B, D).
    """
    pairs = Pairs()
    y = _Forward.apply(x, weight, pairs)

    def tangent(v: Tensor) -> Tensor:
        rows = v.to(weight.dtype).flatten(0, -2)  # under autocast v may be wider
        return _Waiting.apply(rows, weight, pairs, False).view(v.shape)

    def pullback(s: Tensor) -> Tensor:
        return _Waiting.apply(s.to(weight.dtype), weight, pairs, True)

    return ConstantLinearization(y if bias is None else y + bias, tangent, pullback)


class _Forward(torch.autograd.Function):
    """x ↦ W x, whose backward takes the weight gradients of all that waited."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        ctx.pairs = pairs
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        left, right = zip((grad, x), *ctx.pairs.values(), strict=True)
        ctx.pairs.clear()
        ctx.pairs.closed = True
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, torch.cat(left).mT @ torch.cat(right), None


class _Waiting(torch.autograd.Function):
    """v ↦ W v, or Wᵀ v, whose pair of rows waits for the forward step's backward.

    PyTorch runs the backward of later steps first, so the forward step's is the last one. A pair
    that comes after it, as in a second backward pass, becomes a gradient of its own.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, pairs: Pairs, transposed: bool) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(v, weight)
        ctx.pairs, ctx.key, ctx.transposed = pairs, object(), transposed
        return v @ weight if transposed else F.linear(v, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        v, weight = ctx.saved_tensors
        grad_v = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_v = F.linear(grad, weight) if ctx.transposed else grad @ weight
        left, right = (v, grad) if ctx.transposed else (grad, v)
        if ctx.pairs.closed:
            grad_weight = left.mT @ right
        else:
            ctx.pairs[ctx.key] = left, right
        return grad_v, grad_weight, None, None


class _RelativeLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        z = F.linear(x, weight)
        ctx.save_for_backward(z, weight)
        return z, x.new_zeros(x.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:  # noqa: ANN401
        grad_z, grad_log_det = grads
        z, weight = ctx.saved_tensors
        grad_x = grad_z @ weight if ctx.needs_input_grad[0] else None
        grad_weight = torch.addmm(weight, grad_z.mT, z @ weight, beta=float(grad_log_det.sum()))
        return grad_x, grad_weight
