r"""Convolutions of 1×1: the same C×C matrix at every pixel.

:math:`\log |\det J| = H W \log |\det W|`: O(C³), and O(C) in the form :math:`W = P L (U + S)` with
a fixed permutation P, unit lower triangular L, strictly upper triangular U and diagonal
:math:`S_{cc} = \pm \exp(\ell_c)` of fixed signs, where it is :math:`H W \sum_c \ell_c`.

Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
arXiv:1807.03039.
"""

__all__ = ["Pointwise", "random_rotation"]

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weighted import Weighted


class Pointwise(Weighted):
    """Creates y = W x + b at every pixel of events (C, H, W).

    The map is 2 B D C FLOP. ``inverse`` factorises W once per version of the weights.

    Arguments:
        weight: W, with shape (C, C).
        size: (H, W).
        bias: b, with shape (C,), or None.
        factorised: Whether P, L, U and S are held rather than W; ``log_det`` is then O(C).
        trainable: Whether all but P and the signs are parameters; buffers otherwise.
    """

    def __init__(
        self,
        weight: Tensor,
        size: tuple[int, int],
        bias: Tensor | None = None,
        *,
        factorised: bool = False,
        trainable: bool = True,
    ) -> None:
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (C, C)")
        if len(size) != 2:
            raise ValueError(f"size: found {tuple(size)}, expected (H, W)")
        tensors, fixed = {"weight": weight}, {}
        if factorised:
            tensors, fixed = _factors(weight)
        super().__init__((len(weight), *size), {**tensors, "bias": bias}, trainable=trainable)
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor)
        self.factorised, self.lazy = factorised, not factorised

    def extra_repr(self) -> str:
        """Names the event shape and the form of W."""
        form = f"factorised={self.factorised}"
        return f"{self.event_shape}, {form}, bias={self.bias is not None}"

    def effective_weight(self) -> Tensor:
        """Returns W, composed in O(C³) if it is held by factors."""
        if not self.factorised:
            return self.weight
        lower = self.lower.tril(-1) + torch.eye(len(self.lower)).to(self.lower)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        return self.permutation @ lower @ upper

    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns W v + b at every pixel."""
        flat = v.reshape(-1, *self.event_shape)
        return F.conv2d(flat, weight[:, :, None, None], bias).view(v.shape)

    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns Wᵀ s at every pixel."""
        return self.act(s, weight.mT)

    def blocks(self, weight: Tensor) -> Tensor:
        """Returns W, the block of every pixel."""
        return weight

    def to_blocks(self, z: Tensor) -> Tensor:
        """Returns the pixels as columns."""
        return z.movedim(-3, 0).reshape(self.event_shape[0], -1)

    def from_blocks(self, columns: Tensor, shape: torch.Size) -> Tensor:
        """Returns the columns as pixels."""
        return columns.view(len(columns), *shape[:-3], *shape[-2:]).movedim(0, -3)

    def total(self, log_dets: Tensor) -> Tensor:
        """Counts every pixel."""
        return math.prod(self.event_shape[1:]) * log_dets

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns what moves volume: ℓ, or all behind W."""
        if not self.factorised:
            return super().volume_parameters()
        return [self.log_scale] if self.log_scale.requires_grad else []

    def log_det(self) -> Tensor:
        """Returns H W Σ ℓ, or H W log |det W|."""
        return self.total(self.log_scale.sum()) if self.factorised else super().log_det()


def random_rotation(
    shape: tuple[int, int, int],
    *,
    factorised: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Pointwise:
    """Creates a 1×1 convolution of events ``shape`` that starts as a uniformly random rotation.

    Arguments:
        shape: (C, H, W).
        factorised: As in ``Pointwise``.
        generator: Where the rotation comes from.
        dtype: Its type; torch's default otherwise.
    """
    channels, *size = shape
    normal = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    # Uniform among orthogonal matrices only if R has a positive diagonal.
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q).sign()
    weight = q.to(dtype or torch.get_default_dtype())
    return Pointwise(weight, tuple(size), factorised=factorised)


def _factors(weight: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns what is trained and what is fixed of P L (U + S) = W."""
    permutation, lower, upper = torch.linalg.lu(weight)
    diagonal = upper.diagonal()
    trained = {
        "lower": lower.tril(-1),
        "upper": upper.triu(1),
        "log_scale": diagonal.abs().log(),
    }
    return trained, {"permutation": permutation, "sign": diagonal.sign()}
