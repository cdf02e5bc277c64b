r"""Dense layers held by their factors, W = P L U.

P is a fixed permutation, L has ones on its diagonal, and that of U is :math:`\pm e^{\ell}` with
fixed signs, so that

.. math:: \log |\det W| = \sum_i \ell_i,

O(D), and W is invertible whatever the factors are. Every invertible matrix has such factors for
some P; training does not leave those of the P, and of the signs, at the start.
"""

__all__ = ["DenseLU", "lu_factors"]

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ConstantJacobian, ConstantLinearization, Linearization, hold


def lu_factors(weight: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns what is trained and what is fixed of P L (U + S) = W."""
    permutation, lower, upper = torch.linalg.lu(weight)
    diagonal = upper.diagonal()
    trained = {"lower": lower.tril(-1), "upper": upper.triu(1), "log_scale": diagonal.abs().log()}
    return trained, {"permutation": permutation, "sign": diagonal.sign()}


class DenseLU(ConstantJacobian):
    """Creates y = P L U x + b, whose log-determinant is a sum of D logarithms.

    A product is two GEMMs of 2 B D² FLOP, by L and by U, whose masks, O(D²), are applied once for
    all products at the same points. ``inverse`` solves two triangular systems in float64, O(D²) a
    row.

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039, for 1×1 convolutions.

    Arguments:
        weight: W at the start, with shape (D, D).
        bias: b, with shape (D,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        trained, fixed = lu_factors(weight)
        hold(self, trainable=True, **trained, bias=bias)
        self.order = nn.Buffer(fixed["permutation"].argmax(1))
        self.sign = nn.Buffer(fixed["sign"])

    def extra_repr(self) -> str:
        """Names the size."""
        return f"({len(self.bias)},)"

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U."""
        eye = torch.eye(len(self.bias)).to(self.lower)
        diagonal = torch.diag(self.sign * self.log_scale.exp())
        return self.lower.tril(-1) + eye, self.upper.triu(1) + diagonal

    def forward(self, x: Tensor) -> Tensor:
        """Returns P L U x + b."""
        return self._act(x, self.factors) + self.bias

    def linear(self, v: Tensor) -> Tensor:
        """Returns P L U v."""
        return self._act(v, self.factors)

    def transpose(self, s: Tensor) -> Tensor:
        """Returns Uᵀ Lᵀ Pᵀ s."""
        return self._adjoint(s, self.factors)

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``, its factors masked once."""
        factors = self.factors
        maps = (partial(f, factors=factors) for f in (self._act, self._adjoint))
        return ConstantLinearization(self._act(x, factors) + self.bias, *maps)

    def log_det(self) -> Tensor:
        """Returns Σ ℓ."""
        return self.log_scale.sum()

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns ℓ, unless it is frozen."""
        return [self.log_scale] if self.log_scale.requires_grad else []

    def inverse(self, y: Tensor) -> Tensor:
        """Solves P L U x + b = y."""
        lower, upper = (factor.double() for factor in self.factors)
        z = self._unordered((y - self.bias).double()).reshape(-1, len(self.bias)).mT
        z = torch.linalg.solve_triangular(lower, z, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, z, upper=True).mT.reshape(y.shape).to(y.dtype)

    def _act(self, v: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
        lower, upper = factors
        return F.linear(F.linear(v, upper), lower)[..., self.order]

    def _adjoint(self, s: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
        lower, upper = factors
        return self._unordered(s) @ lower @ upper

    def _unordered(self, y: Tensor) -> Tensor:
        """Returns Pᵀ y."""
        return y[..., self.order.argsort()]
