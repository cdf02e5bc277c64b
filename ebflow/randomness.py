"""Random numbers as a function of the seed, the purpose and the step.

Every generator is derived from ``(seed, *path)``; nothing reads the global state. A generator
may carry a *shard* ``(rank, world)``: draws for a batch of ``b`` rows are then rows
``rank * b … (rank + 1) * b`` of the draw for the global batch of ``world * b`` rows, so that a
batch gets the same noise however many workers share it.
"""

__all__ = ["ShardedGenerator", "generator", "normal", "rademacher", "uniform"]

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class ShardedGenerator(torch.Generator):
    """A ``torch.Generator`` that knows which rows of a global batch it draws for."""

    shard: tuple[int, int] = (0, 1)


def generator(
    seed: int,
    *path: str | int,
    shard: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
) -> ShardedGenerator:
    """Returns the generator of ``(seed, *path)``, for instance ``(0, "train", step)``."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    result = ShardedGenerator(device=device)
    result.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    result.shard = shard
    return result


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws N(0, 1) of ``shape`` with the dtype and device of ``like``."""
    return _draw(torch.randn, shape, like, generator)


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws U[0, 1) of ``shape`` with the dtype and device of ``like``."""
    return _draw(torch.rand, shape, like, generator)


def rademacher(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws independent signs ±1 of ``shape`` with the dtype and device of ``like``."""
    return _draw(torch.rand, shape, like, generator).lt_(0.5).mul_(2).sub_(1)


def _draw(
    sample: Callable[..., Tensor], shape: Sequence[int], like: Tensor, generator: torch.Generator
) -> Tensor:
    rank, world = getattr(generator, "shard", (0, 1))
    rows = shape[0]
    full = (rows * world, *shape[1:])
    draw = sample(full, generator=generator, dtype=like.dtype, device=like.device)
    return draw[rank * rows : (rank + 1) * rows]
