"""Prepared data: folders that ``prepare`` wrote, and their splits."""

__all__ = ["Dataset", "StoredSplit"]

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.files import sha256
from ebflow.tables import Completed, Law
from ebflow.tables.batches import Batch, Split
from ebflow.tables.levels import Levels, expanded
from pipelines.data.manifest import Manifest, Shard, read_shard


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
        self._splits: dict[str, Split] = {}
        self._verified: set[Shard] = set()
        for shard in self.manifest.shards:
            self._check_size(shard)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the SHA-256 of every shard."""
        return self.manifest.digest

    def split(self, name: str) -> Split:
        """Returns the split of that name, its missing entries filled in if it has any.

        Raises:
            BadInput: If there is none, or one to be filled in is too large.
        """
        if name not in self.manifest.counts:
            known = ", ".join(self.manifest.counts)
            raise BadInput(f"{self.folder}: found no split {name!r}, expected one of {known}")
        if name not in self._splits:
            self._splits[name] = self._opened(name)
        return self._splits[name]

    def _opened(self, name: str) -> Split:
        stored = StoredSplit(self, name)
        if name not in self.manifest.incomplete:
            return stored
        return Completed(stored, self._law, self.manifest.seed)

    @cached_property
    def _law(self) -> Law:
        """What missing entries are drawn from at first."""
        return Law.of_split(StoredSplit(self, "train"), self.manifest.seed)

    def verify(self) -> None:
        """Compares the SHA-256 of every shard with the manifest; raises BadInput."""
        for shard in self.manifest.shards:
            self._verify(shard)

    def arrays(self, shard: Shard, column: str) -> list[np.ndarray]:
        """Returns a column of a shard in order: ``x`` or ``context`` in rows, ``label`` with (N,).

        It is in pieces, as Arrow has it.

        Raises:
            BadInput: If the shard is damaged or not the one that the manifest describes.
        """
        if shard not in self._verified:
            self._verify(shard)
        return read_shard(self.folder / shard.file, column, self.manifest.schema, shard.rows)

    def _check_size(self, shard: Shard) -> None:
        path = self.folder / shard.file
        if not path.is_file():
            raise BadInput(f"{path}: no such file, expected a shard of {shard.rows} rows")
        if (size := path.stat().st_size) != shard.bytes:
            raise BadInput(f"{path}: found {size} bytes, expected {shard.bytes} (changed)")

    def _verify(self, shard: Shard) -> None:
        self._check_size(shard)
        path = self.folder / shard.file
        try:
            found = sha256(path)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
        if found != shard.sha256:
            raise BadInput(f"{path}: found SHA-256 {found}, expected {shard.sha256} (changed)")
        self._verified.add(shard)

    def __repr__(self) -> str:
        return f"Dataset({self.manifest.name!r}, {self.manifest.counts})"


class StoredSplit(Split):
    """A split of a prepared folder, its rows in the order of their numbers in the source."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset, self.manifest = dataset, dataset.manifest
        self.shards = self.manifest.of(name)
        context, columns = self.manifest.context, self.manifest.columns
        super().__init__(
            name,
            shape=self.manifest.shape,
            dtype=getattr(torch, self.manifest.dtype),
            levels=self.manifest.levels,
            parts=[shard.rows for shard in self.shards],
            where=f"{dataset.folder}, split {name}",
            context_width=0 if context is None else context.width,
            categories=None if columns is None else columns.sizes,
        )

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest value of every feature; of training rows the manifest's."""
        if self.name != "train":
            return super().ends
        known = self.manifest.statistics
        return torch.tensor([known.min, known.max], dtype=torch.float64).unbind(0)

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows of some shards, copied once out of Arrow."""
        x, context = self._filled(parts, "x", self.width, self.dtype), self.manifest.context
        if context is None:
            return Batch(x, None)
        width, dtype = self.context_width, torch.float64
        return Batch(x, self._filled(parts, "context", width, dtype, context.levels))

    def _filled(
        self,
        parts: Sequence[int],
        column: str,
        width: int,
        dtype: torch.dtype,
        levels: Levels = (),
    ) -> Tensor:
        """Returns the elements of a column of some shards, with shape (N, width)."""
        out, first = torch.empty(sum(self.parts[k] for k in parts), width, dtype=dtype), 0
        for k in parts:
            for rows in self.dataset.arrays(self.shards[k], column):
                out.numpy()[first : first + len(rows)] = expanded(rows, levels)
                first += len(rows)
        return out

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,) and dtype int64.

        Raises:
            BadInput: If the data were prepared without classes, or one is not the manifest's.
        """
        folder, classes = self.dataset.folder, self.manifest.classes
        if classes is None:
            raise BadInput(f"{folder}: found data without classes, expected some (label)")
        labels = np.concatenate([a for s in self.shards for a in self.dataset.arrays(s, "label")])
        bad = labels[(labels < 0) | (labels >= classes)]
        if len(bad):
            raise BadInput(
                f"{folder}: found class {bad[0]}, expected one of the training rows', "
                f"0 … {classes - 1}"
            )
        return torch.from_numpy(labels)
