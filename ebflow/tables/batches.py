"""Splits of a data set, in batches.

A split is a sequence of parts: the shards of a folder, or all rows in memory. An epoch of a
shuffled stream is a sequence of windows, which are sets of parts in memory at the same time. The
windows are permuted one after another. Batch k of the epoch has its rows from k * size on.
So windows before a starting point need not be read. The same rows in the same order give the same
batches, in memory or on disk.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, count
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import generator
from ..recipes import BUDGET

ALL = slice(None)


class Batch(NamedTuple):
    """Raw rows with shape (B, D), and their contexts with shape (B, C); None: there are none."""

    x: Tensor
    context: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Returns the batch with a function applied to rows and contexts."""
        return Batch(*(None if t is None else change(t) for t in self))

    def take(self, rows: Tensor) -> "Batch":
        """Returns the rows with these numbers, in this order."""
        return self.each(lambda t: t.index_select(0, rows))

    def cut(self, rows: slice) -> "Batch":
        """Returns a view of a slice of the rows."""
        return self.each(lambda t: t[rows])

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device."""
        return self.each(lambda t: t.to(device))


class Split(ABC):
    """The rows of a split of a data set, in order.

    Arguments:
        shape: The shape of an example; D is its product.
        levels: The number of levels of 8-bit data (values 0 … levels − 1); None: continuous.
        parts: The number of rows of each part.
        context_width: The number C of the elements of a context; 0: there are none.
        categories: The number K of codes 0 … K − 1 of each category, 0 for other columns; None:
            no column is a category.
    """

    def __init__(
        self,
        name: str,
        *,
        shape: Sequence[int],
        dtype: torch.dtype,
        levels: int | None,
        parts: Sequence[int],
        context_width: int = 0,
        categories: Sequence[int] | None = None,
    ) -> None:
        self.name, self.shape, self.dtype, self.levels = name, tuple(shape), dtype, levels
        self.parts, self.context_width = tuple(parts), context_width
        self.categories = (0,) * self.width if categories is None else tuple(categories)

    def __len__(self) -> int:
        return sum(self.parts)

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory, its context included."""
        return self.width * self.dtype.itemsize + 8 * self.context_width

    @abstractmethod
    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows of the parts with these numbers."""

    def tensor(self, *, budget_bytes: int = BUDGET) -> Tensor:
        """Returns the whole split, with shape (N, D), read once and shared: do not write to it.

        Raises:
            BadInput: if the split takes more than ``budget_bytes``.
        """
        size = len(self) * self.row_bytes
        if "resident" not in self.__dict__ and size > budget_bytes:
            most = f"at most {budget_bytes} to hold it in memory: stream it in batches"
            raise BadInput(option=f"split {self.name}", found=f"{size} bytes", expected=most)
        return self.resident.x

    @cached_property
    def resident(self) -> Batch:
        """All rows, read once."""
        return self.read(range(len(self.parts)))

    @property
    def context(self) -> Tensor | None:
        """The contexts of all rows, with shape (N, C); None if there are none."""
        return self.resident.context

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of every column, in float64 with shape (D,)."""
        x = self.tensor()
        return x.amin(0).double(), x.amax(0).double()

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields the rows in order, ``size`` at a time, the last batch smaller.

        Rows that are not in memory are streamed: a batch and one shard are in memory at a time.
        """
        if size < 1:
            raise BadInput(option="batch_size", found=size, expected="at least 1")
        if "resident" in self.__dict__:
            return (self.resident.cut(slice(k, k + size)) for k in range(0, len(self), size))
        return regrouped((self.read([k]) for k in range(len(self.parts))), size)

    def some(self, count: int, seed: int) -> Batch:
        """Returns random rows in random order, at most ``count``."""
        return next(self.shuffled(min(len(self), count), seed=seed))

    def shuffled(
        self,
        size: int,
        *,
        seed: int,
        start: int = 0,
        share: slice = ALL,
        budget_bytes: int = BUDGET,
        device: str | torch.device = "cpu",
    ) -> Iterator[Batch]:
        """Returns an endless iterator of random batches, or of a share of each.

        Global batch t is a function of (seed, t, size, budget_bytes). It has the same rows for any
        number of workers, and for any ``start`` before it. Each epoch visits every row once and
        drops an incomplete last batch.

        A split within the budget stays on the device and is permuted as a whole. Otherwise the
        parts are read in random order, in windows within the budget of at least one part, and
        permuted within a window. The last rows of a window go into the next batch.

        Arguments:
            size: Rows of a global batch.
            start: The number of global batches to skip.
            share: The rows of each global batch that are yielded.
            budget_bytes: Most bytes in memory, with 8 bytes for the order of each row.

        Raises:
            BadInput: if ``size`` exceeds the split.
        """
        if not 1 <= size <= len(self):
            possible = f"1 … {len(self)} (the rows of split {self.name})"
            raise BadInput(option="batch_size", found=size, expected=possible)
        shuffle = _Shuffle(self, seed, budget_bytes, torch.device(device))
        epoch, skip = divmod(start, len(self) // size)
        epochs = (shuffle.windows(e, skip * size * (e == epoch)) for e in count(epoch))
        return chain.from_iterable(_batched(windows, size, share) for windows in epochs)


def joined(batches: Iterable[Batch]) -> Batch:
    """Returns the rows of batches as one."""
    parts = zip(*batches, strict=True)
    return Batch(*(None if part[0] is None else torch.cat(part) for part in parts))


def regrouped(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yields the rows of batches of any size in order, ``size`` at a time, the last smaller."""
    windows = ((batch, torch.arange(len(batch.x))) for batch in batches)
    return _batched(windows, size, slice(size), keep_last=True)


