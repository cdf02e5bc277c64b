r"""Dense layers, unconstrained or triangular.

:math:`y = W x + b` has :math:`\log |\det J| = \log |\det W|`, O(D³) to compute and with gradient
:math:`W^{-\top}`. Training by score matching needs neither; evaluation factorises W once per
weight version, in float64. A triangular W has the sum of :math:`\log |W_{ii}|` instead, O(D).
"""

__all__ = ["Dense"]

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from .base import Linearization
from .gathered import GatheredLinearization
from .weighted import Weighted


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

    def gathered(self, x: Tensor) -> Linearization:
        """Returns this layer at ``x``, with one product for its weight gradient."""
        weight = self.effective_weight()
        if not (weight.requires_grad and torch.is_grad_enabled()):
            return self.linearize(x)
        return GatheredLinearization(weight, self.bias, x)

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a zero stand-in; their backward gives the *relative* gradient G WᵀW of W.

        G is the gradient of the loss with the log-determinant included, which relative form
        needs no inverse: W⁻ᵀWᵀW = W. Four GEMMs forward and backward. Triangular and
        parametrised weights, whose matrices are no group or no free ones, get G itself.
        """
        if not self.lazy or is_parametrized(self, "weight"):
            return super().relative(x)
        y, stand_in = _RelativeLinear.apply(x, self.weight)
        return (y if self.bias is None else y + self.bias), stand_in


class _RelativeLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN001
        z = F.linear(x, weight)
        ctx.save_for_backward(z, weight)
        return z, x.new_zeros(x.shape[0])

    @staticmethod
    def backward(ctx, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, Tensor]:  # noqa: ANN001
        z, weight = ctx.saved_tensors
        grad_x = grad_z @ weight if ctx.needs_input_grad[0] else None
        grad_weight = torch.addmm(weight, grad_z.mT, z @ weight, beta=float(grad_log_det.sum()))
        return grad_x, grad_weight
