"""Writes shards of bounded size into a folder that appears only when it is complete."""

__all__ = ["ShardWriter", "staged"]

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.data.schema import Shard, file_sha256
from ebflow.durable import move
from ebflow.errors import BadInput

GROUP_BYTES = 4 << 20
SHARD_BYTES = 64 << 20


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Gives a temporary folder beside ``output`` and renames it at the end.

    On any error the temporary folder, and parents made for it, are removed.

    Raises:
        BadInput: If ``output`` exists and is not an empty folder, or cannot be made.
    """
    _check_free(output)
    made = [parent for parent in output.parents if not parent.exists()]
    temporary = output.parent / f".{output.name}.{secrets.token_hex(4)}"
    try:
        with _making(output):
            temporary.mkdir(parents=True)
        yield temporary
        with _making(output):
            move(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise


class ShardWriter:
    """Appends rows to the shards of one split.

    Arguments:
        folder: Where the shards go.
        split: Name of the split, the first part of each file's name.
        width: Number of features D.
        dtype: dtype of the rows.
        shard_rows: Most rows of a shard; fewer if they would pass 64 MiB.
        metadata: Schema metadata of each shard.
        beside: Names of the integer columns beside ``x``.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        width: int,
        dtype: str,
        shard_rows: int,
        metadata: dict[str, str],
        beside: tuple[str, ...] = ("row",),
    ) -> None:
        value = pa.field("element", pa.from_numpy_dtype(dtype), nullable=False)
        types = {"x": pa.list_(value, width), **dict.fromkeys(beside, pa.int64())}
        fields = [pa.field(name, type, nullable=False) for name, type in types.items()]
        size = width * np.dtype(dtype).itemsize
        self.schema = pa.schema(fields, metadata=metadata)
        self.folder, self.split, self.dtype = folder, split, dtype
        self.shard_rows = min(shard_rows, max(1, SHARD_BYTES // size))
        self.group_rows = min(self.shard_rows, max(1, GROUP_BYTES // size))
        self.pending: list[tuple[np.ndarray, ...]] = []
        self.waiting = self.written = 0
        self.file: pq.ParquetWriter | None = None
        self.shards: list[Shard] = []

    def append(self, x: np.ndarray, *beside: np.ndarray) -> None:
        """Adds rows with shape (B, D), and what stands beside them, each with shape (B,)."""
        while len(x):
            room = min(self.group_rows, self.shard_rows - self.written) - self.waiting
            self.pending.append((x[:room], *(column[:room] for column in beside)))
            self.waiting += len(x[:room])
            if len(x) >= room:
                self._flush()
            x, beside = x[room:], tuple(column[room:] for column in beside)

    def close(self) -> list[Shard]:
        """Writes what is pending and returns the shards."""
        self._flush()
        self._finish()
        return self.shards

    def abort(self) -> None:
        """Closes the open file, which the caller is about to remove."""
        if self.file is not None:
            self.file.close()

    def _flush(self) -> None:
        if not self.waiting:
            return
        x, *beside = (np.concatenate(arrays) for arrays in zip(*self.pending, strict=True))
        self._open().write_batch(self._record(x, beside), row_group_size=len(x))
        self.written += len(x)
        self.pending, self.waiting = [], 0
        if self.written == self.shard_rows:
            self._finish()

    def _record(self, x: np.ndarray, beside: Sequence[np.ndarray]) -> pa.RecordBatch:
        values = pa.array(x.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, type=self.schema.field("x").type)
        return pa.record_batch([column, *map(pa.array, beside)], schema=self.schema)

    def _open(self) -> pq.ParquetWriter:
        if self.file is None:
            self.file = pq.ParquetWriter(
                self._path(),
                self.schema,
                compression="zstd",
                use_dictionary=self.dtype == "uint8",
                write_page_checksum=True,
            )
        return self.file

    def _path(self) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):05d}.parquet"

    def _finish(self) -> None:
        if self.file is None:
            return
        self.file.close()
        path = self._path()
        size = path.stat().st_size
        self.shards.append(Shard(self.split, path.name, self.written, size, file_sha256(path)))
        self.file, self.written = None, 0


@contextmanager
def _making(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"{output}: cannot be made ({error.strerror})") from None


def _check_free(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise BadInput(f"{output}: exists already, expected a new or empty folder")
