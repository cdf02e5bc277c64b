"""Files of tables and arrays: each is a schema, a number of rows, and record batches.

An array of NumPy has no names: its columns are called x1 … xD, or it is one fixed-size list called
``image`` if it holds levels (uint8) or has more than two dimensions.
"""

__all__ = ["FORMATS", "File", "arrays_schema"]

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from ..errors import BadInput
from .parquet import damage, read_columns, read_footer

CSV_BYTES = 4 << 20
"""Bytes of a CSV file that are parsed at a time, and from which the types of columns are told."""

KINDS = {"b": "bool", "u": "integer", "i": "integer", "f": "real"}
"""What a NumPy array may hold, by the kind of its dtype."""


@dataclass(frozen=True)
class File:
    """A file that has been opened, not yet read.

    Arguments:
        schema: Its columns.
        rows: Its rows.
        open: Returns batches of some columns, of at most that many rows, from that row on.
        positional: Whether its columns have no names of their own.
    """

    schema: pa.Schema
    rows: int
    open: Callable[[Sequence[str], int, int], Iterator[pa.RecordBatch]]
    positional: bool = False


def parquet(path: Path) -> File:
    """Opens Parquet; reads the footer."""
    return File(*read_footer(path), partial(read_columns, path))


def arrow(path: Path) -> File:
    """Opens an Arrow IPC file, which a Feather file is; reads the footer of every batch."""
    with damage(path, kind="Arrow IPC"), pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        rows = sum(reader.get_batch(k).num_rows for k in range(reader.num_record_batches))
        return File(reader.schema, rows, partial(_arrow_batches, path))


def csv(path: Path) -> File:
    """Opens CSV with a header; parses it all, once, for its types and rows.

    A column is of integers only if all of it is. Empty fields and NA, NaN or null are nulls.
    """
    told = path.stat()
    types, rows = _scanned(path, told.st_mtime_ns, told.st_size)
    return File(pa.schema(types), rows, partial(_csv_batches, path, dict(types)))


def npy(path: Path) -> File:
    """Opens an array of NumPy, memory-mapped."""
    with damage(path, kind="NumPy", also=(ValueError, EOFError)):
        return _array_file(path, np.load(path, mmap_mode="r"))


def npz(path: Path) -> File:
    """Opens the one array of a NumPy archive, or the one called ``x``; reads it whole."""
    with damage(path, kind="NumPy", also=(ValueError, EOFError)):
        with np.load(path) as archive:
            names = archive.files
            name = "x" if "x" in names else names[0] if len(names) == 1 else None
            found = None if name is None else archive[name]
    if found is None:
        raise BadInput(
            f"{path}: found arrays {', '.join(names) or 'none'}, expected one, or one called x: "
            "np.savez(path, x=rows)"
        )
    return _array_file(path, found)


FORMATS: dict[str, Callable[[Path], File]] = {
    ".parquet": parquet,
    ".csv": csv,
    ".arrow": arrow,
    ".feather": arrow,
    ".npy": npy,
    ".npz": npz,
}
"""How files are opened, by the ends of their names."""


def _arrow_batches(
    path: Path, names: Sequence[str], size: int, start: int
) -> Iterator[pa.RecordBatch]:
    with damage(path, kind="Arrow IPC"), pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
        for batch in _from_row(batches, start):
            batch.validate(full=True)
            yield from _sliced(batch.select(list(names)), size)


def _csv_batches(
    path: Path, types: dict[str, pa.DataType], names: Sequence[str], size: int, start: int
) -> Iterator[pa.RecordBatch]:
    chosen = pc.ConvertOptions(column_types=types, include_columns=list(names))
    with damage(path, kind="CSV"), _csv_reader(path, chosen) as reader:
        for batch in _from_row(reader, start):
            yield from _sliced(batch, size)


def _csv_reader(path: Path, convert: pc.ConvertOptions) -> pc.CSVStreamingReader:
    blocks = pc.ReadOptions(use_threads=False, block_size=CSV_BYTES)
    return pc.open_csv(path, read_options=blocks, convert_options=convert)


