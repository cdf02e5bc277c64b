r"""The architectures, with rival dense layers beside the library's.

``DenseLU`` has W = P L U, where P is a fixed permutation, L has a diagonal of ones, and U one of
:math:`\pm e^{\ell}` with fixed signs. So :math:`\log |\det W| = \sum_i \ell_i`, O(D), and W is
always invertible. Every invertible matrix has such factors for some P; training does not change
P and the signs.

Importing this module adds ``linear="lu"`` and ``linear="learned_inverse"`` to
``architectures.dense``.
"""

__all__ = ["ARCHITECTURES", "DenseLU", "load"]

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pipelines.training.learned_inverses  # noqa: F401  (adds a form of dense layers)
from ebflow import checkpoint
from ebflow.architectures import ARCHITECTURES, LINEAR
from ebflow.bijections import ConstantJacobian, Linearization
from ebflow.bijections.base import ConstantLinearization, hold
from ebflow.flow import Flow


def load(folder: str | Path) -> Flow:
    """Returns the flow of a checkpoint, with layers of any of these forms."""
    return checkpoint.load(folder)


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
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        factors = {"lower": lower.tril(-1), "upper": upper.triu(1)}
        hold(self, trainable=True, **factors, log_scale=diagonal.abs().log(), bias=bias)
        self.order, self.sign = nn.Buffer(permutation.argmax(1)), nn.Buffer(diagonal.sign())

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

    def linearize(self, x: Tensor) -> Linearization:
        """Returns this layer at ``x``, its factors masked once."""
        factors = self.factors
        maps = (partial(f, factors=factors) for f in (self._act, self._adjoint))
        return ConstantLinearization(self._act(x, factors) + self.bias, *maps)

    def log_det(self) -> Tensor:
        """Returns Σ ℓ."""
        return self.log_scale.sum()

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


LINEAR["lu"] = DenseLU
