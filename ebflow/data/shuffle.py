"""An endless shuffled stream of batches that can begin at any step and be shared by workers.

An epoch is a sequence of windows, each a set of shards held in memory at once. The epoch's order
of rows is the windows' permutations one after another, and batch k of the epoch is its rows
k * size … (k + 1) * size: so the windows before a starting point need not be read.
"""

__all__ = ["Shuffle"]

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ebflow.data.schema import Shard
from ebflow.randomness import generator

if TYPE_CHECKING:
    from ebflow.data.loader import Split


class Shuffle:
    """The stream of one worker; see ``Split.shuffled`` for the arguments."""

    def __init__(
        self,
        split: "Split",
        size: int,
        seed: int,
        shard: tuple[int, int],
        budget_bytes: int,
        device: torch.device,
    ) -> None:
        rank, world = shard
        self.split, self.size, self.seed, self.device = split, size, seed, device
        self.mine = slice(rank * size // world, (rank + 1) * size // world)
        row_bytes = split.width * split.dtype.itemsize + 8
        self.window_rows = budget_bytes // row_bytes
        self.resident = len(split) <= self.window_rows

    def stream(self, start: int) -> Iterator[Tensor]:
        """Yields this worker's rows of batch ``start`` and of all that follow."""
        epoch, skip = divmod(start, len(self.split) // self.size)
        blocks = self._whole() if self.resident else self._windows
        while True:
            yield from self._batches(blocks(epoch, skip * self.size))
            epoch, skip = epoch + 1, 0

    def _batches(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        rest: Tensor | None = None
        for block, order in blocks:
            first = 0
            if rest is not None:
                first = min(self.size - len(rest), len(order))
                rest = torch.cat([rest, block.index_select(0, order[:first])])
                if len(rest) == self.size:
                    yield rest[self.mine]
                    rest = None
            if rest is None:
                last = first + (len(order) - first) // self.size * self.size
                for k in range(first, last, self.size):
                    yield block.index_select(0, order[k : k + self.size][self.mine])
                rest = block.index_select(0, order[last:])
            del block

    def _whole(self) -> Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]:
        block = self.split.tensor(budget_bytes=self.split.bytes).to(self.device)
        return lambda epoch, skip: iter([(block, self._order(len(block), skip, epoch, 0))])

    def _windows(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, window in enumerate(self._plan(epoch)):
            rows = sum(shard.rows for shard in window)
            if skip < rows:
                order = self._order(rows, skip, epoch, number)
                yield self.split.reader.load(window).to(self.device), order
            skip = max(0, skip - rows)

    def _plan(self, epoch: int) -> list[list[Shard]]:
        shards = self.split.shards
        windows: list[list[Shard]] = []
        room = 0
        for index in self._permutation(len(shards), "shards", epoch).tolist():
            if shards[index].rows > room:
                windows.append([])
                room = self.window_rows
            windows[-1].append(shards[index])
            room -= shards[index].rows
        return windows

    def _order(self, rows: int, skip: int, epoch: int, window: int) -> Tensor:
        return self._permutation(rows, "rows", epoch, window)[skip:].to(self.device)

    def _permutation(self, n: int, *path: str | int) -> Tensor:
        return torch.randperm(n, generator=generator(self.seed, "shuffle", *path))