class _Shuffle:
    """The windows of one stream; arguments as of ``Split.shuffled``."""

    def __init__(self, split: Split, seed: int, budget_bytes: int, device: torch.device) -> None:
        self.split, self.seed, self.device = split, seed, device
        self.window_rows = budget_bytes // (split.row_bytes + 8)

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yields the windows of an epoch and their orders, but for the first ``skip`` rows."""
        for number, window in enumerate(self._plan(epoch)):
            rows = sum(self.split.parts[k] for k in window)
            if skip < rows:
                order = self._permutation(rows, "rows", epoch, number)[skip:].to(self.device)
                yield self._read(window), order
            skip = max(0, skip - rows)

    def _plan(self, epoch: int) -> list[list[int]]:
        parts = self.split.parts
        windows: list[list[int]] = []
        free = 0
        for k in self._permutation(len(parts), "shards", epoch).tolist():
            if parts[k] > free:
                windows.append([])
                free = self.window_rows
            windows[-1].append(k)
            free -= parts[k]
        return windows

    def _read(self, window: list[int]) -> Batch:
        if len(window) == len(self.split.parts):
            return self._resident
        return self.split.read(window).to(self.device)

    @cached_property
    def _resident(self) -> Batch:
        return self.split.resident.to(self.device)

    def _permutation(self, n: int, *path: str | int) -> Tensor:
        return torch.randperm(n, generator=generator(self.seed, "shuffle", *path))


def _batched(
    windows: Iterator[tuple[Batch, Tensor]], size: int, share: slice, *, keep_last: bool = False
) -> Iterator[Batch]:
    """Yields a worker's share of batches of ``size`` rows, of windows in their orders."""
    rest: Batch | None = None
    for window, order in windows:
        first = 0
        if rest is not None:
            first = min(size - len(rest.x), len(order))
            rest = joined([rest, window.take(order[:first])])
            if len(rest.x) == size:
                yield rest.cut(share)
                rest = None
        if rest is None:
            last = first + (len(order) - first) // size * size
            for k in range(first, last, size):
                yield window.take(order[k : k + size][share])
            rest = window.take(order[last:])
        del window
    if keep_last and rest is not None and len(rest.x):
        yield rest
