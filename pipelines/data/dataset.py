"""Prepared data sets: folders that ``prepare`` wrote, and their splits."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.files import sha256
from ebflow.tables.batches import Batch, Split
from ebflow.tables.completion import Completed, RankCopula, with_contexts
from pipelines.data.manifest import Manifest, Shard
from pipelines.data.messages import reading, type_name


class Dataset:
    """A prepared data set.

    The SHA-256 of a shard is compared with the manifest's when the shard is first read.

    Arguments:
        folder: The prepared folder.

    Raises:
        BadInput: if the manifest or a shard is missing or corrupt.
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
        """SHA-256 of the manifest, which has the SHA-256 of every shard."""
        return self.manifest.digest

    def split(self, name: str) -> Split:
        """Returns the split of that name; its missing values are sampled.

        Raises:
            BadInput: if there is no such split, or one with missing values is too large.
        """
        if name not in self.manifest.counts:
            names = ", ".join(self.manifest.counts)
            found, expected = f"no split {name!r}", f"one of {names}"
            raise BadInput(file=self.folder, found=found, expected=expected)
        if name not in self._splits:
            split: Split = StoredSplit(self, name)
            if name in self.manifest.incomplete:
                split = Completed(split, self._copula, self.manifest.seed)
            self._splits[name] = split
        return self._splits[name]

    @cached_property
    def _copula(self) -> RankCopula:
        """The distribution from which missing values are sampled at first."""
        return RankCopula.fit(with_contexts(StoredSplit(self, "train")), self.manifest.seed)

    def column(self, shards: Sequence[Shard], name: str) -> Tensor:
        """Returns a column of some shards, with shape (N, K) or (N,), copied once out of Arrow.

        Raises:
            BadInput: if a shard is corrupt, or not the one that the manifest describes.
        """
        schema = self.manifest.schema
        kind, shape = schema.field(name).type, (sum(shard.rows for shard in shards),)
        if pa.types.is_fixed_size_list(kind):
            kind, shape = kind.value_type, (*shape, kind.list_size)
        out, first = np.empty(shape, kind.to_pandas_dtype()), 0
        for shard in shards:
            self._verify(shard)
            with reading(path := self.folder / shard.file), pq.ParquetFile(path) as file:
                self._check_schema(file, shard)
                for chunk in file.read([name])[name].chunks:
                    values = chunk.flatten() if len(shape) > 1 else chunk
                    rows = out[first : first + len(chunk)]
                    rows[:] = values.to_numpy().reshape(rows.shape)
                    first += len(chunk)
        return torch.from_numpy(out)

    def _verify(self, shard: Shard) -> None:
        """Raises BadInput unless a shard has its SHA-256, when it is first read."""
        path = self.folder / shard.file
        if shard not in self._verified:
            with reading(path):
                found = sha256(path)
            if found != shard.sha256:
                expected = f"{shard.sha256} (changed)"
                raise BadInput(file=path, found=f"SHA-256 {found}", expected=expected)
            self._verified.add(shard)

    def _check_schema(self, file: pq.ParquetFile, shard: Shard) -> None:
        schema, rows = self.manifest.schema, file.metadata.num_rows
        if not file.schema_arrow.equals(schema) or rows != shard.rows:
            found = _described(file.schema_arrow, rows)
            expected = f"{_described(schema, shard.rows)} (manifest)"
            raise BadInput(file=self.folder / shard.file, found=found, expected=expected)

    def _check_size(self, shard: Shard) -> None:
        path = self.folder / shard.file
        if not path.is_file():
            raise BadInput("no such file", file=path, expected=f"a shard of {shard.rows} rows")
        if (size := path.stat().st_size) != shard.bytes:
            expected = f"{shard.bytes} (changed)"
            raise BadInput(file=path, found=f"{size} bytes", expected=expected)


class StoredSplit(Split):
    """A split of a prepared data set, in the order of the source's rows."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset, self.manifest = dataset, dataset.manifest
        self.shards = self.manifest.of(name)
        columns = self.manifest.columns
        super().__init__(
            name,
            shape=self.manifest.shape,
            dtype=getattr(torch, self.manifest.dtype),
            levels=self.manifest.levels,
            parts=[shard.rows for shard in self.shards],
            context_width=self.manifest.context.width if self.manifest.context else 0,
            categories=columns and columns.sizes,
        )

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The minimum and the maximum of each column; the manifest has those of training rows."""
        if self.name != "train":
            return super().ends
        statistics = self.manifest.statistics
        return torch.tensor([statistics.min, statistics.max], dtype=torch.float64).unbind(0)

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows of some shards."""
        shards = [self.shards[k] for k in parts]
        context = self.dataset.column(shards, "context") if self.context_width else None
        return Batch(self.dataset.column(shards, "x"), context)

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,) and dtype int64.

        Raises:
            BadInput: if the data have no classes, or one is not the manifest's.
        """
        folder, classes = self.dataset.folder, self.manifest.classes
        if classes is None:
            found, expected = "data without classes", "some (--data.label)"
            raise BadInput(file=folder, found=found, expected=expected)
        labels = self.dataset.column(self.shards, "label")
        for label in labels[(labels < 0) | (labels >= classes)][:1].tolist():
            expected = f"one of the training rows', 0 … {classes - 1}"
            raise BadInput(file=folder, found=f"class {label}", expected=expected)
        return labels


def _described(schema: pa.Schema, rows: int) -> str:
    names = ", ".join(f"{field.name} {type_name(field.type)}" for field in schema)
    return f"{rows} rows of {names[:300]}"
