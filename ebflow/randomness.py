r"""Random numbers that depend only on the seed, the purpose, the step and the row.

Every generator is derived from ``(seed, *path)``; nothing reads the global state.

* ``generator`` returns PyTorch's own generator, whose numbers depend on all numbers before them.
* ``RowGenerator`` is for training. The numbers of row i depend on ``(seed, *path)``, on i, and on
  how many calls came before. So a batch gets the same noise however many workers share it. On a
  CPU it uses the counters of Philox (Parallel Random Numbers: As Easy as 1, 2, 3; Salmon, Moraes,
  Dror, Shaw, 2011), by NumPy. Other devices hash the counters themselves.
* ``ContentGenerator`` is for scoring. It hashes a row's values, so a row has the same score in
  every batch and every order.

Hashes are by the finalizer of SplitMix64 (Fast Splittable Pseudorandom Number Generators; Steele,
Lea, Flood, 2014).
"""

import copy
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WORDS = 4  # 64-bit words of one count of Philox4x64
WEYL = 0x9E3779B97F4A7C15 - 2**64  # The increment of SplitMix64: 2⁶⁴ divided by the golden ratio

# Shifts and factors of the finalizer of SplitMix64.
FINALIZER = (30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1)


class RowGenerator:
    """The random numbers of rows ``first``, ``first`` + 1, … of ``(seed, *path)``.

    Arguments:
        path: The purpose and the step, for instance ``"train", 17``.
        first: The number of the first row of a batch. A batch may start at any row, in O(1).
    """

    def __init__(self, seed: int, *path: str | int, first: int = 0) -> None:
        self.key, self.first, self.calls = _digest(seed, path), first, 0

    def symmetric(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Returns the middles of random cells of (−1, 1), 2²⁴ equal ones in float32.

        There are 2⁵³ cells if ``like`` is in float64. The first dimension of ``shape`` is rows.
        """
        rows, size = shape[0], math.prod(shape[1:])
        kind, digits = (torch.float64, 53) if like.dtype == torch.float64 else (torch.float32, 24)
        create = self._philox if like.device.type == "cpu" else self._hashed
        words = create(rows, size, like)
        self.calls += 1
        cells = words.bitwise_right_shift_(words.element_size() * 8 - digits)
        values = cells.to(kind).add_(0.5).mul_(2.0 ** (1 - digits))
        return values[:, :size].reshape(*shape)

    def _philox(self, rows: int, size: int, like: Tensor) -> Tensor:
        """Returns random integers, at least ``size`` a row, of 64 bits for float64, else 32."""
        kind, width = ("int64", WORDS) if like.dtype == torch.float64 else ("int32", 2 * WORDS)
        counts = -(-size // width)
        bits = np.random.Philox(key=self.key + (self.calls << 64)).advance(self.first * counts)
        words = bits.random_raw(rows * counts * WORDS).view(kind)
        return torch.from_numpy(words).view(rows, counts * width)

    def _hashed(self, rows: int, size: int, like: Tensor) -> Tensor:
        """Returns random integers of 64 bits, with shape (rows, size)."""
        numbers = torch.arange(self.first, self.first + rows, device=like.device).unsqueeze(1)
        counts = torch.arange(size, device=like.device) + (self.calls << 32)
        return _mixed(_mixed(numbers ^ self.key - 2**63) + counts * WEYL)


class ContentGenerator:
    """Uniform numbers for the elements of rows, as a hash of each row's values in float32.

    Equal rows get equal numbers, so rows read as float32 and as float64 do too. ``sample`` is the
    number of the sample, if a row gets several.
    """

    def __init__(self, seed: int = 0, sample: int = 0) -> None:
        self.key = _digest(seed, ("content", sample)) - 2**63
        self.shift: float | None = None

    def spread(self, count: int) -> "list[ContentGenerator]":
        """Returns generators of 2ᵏ numbers of each element that are evenly spread.

        They are a shifted lattice, folded: means of smooth functions of one element converge
        as 1 / count².
        """
        generators = [copy.copy(self) for _ in range(count)]
        for k, generator in enumerate(generators):
            generator.shift = k / count
        return generators

    def uniform(self, x: Tensor, like: Tensor) -> Tensor:
        """Returns numbers in [0, 1) with the shape of ``x``, (N, *event), by N D hashes."""
        values = x.to(like.device, torch.float32).flatten(1) + 0.0  # −0 becomes 0
        counts = torch.arange(1, values.shape[1] + 1, device=like.device) * WEYL
        rows = _mixed(values.contiguous().view(torch.int32) + counts).sum(1, keepdim=True)
        bits = _mixed(_mixed(rows ^ self.key) + counts)
        u = (bits >> 11 & 2**53 - 1).double() * 2.0**-53
        if self.shift is not None:
            odd = (bits & 1023) * 2 + 1  # shifts go through the lattice in another order
            u = 1 - (2 * ((u + self.shift * odd) % 1) - 1).abs()
        return u.view(x.shape).to(like.dtype).clamp_(max=_below_one(like.dtype))


#: A source of random numbers. Noise on rows may be of a ``ContentGenerator``, or a number.
Generator = torch.Generator | RowGenerator | ContentGenerator | float


def generator(seed: int, *path: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Returns PyTorch's generator of ``(seed, *path)``, for instance ``(0, "weights")``."""
    return torch.Generator(device=device).manual_seed(_digest(seed, path) >> 1)


def noise(x: Tensor, like: Tensor, generator: Generator) -> Tensor:
    """Returns U[0, 1) for every element of rows ``x``, (N, *event), in the dtype of ``like``."""
    if isinstance(generator, float):
        return torch.full_like(x, generator, dtype=like.dtype, device=like.device)
    if isinstance(generator, ContentGenerator):
        return generator.uniform(x, like)
    return uniform(x.shape, like, generator)


def uniform(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Returns U[0, 1) of ``shape`` with the dtype and device of ``like``.

    Without a generator PyTorch's global state is used, as its own samplers do.
    """
    if isinstance(generator, RowGenerator):
        values = generator.symmetric(shape, like)
        edge = torch.finfo(values.dtype).eps / 4  # from the middles of cells to their lower ends
        values = values.mul_(0.5).add_(0.5 - edge).to(like.dtype)
        return values.clamp_(max=_below_one(like.dtype))  # if the dtype has fewer digits
    return _own(torch.rand, shape, like, generator)


def normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Returns N(0, 1) of ``shape`` with the dtype and device of ``like``."""
    if not isinstance(generator, RowGenerator):
        return _own(torch.randn, shape, like, generator)
    return generator.symmetric(shape, like).erfinv_().mul_(math.sqrt(2)).to(like.dtype)


def rademacher(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Returns independent signs ±1 of ``shape`` with the dtype and device of ``like``."""
    if isinstance(generator, RowGenerator):
        return generator.symmetric(shape, like).sign_().to(like.dtype)
    return uniform(shape, like, generator).lt_(0.5).mul_(2).sub_(1)


def _own(sample: object, shape: Sequence[int], like: Tensor, generator: object) -> Tensor:
    return sample(shape, generator=generator, dtype=like.dtype, device=like.device)


def _below_one(dtype: torch.dtype) -> float:
    return 1 - torch.finfo(dtype).eps / 2


def _mixed(words: Tensor) -> Tensor:
    """Returns 64-bit hashes of integers: a bijection of which every bit depends on every bit."""
    for shift, factor in FINALIZER:
        words = (words ^ (words >> shift & (1 << 64 - shift) - 1)) * factor
    return words


def _digest(seed: int, path: Sequence[str | int]) -> int:
    """Returns 64 bits of the SHA-256 of ``(seed, *path)``."""
    digest = hashlib.sha256(repr((int(seed), *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big")
