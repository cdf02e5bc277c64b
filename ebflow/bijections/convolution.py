r"""Convolutions of stride 1, with exact log-determinants and inverses.

For events of shape (C, H, W), D = C H W, and a kernel K with odd sides k,

.. math:: y_o(p) = \sum_{i, q} K_{oi}(q) \, x_i(p + q) + b_o, \qquad |q|_\infty \le (k - 1) / 2.

The padding determines J:

========  ===============  ============================  ===================================
padding   J                log |det J|                   inverse of B events
========  ===============  ============================  ===================================
zero      banded           O(D (k W C)²), by strips      O(B D²) once factorized, in O(D³)
circular  block-circulant  O(H W C³), a C×C block at     O(B H W (C² + log H W)) once
                           every frequency               factorized
========  ===============  ============================  ===================================

The map itself is 2 B D C k² FLOP. The transpose of a convolution is the convolution by the turned
kernel with channels exchanged.

A kernel that reaches r pixels mixes at most r rows above and below. So in strips of r rows, each
of m = r W C coordinates, a zero-padded convolution is block-tridiagonal and Toeplitz,

.. math:: J = \begin{pmatrix} A & U & & \\ L & A & U & \\ & L & A & \ddots \\ & & \ddots & \ddots
    \end{pmatrix}, \qquad S_1 = A, \quad S_{i+1} = A - L S_i^{-1} U,

and by block elimination :math:`\log |\det J| = \sum_i \log |\det S_i|`. That is O(D m²) instead of
O(D³), for D / m strips one after another. Pivoting exchanges rows within a strip and not between
strips, so S may be ill-conditioned even if J is not. ``Elimination.accurate`` detects this.

Sources: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, for zero padding; Emerging Convolutions for Generative
Normalizing Flows (Hoogeboom, van den Berg, Welling, 2019), arXiv:1901.11137, for circular padding;
Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018), arXiv:1807.03039,
for 1×1; Matrix Computations (Golub, Van Loan, 4th edition, 2013), §4.5, for strips.
"""

__all__ = ["PADDINGS", "Convolution", "Elimination", "random_rotation"]

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .weighted import Factors, Weighted

PADDINGS = ("zero", "circular")


