r"""Dense layers, unconstrained or triangular.

:math:`y = W x + b` has :math:`\log |\det J| = \log |\det W|`, O(D³) to compute and with gradient
:math:`W^{-\top}`. Training by score matching needs neither; evaluation factorises W once per
weight version, in float64. A triangular W has the sum of :math:`\log |W_{ii}|` instead, O(D).
"""

__all__ = ["Dense"]

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from .base import ConstantLinearization, Linearization, as_autocast
from .weighted import Weighted

Pairs = dict[int, tuple[Tensor, Tensor]]


class Dense(Weighted):
    r"""Creates y = W x + b with an arbitrary square matrix W, or the triangle of one.

    ``forward``, ``linear`` and ``transpose`` are one GEMM of 2 B D² FLOP each. For a full W,
    ``log_det`` and ``inverse`` factorise it, O(D³), once per version of the weights while no
    gradient is asked. For a triangular one ``log_det`` is O(D) and ``inverse`` O(D²) a row; the
    entries outside the triangle are held but have no effect and no gradient.

    References:
        Relative gradient optimization of the Jacobian term in unsupervised deep learning
        (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090 — for
        ``relative``.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        structure: ``full``, or the triangle of W in effect: ``tril`` or ``triu``.
        trainable: Whether W and b are parameters; buffers otherwise.
    """

    keeps = ("gradient",)

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        structure: str = "full",
        trainable: bool = True,
    ) -> None:
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (D, D)")
        tensors = {"weight": weight, "bias": bias}
        super().__init__((len(weight),), tensors, structure=structure, trainable=trainable)
        self.lazy = structure == "full"

    def effective_weight(self) -> Tensor:
        """Returns W, or its triangle."""
        if self.structure == "full":
            return self.weight
        return self.weight.tril() if self.structure == "tril" else self.weight.triu()

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
        """Returns the rows of ``z`` as columns."""
        return z.reshape(-1, z.shape[-1]).mT

    def from_blocks(self, columns: Tensor, shape: torch.Size) -> Tensor:
        """Returns the columns as rows of ``shape``."""
        return columns.mT.reshape(shape)

    def volume(self, weight: Tensor) -> Tensor:
        """Returns log |det W|."""
        if self.lazy:
            return super().volume(weight)
        return weight.diagonal().abs().log().sum()

    def solver(self, kept: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """Returns r ↦ W₀⁻¹ r: the stale gradient is W₀⁻ᵀ, so no factorisation."""
        return lambda r: r @ kept["gradient"]

    def columns(self, event: Tensor) -> Tensor:
        """Returns the columns of W."""
        return self.effective_weight().mT

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``; in training with one product for its weight gradient."""
        weight = self.effective_weight()
        differentiated = weight.requires_grad and torch.is_grad_enabled()
        if not (training and differentiated) or torch.compiler.is_compiling():
            return self._linearised(x, weight)
        x, weight = as_autocast(x, weight)
        return _one_product(weight, self.bias, x)

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a zero stand-in; their backward gives the *relative* gradient G WᵀW of W.

        G is the gradient of the loss with the log-determinant included, which relative form
        needs no inverse: W⁻ᵀWᵀW = W. Four GEMMs forward and backward. Triangular and
        parametrised weights, whose matrices are no group or no free ones, get G itself.
        """
        if not self.lazy or is_parametrized(self, "weight"):
            return super().relative(x)
        y, stand_in = _RelativeLinear.apply(*as_autocast(x, self.weight))
        return (y if self.bias is None else y + self.bias), stand_in


def _one_product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Linearization:
    r"""Returns a dense layer at ``x``, whose weight gradient is one product a step.

    In :math:`y = W x + b` and :math:`s_x = W^\top s_y` the same W gets the gradients
    :math:`\bar y^\top x` and :math:`s_y^\top \bar s_x`. Autograd computes and adds two D×D
    matrices; here the second pair waits for the first, and both are one product of 2B rows. The
    score over y depends on y, so the pullback's backward always comes before that of the forward
    step, if all is differentiated as a whole.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        x: The points, with shape (B, D).
    """
    pairs, keys = Pairs(), count()
    y = _Forward.apply(x, weight, pairs)

    def pullback(s: Tensor) -> Tensor:
        s = s.to(weight.dtype)  # under autocast a score may be wider
        return _Pullback.apply(s, weight, pairs, next(keys))

    y = y if bias is None else y + bias
    return ConstantLinearization(y, partial(F.linear, weight=weight), pullback)


class _Forward(torch.autograd.Function):
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
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, torch.cat(left).mT @ torch.cat(right), None


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, weight: Tensor, pairs: Pairs, key: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(s, weight)
        ctx.pairs, ctx.key = pairs, key
        return s @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        s, weight = ctx.saved_tensors
        ctx.pairs[ctx.key] = (s, grad)
        return F.linear(grad, weight), None, None, None


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
