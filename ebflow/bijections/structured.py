r"""Linear layers whose matrix has a structure that makes its determinant cheap.

:math:`y = J x + b` has :math:`\log |\det J|` in

* O(D) of a triangle, and of triangular factors: the diagonal has it;
* O(D r²) of a diagonal and a matrix of rank r, by Sylvester's identity
  :math:`\det(S + U V^\top) = \det S \, \det(I_r + V^\top S^{-1} U)`;
* O(D^{3/2}) of a Monarch matrix: its two factors are blocks of about √D elements.

They are the rivals of arbitrary matrices (:class:`~ebflow.bijections.Dense`), which score matching
trains without a determinant.

Source: Transformation Autoregressive Networks (Oliva et al., 2018), arXiv:1801.09819, for
triangular factors; Woodbury Transformations for Deep Generative Flows (Lu, Huang, 2020),
arXiv:2002.12229; Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations
(Dao et al., 2019), arXiv:1903.05895; Monarch: Expressive Structured Matrices for Efficient and
Accurate Training (Dao et al., 2022), arXiv:2204.00595.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ConstantJacobian


class Structured(ConstantJacobian):
    """A layer y = J x + b of rows with shape (B, D).

    Implementing one: ``product`` and ``adjoint`` are J x and Jᵀ s of rows, ``solution`` is J⁻¹ z,
    and ``log_det`` is log |det J|.

    Arguments:
        size: D.
        bias: True if there is an offset b, which starts as zero.
    """

    def __init__(self, size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.event_shape = (size,)
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """Returns J x with shape (B, D)."""

    @abstractmethod
    def adjoint(self, s: Tensor) -> Tensor:
        """Returns Jᵀ s with shape (B, D)."""

    @abstractmethod
    def solution(self, z: Tensor) -> Tensor:
        """Returns J⁻¹ z with shape (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x) if self.bias is None else self.product(x) + self.bias

    def linear(self, v: Tensor) -> Tensor:
        return self.product(v.reshape(-1, v.shape[-1])).view(v.shape)

    def transpose(self, s: Tensor) -> Tensor:
        return self.adjoint(s.reshape(-1, s.shape[-1])).view(s.shape)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x with ``forward(x) = y``."""
        return self.solution(y if self.bias is None else y - self.bias)

    def extra_repr(self) -> str:
        return f"{self.event_shape[0]}"


class Triangular(Structured):
    """A triangle of a matrix W: ``product`` and ``solution`` cost 2 B D² FLOP, ``log_det`` D.

    The entries of W on the other side have no effect. The diagonal must not become zero.

    Arguments:
        weight: W with shape (D, D).
        upper: True for the upper triangle, False for the lower one.
    """

    def __init__(self, weight: Tensor, *, upper: bool, bias: bool = True) -> None:
        super().__init__(len(weight), bias=bias)
        self.weight, self.upper = nn.Parameter(weight.clone()), upper

    @property
    def matrix(self) -> Tensor:
        """The triangle, with shape (D, D)."""
        return self.weight.triu() if self.upper else self.weight.tril()

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix)

    def adjoint(self, s: Tensor) -> Tensor:
        return s @ self.matrix

    def solution(self, z: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.matrix, z.mT, upper=self.upper).mT

    def log_det(self) -> Tensor:
        return self.weight.diagonal().abs().log().sum()


class TriangularFactors(Structured):
    """A matrix J = P L U that is always invertible, in 4 B D² FLOP; ``log_det`` costs D.

    P is a fixed permutation, L has ones on its diagonal, U has fixed signs on it. Some P and signs
    suit every invertible matrix; the training stays with those of the start.

    Arguments:
        weight: The matrix at the start, with shape (D, D).
    """

    def __init__(self, weight: Tensor, *, bias: bool = True) -> None:
        super().__init__(len(weight), bias=bias)
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        self.register_buffer("order", permutation.argmax(0))
        self.register_buffer("sign", diagonal.sign())
        self.log_scale = nn.Parameter(diagonal.abs().log())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, each with shape (D, D)."""
        ones = torch.ones_like(self.log_scale).diag()
        diagonal = (self.sign * self.log_scale.exp()).diag()
        return self.lower.tril(-1) + ones, self.upper.triu(1) + diagonal

    def product(self, x: Tensor) -> Tensor:
        lower, upper = self.factors
        return F.linear(F.linear(x, upper), lower)[:, self.order.argsort()]

    def adjoint(self, s: Tensor) -> Tensor:
        lower, upper = self.factors
        return (s[:, self.order] @ lower) @ upper

    def solution(self, z: Tensor) -> Tensor:
        lower, upper = self.factors
        columns = z[:, self.order].mT
        middle = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, middle, upper=True).mT

    def log_det(self) -> Tensor:
        return self.log_scale.sum()


