r"""Unconstrained dense layers.

:math:`y = W x + b` has :math:`\log |\det J| = \log |\det W|`, O(D³) to compute and with gradient
:math:`W^{-\top}`. Training by score matching needs neither; evaluation factorises W once per
weight version, in float64.
"""

__all__ = ["Dense"]

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ConstantJacobian, Jet, Linearization
from .gathered import GatheredLinearization


class Dense(ConstantJacobian):
    r"""Creates y = W x + b with an arbitrary square matrix W.

    ``forward``, ``linear`` and ``transpose`` are one GEMM of 2 B D² FLOP each; ``log_det`` and
    ``inverse`` factorise W, O(D³), once per version of the weights while no gradient is asked.

    References:
        Relative gradient optimization of the Jacobian term in unsupervised deep learning
        (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090 — for
        ``relative``.

    Arguments:
        weight: W, with shape (D, D).
        bias: b, with shape (D,), or None.
        trainable: Whether W and b are parameters; buffers otherwise.
    """

    lazy = True

    def __init__(self, weight: Tensor, bias: Tensor | None, *, trainable: bool = True) -> None:
        super().__init__()
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (D, D)")
        if trainable:
            self.weight = nn.Parameter(weight.clone())
            self.bias = None if bias is None else nn.Parameter(bias.clone())
        else:
            self.register_buffer("weight", weight.clone())
            self.register_buffer("bias", None if bias is None else bias.clone())
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None

    def extra_repr(self) -> str:
        """Names the size."""
        return f"{self.weight.shape[0]}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns W x + b; one GEMM."""
        return F.linear(x, self.weight, self.bias)

    def linear(self, v: Tensor) -> Tensor:
        """Returns W v; one GEMM."""
        return F.linear(v, self.weight)

    def transpose(self, s: Tensor) -> Tensor:
        """Returns Wᵀ s; one GEMM."""
        return s @ self.weight

    def columns(self, event: Tensor) -> Tensor:
        """Returns the columns of W."""
        return self.weight.mT

    def gathered(self, x: Tensor) -> Linearization:
        """Returns this layer at ``x``, with one product for its weight gradient."""
        if not (self.weight.requires_grad and torch.is_grad_enabled()):
            return self.linearize(x)
        return GatheredLinearization(self.weight, self.bias, x)

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns W if it is trainable: the offset moves no volume."""
        return [self.weight] if self.weight.requires_grad else []

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Pushes all coefficients of the jet through one GEMM."""
        parts = [part for part in jet if part is not None]
        size = jet.x.shape[-1]
        rows = self.linear(torch.cat([part.reshape(-1, size) for part in parts]))
        x, v, *a = (
            out.view(part.shape)
            for out, part in zip(
                rows.split([p.numel() // size for p in parts]), parts, strict=True
            )
        )
        zero = x.new_zeros(())
        return Jet(x if self.bias is None else x + self.bias, v, a[0] if a else None), zero, zero

    def relative(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and a zero stand-in; their backward gives the *relative* gradient G WᵀW of W.

        G is the gradient of the loss with the log-determinant included, which relative form
        needs no inverse: W⁻ᵀWᵀW = W. Four GEMMs forward and backward.
        """
        y, stand_in = _RelativeLinear.apply(x, self.weight)
        return (y if self.bias is None else y + self.bias), stand_in

    def log_det(self) -> Tensor:
        """Returns log |det W|: by slogdet if W needs a gradient, else from the cached LU."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return torch.linalg.slogdet(self.weight)[1]
        factors, _ = self._lu()
        return factors.diagonal().abs().log().sum().to(self.weight.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves W x + b = y with the LU of W, cached unless a gradient is asked."""
        z = y if self.bias is None else y - self.bias
        if torch.is_grad_enabled() and (z.requires_grad or self.weight.requires_grad):
            return torch.linalg.solve(self.weight, z.mT).mT
        factors, pivots = self._lu()
        rows = z.reshape(-1, z.shape[-1]).to(factors.dtype)
        return torch.linalg.lu_solve(factors, pivots, rows.mT).mT.to(y.dtype).view(z.shape)

    def _lu(self) -> tuple[Tensor, Tensor]:
        if not self._current():
            weight = self.weight.detach().clone()
            factors, pivots, _ = torch.linalg.lu_factor_ex(weight.double())
            self._factors = (weight, factors, pivots)
        return self._factors[1:]

    def _current(self) -> bool:
        # By value, O(D²): fused optimisers and ``.data`` change weights without a new version.
        if self._factors is None:
            return False
        known, weight = self._factors[0], self.weight
        same = known.dtype == weight.dtype and known.device == weight.device
        return same and torch.equal(known, weight)


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
