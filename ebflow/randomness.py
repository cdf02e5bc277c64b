r"""Random numbers as a function of the seed, the purpose, the step and the row.

Every generator is derived from ``(seed, *path)``; nothing reads the global state. There are two
kinds. ``generator`` gives PyTorch's own, whose numbers follow each other. ``RowGenerator`` counts:
the numbers of row i of a draw are a function of ``(seed, *path)``, of how many draws came before,
and of i, so that a batch gets the same noise however many workers, or parts, share it, and each
draws for its own rows alone.

Counters are those of Philox (Parallel Random Numbers: As Easy as 1, 2, 3; Salmon, Moraes, Dror,
Shaw, 2011), by NumPy; a normal number is :math:`\sqrt 2 \operatorname{erf}^{-1}(2u - 1)` of one
uniform u. A compiled graph has no draws in it: they are made beside it.
"""

__all__ = ["Generator", "RowGenerator", "eager", "generator", "normal", "rademacher", "uniform"]

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

WORDS = 4
"""64-bit words of one count of Philox4x64."""

P, R = ParamSpec("P"), TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps a function out of compiled graphs, as ``torch.compiler.disable`` does.

    That imports the compiler at once, which takes as long as to import torch; this leaves it to
    who compiles.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call


class RowGenerator:
    """Creates the random numbers of rows ``first``, ``first`` + 1, … of ``(seed, *path)``.

    Draws have a row in their first dimension. O(1) to begin at any row.

    Arguments:
        seed: The seed.
        path: The purpose and the step, for instance ``"train", 17``.
        first: The number of the first row of every draw.
    """

    def __init__(self, seed: int, *path: str | int, first: int = 0) -> None:
        self.key, self.first, self.draws = _digest(seed, path), first, 0

    @eager
    def symmetric(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draws from the middles of equal cells of (−1, 1), as many as the type's digits tell.

        That is in float32, or float64 if ``like`` is, with its device.
        """
        wide = like.dtype == torch.float64
        rows, size = shape[0], math.prod(shape[1:])
        width = WORDS if wide else 2 * WORDS
        counts = -(-size // width)
        bits = np.random.Philox(key=self.key + (self.draws << 64)).advance(self.first * counts)
        self.draws += 1
        words = torch.from_numpy(bits.random_raw(rows * counts * WORDS).view("int64"))
        words, digits = (words, 53) if wide else (words.view(torch.int32), 24)
        cells = words.bitwise_right_shift_(words.element_size() * 8 - digits)
        values = cells.to(torch.float64 if wide else torch.float32)
        values = values.add_(0.5).mul_(2.0 ** (1 - digits)).view(rows, counts * width)[:, :size]
        return values.reshape(*shape).to(like.device)


Generator = torch.Generator | RowGenerator
"""Where random numbers come from."""


def generator(seed: int, *path: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Returns PyTorch's generator of ``(seed, *path)``, for instance ``(0, "weights")``."""
    return torch.Generator(device=device).manual_seed(_digest(seed, path) >> 1)


def uniform(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Draws U[0, 1) of ``shape`` with the dtype and device of ``like``.

    Without a generator PyTorch's global state is used, as its own samplers do.
    """
    if isinstance(generator, RowGenerator):
        values = generator.symmetric(shape, like)
        edge = torch.finfo(values.dtype).eps / 4  # from the middles of cells to their lower ends
        values = values.mul_(0.5).add_(0.5 - edge).to(like.dtype)
        return values.clamp_(max=1 - torch.finfo(like.dtype).eps / 2)  # where the type is shorter
    return _own(torch.rand, shape, like, generator)


def normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Draws N(0, 1) of ``shape`` with the dtype and device of ``like``."""
    if not isinstance(generator, RowGenerator):
        return _own(torch.randn, shape, like, generator)
    return generator.symmetric(shape, like).erfinv_().mul_(math.sqrt(2)).to(like.dtype)


def rademacher(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Draws independent signs ±1 of ``shape`` with the dtype and device of ``like``."""
    if isinstance(generator, RowGenerator):
        return generator.symmetric(shape, like).sign_().to(like.dtype)
    return uniform(shape, like, generator).lt_(0.5).mul_(2).sub_(1)


@eager
def _own(sample: object, shape: Sequence[int], like: Tensor, generator: object) -> Tensor:
    return sample(shape, generator=generator, dtype=like.dtype, device=like.device)


def _digest(seed: int, path: Sequence[str | int]) -> int:
    """Returns 64 bits of the SHA-256 of ``(seed, *path)``."""
    digest = hashlib.sha256(repr((int(seed), *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big")
