"""Dense layers of an arbitrary matrix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from .weighted import Weighted


class Dense(Weighted):
    r"""Creates y = W x + b with an arbitrary square matrix W.

    ``forward``, ``linear`` and ``transpose`` are one GEMM of 2 B D² FLOP each. ``log_det``, whose
    gradient is :math:`W^{-\top}`, and ``inverse`` factorize W, O(D³).

    Source of ``relative``: Relative gradient optimization of the Jacobian term in unsupervised
    deep learning (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090.

    W has shape (D, D); b has shape (D,), or is None. They are parameters if ``trainable``, buffers
    otherwise. Buffers whiten near-collinear columns by large numbers, so evaluation is in float64.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, trainable: bool = True) -> None:
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (D, D)")
        super().__init__((len(weight),), weight, bias, trainable=trainable)

    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.training or "weight" not in self._buffers:
            return F.linear(v, weight, bias)
        return F.linear(v.double(), weight.double()).to(v.dtype) + (0.0 if bias is None else bias)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        return s @ weight

    def columns(self, event: Tensor) -> Tensor:
        """Returns Wᵀ, without a product."""
        return self.weight.mT.to(event.dtype)

    def block(self, weight: Tensor) -> Tensor:
        return weight

    def to_columns(self, z: Tensor) -> Tensor:
        return z.reshape(-1, z.shape[-1]).mT

    def from_columns(self, columns: Tensor, shape: torch.Size) -> Tensor:
        return columns.mT.reshape(shape)

    def solver(self, gradient: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns r ↦ W₀⁻¹ r: the gradient is W₀⁻ᵀ, so no factorization."""
        return lambda r: r @ gradient

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a zero stand-in; their backward gives the *relative* gradient G WᵀW of W.

        G is the gradient of the loss with the log-determinant included, which relative form
        needs no inverse: W⁻ᵀWᵀW = W. Four GEMMs forward and backward. Parametrized weights get
        G itself.
        """
        if is_parametrized(self, "weight"):
            return super().relative(x)
        device = x.device.type  # autocast does not see own autograd functions
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else x.dtype
        y, stand_in = _RelativeLinear.apply(x.to(dtype), self.weight.to(dtype))
        return (y if self.bias is None else y + self.bias), stand_in


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
        grad_weight = torch.addmm(weight * grad_log_det.sum(), grad_z.mT, z @ weight)
        return grad_x, grad_weight
