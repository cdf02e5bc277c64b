"""Shards: the Parquet files of a prepared data set.

A shard has the columns ``x``, a list of the D numbers of each row, and ``row``, its number in the
source. Data with classes have ``label``, and data with contexts ``context``, a list of their C
elements.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.data.messages import reading, type_name

SHARD_BYTES = 32 << 20  # Bytes of the rows of a shard at most


class Record(BaseModel):
    """A part of a manifest."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(Record):
    """One file of a split: its name in the folder, rows, bytes and SHA-256."""

    split: str
    file: Annotated[str, Field(pattern=r"^[^/\\]+\.parquet$")]
    rows: PositiveInt
    bytes: PositiveInt
    sha256: str


def shard_schema(width: int, dtype: str, *, classes: bool = False, context: int = 0) -> pa.Schema:
    """Returns the schema of shards of rows with D = ``width`` and C = ``context``."""
    types = {"x": _lists(dtype, width), "row": pa.int64()}
    types |= {"label": pa.int64()} if classes else {}
    types |= {"context": _lists("float64", context)} if context else {}
    return pa.schema([pa.field(name, type, nullable=False) for name, type in types.items()])


def _lists(dtype: str, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), width)


class ShardWriter:
    """A writer of the shards of one split.

    Arguments:
        folder: The folder of the shards.
        split: The name of the split, with which the files' names start.
        schema: The schema of the shards.
        shard_rows: Rows of a shard at most; fewer if they would take more than 32 MiB.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, shard_rows: int) -> None:
        self.folder, self.split, self.schema = folder, split, schema
        lists = (f.type for f in schema if pa.types.is_fixed_size_list(f.type))
        row_bytes = sum(kind.list_size * kind.value_type.bit_width // 8 for kind in lists)
        self.shard_rows = min(shard_rows, max(1, SHARD_BYTES // row_bytes))
        self.pending: list[tuple[np.ndarray, ...]] = []
        self.shards: list[Shard] = []
        self.waiting = 0

    def append(self, columns: Iterable[np.ndarray]) -> None:
        """Adds rows, by the columns of the schema, with shape (B,) or (B, K)."""
        columns = tuple(columns)
        while len(columns[0]):
            room = self.shard_rows - self.waiting
            self.pending.append(tuple(column[:room] for column in columns))
            self.waiting += len(columns[0][:room])
            columns = tuple(column[room:] for column in columns)
            if self.waiting == self.shard_rows:
                self._write()

    def close(self) -> list[Shard]:
        """Writes the pending rows and returns the shards."""
        if self.waiting:
            self._write()
        return self.shards

    def _write(self) -> None:
        """Writes the pending rows as one row group."""
        arrays = (np.concatenate(pieces) for pieces in zip(*self.pending, strict=True))
        columns = [
            pa.FixedSizeListArray.from_arrays(pa.array(a.reshape(-1)), type=f.type)
            if a.ndim > 1
            else pa.array(a)
            for a, f in zip(arrays, self.schema, strict=True)
        ]
        path = self.folder / f"{self.split}-{len(self.shards):05d}.parquet"
        pq.write_table(
            pa.table(columns, schema=self.schema),
            path,
            compression="zstd",
            use_dictionary=self.schema.field("x").type.value_type == pa.uint8(),
            write_page_checksum=True,
        )
        written = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self.shards.append(Shard(split=self.split, rows=len(columns[0]), **written))
        self.pending, self.waiting = [], 0


def read_shard(path: Path, column: str, schema: pa.Schema, rows: int) -> Sequence[np.ndarray]:
    """Returns the pieces of a column of a shard, with shape (B, K) or (B,).

    Raises:
        BadInput: if the shard is corrupt, or has another schema or number of rows.
    """
    with reading(path), pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema) or file.metadata.num_rows != rows:
            found = _described(file.schema_arrow, file.metadata.num_rows)
            expected = f"{_described(schema, rows)} (manifest)"
            raise BadInput(file=path, found=found, expected=expected)
        chunks = file.read([column])[column].chunks
        if not pa.types.is_fixed_size_list(schema.field(column).type):
            return [chunk.to_numpy() for chunk in chunks]
        return [c.flatten().to_numpy().reshape(len(c), -1) for c in chunks]


def _described(schema: pa.Schema, rows: int) -> str:
    names = ", ".join(f"{field.name} {type_name(field.type)}" for field in schema)
    return f"{rows} rows of {names[:300]}"