class Convolution(Weighted):
    """Creates a convolution of events (C, H, W) that keeps their shape; costs are above.

    Blocks have pixels in reading order, with the channels of a pixel together. With circular
    padding they are Fourier coefficients, at one of every two conjugate frequencies.

    Arguments:
        weight: K, with shape (C, C, k, k), k odd.
        bias: b, with shape (C,), or None.
        size: (H, W).
        padding: ``zero`` or ``circular``.
        trainable: True if K and b are parameters; buffers otherwise.

    Raises:
        ValueError: if a shape or ``padding`` is wrong, or a circular kernel reaches around the
            image more than once.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        size: tuple[int, int],
        *,
        padding: str = "zero",
        trainable: bool = True,
    ) -> None:
        _check(weight, size, padding)
        super().__init__((len(weight), *size), weight, bias, trainable=trainable)
        self.padding, self.circular = padding, padding == "circular"

    def extra_repr(self) -> str:
        return f"{self.event_shape}, padding={self.padding}, bias={self.bias is not None}"

    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = v.reshape(-1, *self.event_shape)
        if weight.shape[-1] > 3:
            # In this layout the gradient of kernels beyond 3×3 is up to 2.4 times as fast.
            flat, weight = (
                t.contiguous(memory_format=torch.channels_last) for t in (flat, weight)
            )
        y = _convolved(flat, weight, self.circular)
        return (y if bias is None else y + self.offset).view(v.shape)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns the convolution by the turned kernel."""
        return self.act(s, _turned(weight))

    def blocks(self, weight: Tensor) -> Tensor:
        """Returns the blocks, by one convolution of unit events, or of an impulse a channel."""
        channels, height, width = self.event_shape
        if not self.circular:
            return _matrix(weight, height, width)
        impulses = torch.eye(channels, dtype=weight.dtype, device=weight.device)
        impulses = impulses.view(channels, channels, 1, 1)  # their Fourier coefficients are 1
        return self.to_blocks(self.act(F.pad(impulses, (0, width - 1, 0, height - 1)), weight))

    def to_blocks(self, z: Tensor) -> Tensor:
        """Returns pixels in reading order, or Fourier coefficients."""
        if self.circular:
            return torch.fft.rfft2(z.reshape(-1, *self.event_shape)).permute(2, 3, 1, 0)
        return z.movedim(-3, -1).reshape(-1, math.prod(self.event_shape)).mT

    def from_blocks(self, columns: Tensor, shape: torch.Size) -> Tensor:
        channels, *size = self.event_shape
        if self.circular:
            return torch.fft.irfft2(columns.permute(3, 2, 0, 1), s=size).reshape(shape)
        return columns.mT.reshape(*shape[:-3], *size, channels).movedim(-1, -3)

    def total(self, log_dets: Tensor) -> Tensor:
        """Sums over the blocks; conjugate ones have equal |det|."""
        if not self.circular:
            return log_dets.sum()
        return log_dets.sum() + log_dets[:, 1 : (self.event_shape[2] + 1) // 2].sum()

    def factorize(self, weight: Tensor) -> Factors:
        """Returns J in strips, or as LU if rows must be exchanged between strips."""
        rows, (_, height, width) = max(1, weight.shape[-1] // 2), self.event_shape
        if not self.circular and height > rows:
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
    y = _convolved(units.view(size, *shape).movedim(-1, -3), weight, False)
    return y.movedim(-3, -1).reshape(size, size).mT


def _convolved(x: Tensor, weight: Tensor, circular: bool) -> Tensor:
    """Returns K * x for x with shape (B, C, H, W), with circular or zero padding."""
    reach = weight.shape[-1] // 2
    if circular and reach:
        return F.conv2d(F.pad(x, [reach] * 4, mode="circular"), weight)
    return F.conv2d(x, weight, padding=reach)


def _turned(weight: Tensor) -> Tensor:
    """Returns the kernel of the transpose."""
    return weight.transpose(0, 1).flip(-2, -1)


def _check(weight: Tensor, size: tuple[int, int], padding: str) -> None:
    if padding not in PADDINGS:
        raise ValueError(f"padding: found {padding!r}, expected one of {PADDINGS}")
    shape = tuple(weight.shape)
    if len(shape) != 4 or shape[0] != shape[1] or shape[2] != shape[3] or shape[2] % 2 == 0:
        raise ValueError(f"weight: found shape {shape}, expected (C, C, k, k), k odd")
    if len(size) != 2 or (padding == "circular" and min(size) < shape[2] // 2):
        raise ValueError(
            f"size: found {tuple(size)}, expected (H, W), of at least (k − 1)/2 = "
            f"{shape[2] // 2} if circular"
        )


def random_rotation(
    shape: tuple[int, int, int], *, generator: torch.Generator | None = None
) -> Convolution:
    """Creates a 1×1 convolution of events ``shape`` that starts as a uniformly random rotation.

    Arguments:
        shape: (C, H, W).
        generator: The source of the rotation.
    """
    channels, *size = shape
    normal = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    # Uniform among orthogonal matrices only if R has a positive diagonal.
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q).sign()
    weight = q.to(torch.get_default_dtype())[:, :, None, None]
    return Convolution(weight, None, tuple(size), padding="circular")


class Elimination:
    """Creates the block elimination of J, differentiable; 5 m³ FLOP or so a strip.

    Arguments:
        strips: The top left corner of J, of two strips, with shape (2 m, 2 m).
        size: D, the side of J, more than m; the last strip may be shorter.
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

    def log_dets(self) -> Tensor:
        """Returns log |det J|.

        One by one: PyTorch's LU of several large matrices by several threads is wrong
        (pytorch/pytorch#141358).
        """
        return torch.stack([torch.linalg.slogdet(pivot)[1] for pivot in self.pivots]).sum()

    @property
    def accurate(self) -> bool:
        """True if all pivots S have condition numbers, in the norm of row sums, below ε^(-1/2)."""
        eps = torch.finfo(self.upper.dtype).eps
        pairs = zip(self.pivots, self.inverses, strict=True)
        conditions = [(_norm(s.detach()) * _norm(x.detach())) for s, x in pairs]
        return bool(torch.stack(conditions).max() < eps**-0.5)

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


def _norm(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix, torch.inf)
