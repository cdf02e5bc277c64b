"""Parquet files: their footers, batches of their rows, and the shards of prepared data."""

__all__ = ["damage", "read_columns", "read_footer", "read_shard", "shard_schema"]

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadInput
from .messages import found_at, named

BUFFER = 1 << 18


def read_footer(path: Path) -> tuple[pa.Schema, int]:
    """Returns the schema and the number of rows; raises BadInput if the file is damaged."""
    with damage(path), pq.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def read_columns(
    path: Path, names: Sequence[str], size: int, start: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yields columns from row ``start`` on, in batches of at most ``size`` rows.

    Reading through a buffer, and not ahead, holds a page of each column (about 2 MB); a scanner
    of ``pyarrow.dataset`` holds a whole row group, which may be the whole file.

    Raises:
        BadInput: Where the file is damaged, or a list is null.
    """
    options = {"pre_buffer": False, "page_checksum_verification": True}
    with damage(path):
        file = pq.ParquetFile(path, buffer_size=BUFFER, **options)
        groups, first = _groups(file, start)
    with file:
        batches = file.iter_batches(size, row_groups=groups, columns=list(names))
        while True:
            with damage(path, names[0], first):
                batch = next(batches, None)
            if batch is None:
                return
            first += len(batch)
            if first > start:
                yield batch.slice(max(0, start - first + len(batch)))


def _groups(file: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """Returns the row groups from the one of a row on, and the number of their first row."""
    first, count = 0, file.metadata.num_row_groups
    for group in range(count):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > start:
            return list(range(group, count)), first
        first += rows
    return [], first


def shard_schema(
    width: int,
    dtype: str,
    beside: Sequence[str],
    metadata: dict[str, str] | None = None,
    given: int = 0,
) -> pa.Schema:
    """Returns the schema of a prepared shard: rows ``x``, integers beside them, and contexts.

    These are ``given`` numbers of double precision a row, if there are any.
    """
    types = {"x": _lists(dtype, width), **dict.fromkeys(beside, pa.int64())}
    types |= {"context": _lists("float64", given)} if given else {}
    fields = [pa.field(name, type, nullable=False) for name, type in types.items()]
    return pa.schema(fields, metadata=metadata)


def _lists(dtype: str, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), width)


def read_shard(path: Path, column: str, schema: pa.Schema, rows: int) -> list[np.ndarray]:
    """Returns the pieces of a column of a prepared shard, with shape (B, D) or (B,).

    Raises:
        BadInput: If the shard is damaged, or has another schema or number of rows.
    """
    with damage(path, column), pq.ParquetFile(path) as file:
        found, count = file.schema_arrow, file.metadata.num_rows
        if not found.equals(schema) or count != rows:
            one, two = (", ".join(f"{f.name} {named(f.type)}" for f in s) for s in (found, schema))
            raise BadInput(
                f"{path}: found {count} rows of {one[:300]}, expected {rows} of {two} (manifest)"
            )
        chunks = file.read([column])[column].chunks
        if not pa.types.is_fixed_size_list(schema.field(column).type):
            return [chunk.to_numpy() for chunk in chunks]
        return [c.flatten().to_numpy().reshape(len(c), -1) for c in chunks]


@contextmanager
def damage(
    path: Path,
    column: str = "x",
    first: int = 0,
    kind: str = "Parquet",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turns Arrow's errors, and others, while reading a file from a row on, into one BadInput."""
    try:
        yield
    except BadInput:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, *also) as error:
        text = " ".join(str(error).split())
    else:
        return
    # Arrow finds a null where a fixed-size list is expected, and counts it from 1.
    if found := re.search(r"lists to be of size=(\d+) but index (\d+) had size=0", text):
        row = first + int(found[2]) - 1
        raise BadInput(found_at(str(path), row, f"column {column}", None, f"a list of {found[1]}"))
    raise BadInput(f"{path}: found a damaged file or none of {kind} ({text[:200]})")