@cache
def _scanned(
    path: Path, changed: int, size: int
) -> tuple[tuple[tuple[str, pa.DataType], ...], int]:
    """Returns names and types of a CSV file's columns, and its rows."""
    with damage(path, kind="CSV"):
        with _csv_reader(path, pc.ConvertOptions()) as reader:
            schema = reader.schema
        _check_header(path, schema.names)
        types = [(f.name, pa.float64() if pa.types.is_null(f.type) else f.type) for f in schema]
        try:
            return tuple(types), _counted(path, types)
        except pa.ArrowInvalid:  # an integer column may go on with reals
            wide = [(n, pa.float64() if pa.types.is_integer(t) else t) for n, t in types]
            return tuple(wide), _counted(path, wide)


def _counted(path: Path, types: Sequence[tuple[str, pa.DataType]]) -> int:
    with _csv_reader(path, pc.ConvertOptions(column_types=dict(types))) as reader:
        return sum(len(batch) for batch in reader)


def _check_header(path: Path, names: Sequence[str]) -> None:
    if names and all(_number(name) for name in names):
        raise BadInput(
            f"{path}: found numbers in the first line, expected names of columns: put a line of "
            "names before it"
        )
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise BadInput(
                f"{path}: found columns between {word}, expected commas: "
                f"pandas.read_csv(path, sep={mark!r}).to_csv(new, index=False) converts it"
            )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _array_file(path: Path, array: np.ndarray) -> File:
    if array.dtype.kind not in KINDS or not array.ndim:
        raise BadInput(
            f"{path}: found an array of shape {array.shape} and type {array.dtype}, expected rows "
            "of numbers: np.asarray(rows, dtype=float) makes one"
        )
    rows = array[:, None] if array.ndim == 1 else array
    if rows.dtype.kind == "f":
        rows = _Cast(rows, "float64" if rows.dtype.itemsize > 4 else "float32")
    elif rows.dtype != np.uint8 and rows.ndim > 2:
        raise BadInput(
            f"{path}: found examples of shape {rows.shape[1:]} and type {rows.dtype}, expected "
            "uint8 levels or reals: rows.astype('uint8') or rows.astype('float32') converts them"
        )
    else:
        rows = _Cast(rows, "uint8" if rows.dtype.kind == "b" else rows.dtype.name)
    return File(rows.schema, len(array), rows.batches, positional=True)


@dataclass(frozen=True)
class _Cast:
    """An array, and the native type in which its rows are given."""

    array: np.ndarray
    dtype: str

    @property
    def one_list(self) -> bool:
        """Whether a row is one fixed-size list."""
        return self.array.ndim > 2 or self.array.dtype == np.uint8

    @cached_property
    def schema(self) -> pa.Schema:
        shape = self.array.shape[1:]
        levels = 256 if self.array.dtype == np.uint8 else None
        return arrays_schema(shape, self.dtype, levels, one_list=self.one_list)

    def batches(self, names: Sequence[str], size: int, start: int) -> Iterator[pa.RecordBatch]:
        for k in range(start, len(self.array), size):
            rows = np.ascontiguousarray(self.array[k : k + size], dtype=self.dtype)
            yield pa.record_batch(self._columns(rows, names), list(names))

    def _columns(self, rows: np.ndarray, names: Sequence[str]) -> list[pa.Array]:
        if self.one_list:
            return [pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows[0].size)]
        return [pa.array(rows[:, self.schema.get_field_index(name)].copy()) for name in names]


def arrays_schema(
    shape: Sequence[int], dtype: str, levels: int | None, *, one_list: bool, name: str = "image"
) -> pa.Schema:
    """Returns the schema of rows without names: columns x1 … xD, or one fixed-size list."""
    kind, width = pa.from_numpy_dtype(np.dtype(dtype)), math.prod(shape)
    if not one_list:
        return pa.schema([(f"x{k + 1}", kind) for k in range(width)])
    told = {"shape": json.dumps(list(shape))}
    told |= {} if levels is None else {"levels": json.dumps(levels)}
    return pa.schema([(name, pa.list_(kind, width))], metadata=told)


def _from_row(batches: Iterator[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
    """Yields what is left of batches without their first ``start`` rows."""
    first = 0
    for batch in batches:
        first += len(batch)
        if first > start:
            yield batch.slice(max(0, start - first + len(batch)))


def _sliced(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    for k in range(0, len(batch), size):
        yield batch.slice(k, size)
