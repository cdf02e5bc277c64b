"""Prepared data as tensors: whole splits, ordered batches, or an endless shuffled stream."""

__all__ = ["Dataset", "Split"]

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ebflow.data.schema import Manifest
from ebflow.data.shards import ShardReader
from ebflow.data.shuffle import Shuffle
from ebflow.errors import BadInput

BUDGET = 1 << 30


class Dataset:
    """A folder written by ``prepare``.

    Every shard is compared with the manifest's SHA-256 when it is first read.

    Arguments:
        folder: The prepared folder.

    Raises:
        BadInput: If the manifest or a shard is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        self.reader = ShardReader(self.folder, self.manifest)
        self._splits: dict[str, Split] = {}
        for shard in self.manifest.shards:
            self.reader.check_size(shard)

    def split(self, name: str) -> "Split":
        """Returns the split of that name; raises BadInput if there is none."""
        if name not in self.manifest.counts:
            known = ", ".join(self.manifest.counts)
            raise BadInput(f"{self.folder}: found no split {name!r}, expected one of {known}")
        return self._splits.setdefault(name, Split(self, name))

    def verify(self) -> None:
        """Compares the SHA-256 of every shard with the manifest; raises BadInput."""
        for shard in self.manifest.shards:
            self.reader.verify(shard)

    def __repr__(self) -> str:
        return f"Dataset({self.manifest.name!r}, {self.manifest.counts})"


class Split:
    """The rows of one split, in the order of their row numbers in the source.

    Arguments:
        dataset: The data set.
        name: Name of the split.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset, self.name = dataset, name
        self.manifest, self.reader = dataset.manifest, dataset.reader
        self.shards = self.manifest.of(name)
        self.shape = self.manifest.shape
        self.dtype: torch.dtype = getattr(torch, self.manifest.dtype)

    def __len__(self) -> int:
        return self.manifest.counts[self.name]

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the whole split in memory."""
        return len(self) * self.width * self.dtype.itemsize

    def tensor(self, *, budget_bytes: int = BUDGET) -> Tensor:
        """Returns the whole split, with shape (N, D), in its own dtype.

        It is read once and shared between calls: do not write to it.

        Raises:
            BadInput: If the split takes more than ``budget_bytes``.
        """
        if self.bytes > budget_bytes:
            raise BadInput(
                f"{self.dataset.folder}, split {self.name}: found {self.bytes} bytes, expected at "
                f"most {budget_bytes} to hold it in memory: stream it in batches"
            )
        return self._whole

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,) and dtype int64.

        Raises:
            BadInput: If the data were prepared without classes.
        """
        return self.reader.labels(self.shards)

    @cached_property
    def _whole(self) -> Tensor:
        return self.reader.load(self.shards)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yields the rows in order, with shape (size, D), the last batch smaller.

        Streams: memory is bounded by the batch and one row group of a shard.
        """
        if size < 1:
            raise BadInput(f"batch size: found {size}, expected at least 1")
        if "_whole" in self.__dict__:
            return iter(self._whole.split(size))
        return self.reader.stream(self.shards, size)

    def shuffled(
        self,
        size: int,
        *,
        seed: int,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
        budget_bytes: int = BUDGET,
        device: str | torch.device = "cpu",
    ) -> Iterator[Tensor]:
        """Returns an endless iterator of random batches, with shape (size / world, D).

        Global batch t is a function of (seed, t, size, budget_bytes): it holds the same rows for
        every number of workers, and whether the stream began at 0 or at ``start``. Each epoch
        visits every row once and drops what does not fill a batch.

        A split that fits the budget is held on the device and permuted as a whole. Else the
        shards are taken in random order, in windows that fit the budget, and permuted within
        a window; the rest of a window goes into the next batch. A window has at least one shard.

        Arguments:
            size: Rows of a global batch.
            seed: Seed of the permutations.
            start: Global batches that have been consumed already.
            shard: Rank and number of workers; rank r takes the r-th part of each batch.
            budget_bytes: Most bytes to hold in memory, 8 bytes a row for the order included.
            device: Where the batches go.

        Raises:
            BadInput: If ``size`` exceeds the split or does not divide among the workers.
        """
        self._check_stream(size, start, shard)
        shuffle = Shuffle(self, size, seed, shard, budget_bytes, torch.device(device))
        return shuffle.stream(start)

    def _check_stream(self, size: int, start: int, shard: tuple[int, int]) -> None:
        rank, world = shard
        if not 1 <= size <= len(self):
            raise BadInput(
                f"train.batch_size: found {size}, expected 1 … {len(self)} "
                f"(the rows of split {self.name})"
            )
        if not 0 <= rank < world:
            raise ValueError(f"shard must be (rank, world) with 0 <= rank < world, got {shard}")
        if size % world:
            raise BadInput(
                f"train.batch_size: found {size}, expected a multiple of {world} (the workers)"
            )
        if start < 0:
            raise ValueError(f"start must be at least 0, got {start}")

    def __repr__(self) -> str:
        return f"Split({self.name!r}, rows={len(self)}, shape={self.shape}, dtype={self.dtype})"
