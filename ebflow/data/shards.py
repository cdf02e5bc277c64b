"""Reads the shards of a prepared folder, each compared with the manifest when first opened."""

__all__ = ["ShardReader"]

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ebflow.data.checks import reading
from ebflow.data.files import parquet_file, record_batches
from ebflow.data.schema import Manifest, Shard, file_sha256
from ebflow.errors import BadInput

CHUNK_BYTES = 4 << 20


class ShardReader:
    """Reads shards as matrices.

    Arguments:
        folder: The prepared folder.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.dtype = np.dtype(manifest.dtype)
        self.chunk_rows = max(1, CHUNK_BYTES // (manifest.width * self.dtype.itemsize))
        self._verified: set[str] = set()

    def check_size(self, shard: Shard) -> None:
        """Raises BadInput if the shard is missing or has another size."""
        path = self.folder / shard.file
        if not path.is_file():
            raise BadInput(f"{path}: no such file, expected a shard of {shard.rows} rows")
        if (size := path.stat().st_size) != shard.bytes:
            raise BadInput(f"{path}: found {size} bytes, expected {shard.bytes} (changed)")

    def verify(self, shard: Shard) -> None:
        """Raises BadInput if the shard is not the one that the manifest describes."""
        self.check_size(shard)
        path = self.folder / shard.file
        with reading(str(path)):
            found = file_sha256(path)
        if found != shard.sha256:
            raise BadInput(f"{path}: found SHA-256 {found}, expected {shard.sha256} (changed)")
        self._verified.add(shard.file)

    def chunks(self, shard: Shard, rows: int) -> Iterator[np.ndarray]:
        """Yields a shard in order as matrices of at most ``rows`` rows."""
        for batch in self._batches(shard, "x", rows):
            with reading(str(self.folder / shard.file)):
                values = batch.column("x").flatten().to_numpy(zero_copy_only=True)
            yield values.reshape(len(batch), self.manifest.width)

    def labels(self, shards: Sequence[Shard]) -> Tensor:
        """Returns the classes of the rows of the shards, with shape (N,).

        Raises:
            BadInput: If there are none, or one is not among the manifest's.
        """
        classes = self.manifest.classes
        if classes is None:
            raise BadInput(f"{self.folder}: found data without classes, expected data.label")
        batches = [b for shard in shards for b in self._batches(shard, "label", shard.rows)]
        labels = np.concatenate([batch.column("label").to_numpy() for batch in batches])
        if labels.max() >= classes:
            raise BadInput(
                f"{self.folder}: found class {labels.max()}, expected one of the training rows', "
                f"0 … {classes - 1}"
            )
        return torch.from_numpy(labels.copy())

    def _batches(self, shard: Shard, column: str, rows: int) -> Iterator[pa.RecordBatch]:
        if shard.file not in self._verified:
            self.verify(shard)
        path = self.folder / shard.file
        with parquet_file(path) as file:
            self._check_footer(path, shard, file)
            yield from record_batches(path, file, [column], rows)

    def load(self, shards: Sequence[Shard]) -> Tensor:
        """Returns the rows of the shards, with shape (N, D), copied once out of Arrow."""
        out = self._empty(sum(shard.rows for shard in shards))
        position = 0
        for shard in shards:
            for chunk in self.chunks(shard, self.chunk_rows):
                out.numpy()[position : position + len(chunk)] = chunk
                position += len(chunk)
        return out

    def stream(self, shards: Sequence[Shard], size: int) -> Iterator[Tensor]:
        """Yields the rows of the shards in order, with shape (size, D), the last one smaller."""
        left = sum(shard.rows for shard in shards)
        out, filled = self._empty(min(size, left)), 0
        for shard in shards:
            for chunk in self.chunks(shard, min(size, self.chunk_rows)):
                while len(chunk):
                    part = chunk[: len(out) - filled]
                    out.numpy()[filled : filled + len(part)] = part
                    filled, chunk = filled + len(part), chunk[len(part) :]
                    if filled == len(out):
                        yield out
                        left -= filled
                        out, filled = self._empty(min(size, left)), 0

    def _empty(self, rows: int) -> Tensor:
        return torch.empty(rows, self.manifest.width, dtype=getattr(torch, self.manifest.dtype))

    def _check_footer(self, path: Path, shard: Shard, file: pq.ParquetFile) -> None:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows != shard.rows:
            raise BadInput(f"{path}: found {rows} rows, expected {shard.rows} (manifest)")
        found = schema.field("x").type if "x" in schema.names else "no such column"
        expected = (pa.from_numpy_dtype(self.dtype), self.manifest.width)
        if _list_type(found) != expected:
            raise BadInput(
                f"{path}, column x: found {found}, expected a fixed-size list of {expected[1]} "
                f"{expected[0]} (manifest)"
            )


def _list_type(found: pa.DataType | str) -> tuple[pa.DataType, int] | None:
    if isinstance(found, str) or not pa.types.is_fixed_size_list(found):
        return None
    return found.value_type, found.list_size