class LowRank(Structured):
    """A diagonal S > 0 plus U Vᵀ of rank r, in 4 B D r FLOP; starts as the identity.

    Arguments:
        size: D.
        rank: r.
        generator: Source of V at the start; U starts as zero.
    """

    def __init__(
        self,
        size: int,
        rank: int,
        generator: torch.Generator | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(size, bias=bias)
        if not 0 < rank <= size:
            raise ValueError(f"rank: found {rank}, expected 1 to {size}")
        self.rank = rank
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.left = nn.Parameter(torch.zeros(size, rank))
        start = nn.init.orthogonal_(torch.empty(size, rank), generator=generator)
        self.right = nn.Parameter(0.1 * start)

    def product(self, x: Tensor) -> Tensor:
        return x * self.log_scale.exp() + (x @ self.right) @ self.left.mT

    def adjoint(self, s: Tensor) -> Tensor:
        return s * self.log_scale.exp() + (s @ self.left) @ self.right.mT

    @property
    def capacitance(self) -> Tensor:
        """I + Vᵀ S⁻¹ U, with shape (r, r)."""
        inner = self.right.mT @ (self.left / self.log_scale.exp()[:, None])
        return torch.eye(self.rank, dtype=inner.dtype, device=inner.device) + inner

    def solution(self, z: Tensor) -> Tensor:
        """Returns S⁻¹ z − S⁻¹ U (I + Vᵀ S⁻¹ U)⁻¹ Vᵀ S⁻¹ z, Woodbury's identity."""
        scaled = z / self.log_scale.exp()
        inner = torch.linalg.solve(self.capacitance, (scaled @ self.right).mT).mT
        return scaled - (inner @ self.left.mT) / self.log_scale.exp()

    def log_det(self) -> Tensor:
        return self.log_scale.sum() + torch.linalg.slogdet(self.capacitance)[1]


class Butterfly(Structured):
    """A product of factors of small blocks, whose strides grow; two factors are a Monarch matrix.

    A factor with blocks of r elements costs 2 B D r FLOP, and its determinant O(D r²).

    Arguments:
        radices: The sizes r of the blocks of each factor; their product is D.
        generator: Source of the blocks at the start, which are orthogonal; None: they are the
            identity.
    """

    def __init__(
        self,
        radices: Sequence[int],
        generator: torch.Generator | None = None,
        *,
        bias: bool = True,
    ) -> None:
        size = math.prod(radices)
        super().__init__(size, bias=bias)
        self.radices = tuple(radices)
        self.blocks = nn.ParameterList()
        for radix in radices:
            blocks = torch.eye(radix).repeat(size // radix, 1, 1)
            if generator is not None:
                for block in blocks:
                    nn.init.orthogonal_(block, generator=generator)
            self.blocks.append(nn.Parameter(blocks))

    @property
    def factors(self) -> list[tuple[Tensor, int, int]]:
        """The blocks with shape (D / r, r, r), their size r and the stride of their elements."""
        strides = (math.prod(self.radices[:k]) for k in range(len(self.radices)))
        return [*zip(self.blocks, self.radices, strides, strict=True)]

    def product(self, x: Tensor) -> Tensor:
        for blocks, *places in self.factors:
            x = _by_blocks(x, *places, lambda rows, m=blocks: torch.bmm(rows, m.mT))
        return x

    def adjoint(self, s: Tensor) -> Tensor:
        for blocks, *places in reversed(self.factors):
            s = _by_blocks(s, *places, lambda rows, m=blocks: torch.bmm(rows, m))
        return s

    def solution(self, z: Tensor) -> Tensor:
        for blocks, *places in reversed(self.factors):
            z = _by_blocks(z, *places, lambda rows, m=blocks: torch.linalg.solve(m, rows.mT).mT)
        return z

    def log_det(self) -> Tensor:
        return sum(torch.linalg.slogdet(blocks)[1].sum() for blocks in self.blocks)


def _by_blocks(x: Tensor, radix: int, stride: int, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies a function of blocks, with shape (D / r, B, r), to rows with shape (B, D)."""
    groups = x.view(len(x), -1, radix, stride).transpose(2, 3)
    rows = groups.reshape(len(x), -1, radix).transpose(0, 1)
    found = apply(rows).transpose(0, 1)
    return found.reshape(groups.shape).transpose(2, 3).reshape(x.shape)
