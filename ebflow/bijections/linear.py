r"""Dense layers, of an arbitrary matrix or of its factors.

:math:`y = W x + b` has :math:`\log |\det J| = \log |\det W|`, O(D³) to compute and with gradient
:math:`W^{-\top}`. Training by score matching needs neither; evaluation factorizes W once per
weight version, in float64.
"""

__all__ = ["Dense", "DenseLU"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from .base import ConstantJacobian, as_autocast, hold
from .weighted import Weighted


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
        return F.linear(v, weight, bias)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        return s @ weight

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
        y, stand_in = _RelativeLinear.apply(*as_autocast(x, self.weight))
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
        grad_weight = torch.addmm(weight, grad_z.mT, z @ weight, beta=float(grad_log_det.sum()))
        return grad_x, grad_weight


class DenseLU(ConstantJacobian):
    r"""Creates y = P L U x + b, whose log-determinant is a sum of D logarithms.

    P is a fixed permutation, L has a diagonal of ones, and U one of :math:`\pm e^{\ell}` with
    fixed signs, all of them those of the start. A product is two GEMMs of 2 B D² FLOP.
    ``inverse`` solves two triangular systems in float64, O(D²) a row.

    Source: Glow (Kingma, Dhariwal, 2018), arXiv:1807.03039.

    Arguments:
        weight: W at the start, with shape (D, D).
        bias: b, with shape (D,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        factors = {"lower": lower.tril(-1), "upper": upper.triu(1)}
        hold(self, trainable=True, **factors, log_scale=diagonal.abs().log(), bias=bias)
        self.order, self.sign = nn.Buffer(permutation.argmax(1)), nn.Buffer(diagonal.sign())

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U."""
        eye = torch.eye(len(self.bias)).to(self.lower)
        diagonal = torch.diag(self.sign * self.log_scale.exp())
        return self.lower.tril(-1) + eye, self.upper.triu(1) + diagonal

    def forward(self, x: Tensor) -> Tensor:
        """Returns P L U x + b."""
        return self.linear(x) + self.bias

    def linear(self, v: Tensor) -> Tensor:
        """Returns P L U v."""
        lower, upper = self.factors
        return F.linear(F.linear(v, upper), lower)[..., self.order]

    def transpose(self, s: Tensor) -> Tensor:
        """Returns Uᵀ Lᵀ Pᵀ s."""
        lower, upper = self.factors
        return s[..., self.order.argsort()] @ lower @ upper

    def log_det(self) -> Tensor:
        """Returns Σ ℓ."""
        return self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Solves P L U x + b = y."""
        lower, upper = (factor.double() for factor in self.factors)
        z = (y - self.bias).double()[..., self.order.argsort()].reshape(-1, len(self.bias)).mT
        z = torch.linalg.solve_triangular(lower, z, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, z, upper=True).mT.reshape(y.shape).to(y.dtype)
