"""Shards of a batch, whose sum is the same to the bit for any number of workers.

Each shard is computed by itself. All sums follow one binary tree over the shards, since the sum of
floating-point numbers depends on their order. The worker of a subtree's first shard has its sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Shards:
    """The shards of every batch, of which each worker has some in a row.

    There are at least as many shards (``count``) as workers (``world``).
    """

    batch_size: int
    count: int
    rank: int = 0
    world: int = 1
    sent: list[tuple[Any, Tensor]] = field(default_factory=list)

    @property
    def own(self) -> range:
        """The shards of this worker."""
        first, end = (rank * self.count // self.world for rank in (self.rank, self.rank + 1))
        return range(first, end)

    def rows(self, shards: range) -> slice:
        """Returns the rows of shards in the batch of all workers."""
        first, end = (k * self.batch_size // self.count for k in (shards.start, shards.stop))
        return slice(first, end)

    def owner(self, shard: int) -> int:
        """Returns the rank of a shard's worker."""
        return ((shard + 1) * self.world - 1) // self.count

    def total(self, value: Callable[[range], Tensor]) -> Tensor:
        """Returns the sum of a function of one shard over all shards, on every worker."""
        total = self._sum(range(self.count), value)
        for work, _ in self.sent:
            work.wait()
        self.sent.clear()
        if self.world > 1:
            torch.distributed.broadcast(total, 0)
        return total

    def _sum(self, shards: range, value: Callable[[range], Tensor]) -> Tensor:
        """Returns the sum over a subtree on its first worker, and a part of it on others.

        A worker waits for others only when it has computed all its own shards.
        """
        if len(shards) == 1:
            return value(shards)
        middle = (len(shards) + 1) // 2
        halves = shards[:middle], shards[middle:]
        parts = [self._sum(half, value) for half in halves if {*half} & {*self.own}]
        left, right = (self.owner(half.start) for half in halves)
        if right == self.rank != left:
            wire = _wire(parts[-1])
            self.sent.append((torch.distributed.isend(wire, left), wire))
        if left != self.rank:
            return parts[-1]
        if right != self.rank:
            wire = _wire(torch.empty_like(parts[0]))
            torch.distributed.recv(wire, right)
            parts.append(wire.to(parts[0].device))
        return parts[0].add_(parts[1])


def _wire(tensor: Tensor) -> Tensor:
    """Returns a tensor as it is sent: gloo sends only from the CPU."""
    return tensor.cpu() if torch.distributed.get_backend() == "gloo" else tensor
