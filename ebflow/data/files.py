"""Parquet files and folders of a user, opened as a source."""

__all__ = ["open_path", "parquet_file", "record_batches"]

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.data.checks import reading
from ebflow.data.layout import read_layout, same_layout
from ebflow.data.reader import Part, Reader
from ebflow.data.schema import file_sha256
from ebflow.errors import BadInput

MAGIC = b"PAR1"
BUFFER = 1 << 18


def open_path(path: Path, columns: Sequence[str] | None, classes: str | None = None) -> Reader:
    """Opens a ``.parquet`` file or a folder of them; reads only the footers.

    Arguments:
        path: The file or folder.
        columns: The columns to use; None: all that can be used.
        classes: The column of classes; None: none is read.

    Raises:
        BadInput: If there is no Parquet file, it is damaged, or the schemas differ.
    """
    parts = tuple(_part(file, columns, classes) for file in _list(path))
    for part in parts[1:]:
        first = parts[0]
        same_layout(first.layout, part.layout, first_file=first.label, file=part.label)
    if not any(part.rows for part in parts):
        raise BadInput(f"{path}: found 0 rows, expected at least 4 (to split them)")
    return Reader(path.resolve().stem, str(path), parts, parts[0].layout)


def parquet_file(path: Path) -> pq.ParquetFile:
    """Opens a Parquet file to be streamed; raises BadInput if it is none.

    Reading through a buffer, and not ahead, holds a page of each column (about 2 MB) instead of a
    whole row group, which may be the whole file.
    """
    _check_magic(path)
    with reading(str(path)):
        return pq.ParquetFile(
            path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
        )


def record_batches(
    path: Path, file: pq.ParquetFile, names: Sequence[str], size: int
) -> Iterator[pa.RecordBatch]:
    """Yields batches of at most ``size`` rows; raises BadInput where the file is damaged."""
    batches = file.iter_batches(size, columns=list(names))
    first = 0
    while True:
        with reading(str(path)), _naming_row(path, names, first):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
        first += len(batch)


@contextmanager
def _naming_row(path: Path, names: Sequence[str], first: int) -> Iterator[None]:
    """Names the row where Arrow finds a null instead of a fixed-size list (it counts from 1)."""
    try:
        yield
    except pa.ArrowInvalid as error:
        found = re.search(r"lists to be of size=(\d+) but index (\d+) had size=(\d+)", str(error))
        if found is None:
            raise
        size, index, length = map(int, found.groups())
        what = f"a list of {length}" if length else "null"
        raise BadInput(
            f"{path}, row {first + index - 1}, column {names[0]}: found {what}, "
            f"expected a list of {size}"
        ) from None


def _list(path: Path) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder, expected Parquet data")
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").exists():
        raise BadInput(f"{path}: found a prepared data set, expected raw data to prepare")
    files = sorted(path.glob("[!._]*.parquet"))
    if not files:
        raise BadInput(f"{path}: found no file that ends in .parquet, .png or .jpg in this folder")
    return files


def _part(path: Path, columns: Sequence[str] | None, classes: str | None) -> Part:
    with parquet_file(path) as file:
        with reading(str(path)):
            schema, rows = file.schema_arrow, file.metadata.num_rows
    return Part(
        label=str(path),
        rows=rows,
        layout=read_layout(schema, file=str(path), columns=columns, label=classes),
        open=lambda names, size: _batches(path, names, size),
        sha256=lambda: file_sha256(path),
    )


def _batches(path: Path, names: tuple[str, ...], size: int) -> Iterator[pa.RecordBatch]:
    with parquet_file(path) as file:
        yield from record_batches(path, file, names, size)


def _check_magic(path: Path) -> None:
    with reading(str(path)), path.open("rb") as stream:
        head = stream.read(4)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 4))
        tail = stream.read()
    if not head:
        raise BadInput(f"{path}: found an empty file (0 bytes), expected Parquet")
    if head != MAGIC:
        raise BadInput(f"{path}: not a Parquet file: starts with {head!r}, expected {MAGIC!r}")
    if tail != MAGIC or size < 12:
        raise BadInput(f"{path}: truncated Parquet: ends with {tail!r}, expected {MAGIC!r}")
