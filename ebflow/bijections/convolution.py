r"""Convolutions of stride 1, with exact log-determinants and inverses.

For events of shape (C, H, W), D = C H W, and a kernel K with odd sides k,

.. math:: y_o(p) = \sum_{i, q} K_{oi}(q) \, x_i(p + q) + b_o, \qquad |q|_\infty \le (k - 1) / 2.

Zeros surround the image. J is banded: log |det J| takes O(D (k W C)²), by strips, and the inverse
of B events O(B D²) once J is factorized, in O(D³). A kernel of one pixel has the same C×C block at
every pixel. The map itself is 2 B D C k² FLOP.

A kernel that reaches r pixels mixes at most r rows above and below. So in strips of r rows, each
of m = r W C coordinates, a zero-padded convolution is block-tridiagonal and Toeplitz,

.. math:: J = \begin{pmatrix} A & U & & \\ L & A & U & \\ & L & A & \ddots \\ & & \ddots & \ddots
    \end{pmatrix}, \qquad S_1 = A, \quad S_{i+1} = A - L S_i^{-1} U,

and by block elimination :math:`\log |\det J| = \sum_i \log |\det S_i|`. That is O(D m²) instead of
O(D³), for D / m strips one after another. Pivoting exchanges rows within a strip and not between
strips, so S may be ill-conditioned even if J is not. ``Elimination.accurate`` detects this.

Sources: Chao et al. (2023), arXiv:2305.15267; Kingma and Dhariwal (2018), arXiv:1807.03039, for
1×1; Matrix Computations (Golub, Van Loan, 4th edition, 2013), §4.5, for strips.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .weighted import LU, Weighted


class Convolution(Weighted):
    """Creates a convolution of events (C, H, W) that preserves their shape; costs are above.

    Coordinates are pixels in reading order, with the channels of a pixel together. K has shape
    (C, C, k, k), k odd; b has shape (C,), or is None; ``size`` is (H, W).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> None:
        shape = tuple(weight.shape)
        if len(shape) != 4 or shape[0] != shape[1] or shape[2] != shape[3] or shape[2] % 2 == 0:
            raise ValueError(f"weight: found shape {shape}, expected (C, C, k, k), k odd")
        if len(size) != 2:
            raise ValueError(f"size: found {tuple(size)}, expected (H, W)")
        super().__init__((len(weight), *size), weight, bias)
        self.pointwise = weight.shape[-1] == 1
        self.copies = math.prod(size) if self.pointwise else 1

    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = v.reshape(-1, *self.event_shape)
        if weight.shape[-1] > 3:
            # In this layout the gradient of kernels beyond 3×3 is up to 2.4 times as fast.
            flat = flat.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(flat, weight, padding=weight.shape[-1] // 2)
        return (y if bias is None else y + self.offset).view(v.shape)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns the convolution by the turned kernel with channels exchanged."""
        return self.act(s, weight.transpose(0, 1).flip(-2, -1))

    def block(self, weight: Tensor) -> Tensor:
        return weight[:, :, 0, 0] if self.pointwise else _matrix(weight, *self.event_shape[1:])

    def to_columns(self, z: Tensor) -> Tensor:
        size = self.event_shape[0] if self.pointwise else math.prod(self.event_shape)
        return z.movedim(-3, -1).reshape(-1, size).mT

    def from_columns(self, columns: Tensor, shape: torch.Size) -> Tensor:
        channels, *size = self.event_shape
        return columns.mT.reshape(*shape[:-3], *size, channels).movedim(-1, -3)

    def factorize(self, weight: Tensor) -> "LU | Elimination":
        """Returns J in strips, or as LU if rows must be exchanged between strips."""
        rows, (_, height, width) = weight.shape[-1] // 2, self.event_shape
        if not self.pointwise and height > rows:
            corner = _matrix(weight, 2 * rows, width)
            strips = Elimination(corner, math.prod(self.event_shape))
            if strips.accurate:
                return strips
        return super().factorize(weight)


def _matrix(weight: Tensor, height: int, width: int) -> Tensor:
    """Returns J for images of this size, zero-padded; for fewer rows it is J's top left corner."""
    shape = (height, width, len(weight))
    size = math.prod(shape)
    units = torch.eye(size, dtype=weight.dtype, device=weight.device)
    units = units.view(size, *shape).movedim(-1, -3)
    y = F.conv2d(units, weight, padding=weight.shape[-1] // 2)
    return y.movedim(-3, -1).reshape(size, size).mT


class Elimination:
    """Creates the block elimination of J, differentiable; 5 m³ FLOP or so a strip.

    ``strips`` is the top left corner of J, with shape (2 m, 2 m), and ``size`` is D > m. The last
    strip may be shorter.
    """

    def __init__(self, strips: Tensor, size: int) -> None:
        m = len(strips) // 2
        self.size, self.height = size, m
        (a, self.upper), (self.lower, _) = (rows.split(m, 1) for rows in strips.split(m))
        self.pivots, self.inverses = [a], [torch.linalg.inv_ex(a)[0]]
        for start in range(m, size, m):
            n = min(m, size - start)
            fill = self.lower[:n] @ self.inverses[-1] @ self.upper[:, :n]
            self.pivots.append(a[:n, :n] - fill)
            self.inverses.append(torch.linalg.inv_ex(self.pivots[-1])[0])

    def log_det(self) -> Tensor:
        """Returns log |det J|."""
        # One by one: PyTorch's LU of several large matrices is wrong (pytorch/pytorch#141358).
        return torch.stack([torch.linalg.slogdet(pivot)[1] for pivot in self.pivots]).sum()

    @property
    def accurate(self) -> bool:
        """True if all pivots S have condition numbers, in the norm of row sums, below ε^(-1/2)."""
        limit = torch.finfo(self.upper.dtype).eps ** -0.5
        pairs = zip(self.pivots, self.inverses, strict=True)
        norms = ([torch.linalg.matrix_norm(t.detach(), torch.inf) for t in pair] for pair in pairs)
        return bool((torch.stack([pivot * inverse for pivot, inverse in norms]) < limit).all())

    def solve(self, columns: Tensor) -> Tensor:
        """Returns J⁻¹ z for columns z, with shape (D, R)."""
        forward: list[Tensor] = []
        for z, inverse in zip(columns.split(self.height), self.inverses, strict=True):
            if forward:
                z = z - self.lower[: len(z)] @ forward[-1]
            forward.append(inverse @ z)
        solved = forward[-1:]
        for z, inverse in zip(forward[-2::-1], self.inverses[-2::-1], strict=True):
            after = solved[-1]
            solved.append(z - inverse @ (self.upper[:, : len(after)] @ after))
        return torch.cat(solved[::-1])
