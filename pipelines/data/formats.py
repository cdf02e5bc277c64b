"""Files of tables and arrays, opened and not yet read: Parquet, CSV, Arrow and NumPy.

An array of NumPy has no names: its columns are called x1 … xD, or it is one fixed-size list called
``image`` if it holds levels (uint8) or has more than two dimensions. Columns become numbers: times
those of a unit, categories those of their levels.
"""

__all__ = ["FORMATS", "LABEL", "Part", "array_batches", "arrays_schema", "as_text", "is_category",
           "is_number", "is_text", "is_time", "level_numbers", "lookup", "numbers",
           "parquet", "times"]  # fmt: skip

import json
import math
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as pc
import pyarrow.parquet as pq

from ebflow.errors import BadInput
from ebflow.files import sha256
from ebflow.tables.levels import coded
from pipelines.data.messages import Place, damage

LABEL = "label"
"""What a context may call the column of classes, whatever its name; that of a named source."""

TIMES = {"seconds": 1.0, "days": 86_400.0}
"""Seconds of the units in which timestamps are read as numbers, from 1970 on."""

BUFFER = 1 << 18

CSV_BYTES = 4 << 20
"""Bytes of a CSV file that are parsed at a time, and from which the types of columns are told."""

SIGNS = ("?", "-", ".", "None", "<NA>")
"""What stands for a missing number in CSV files, besides what Arrow takes for one."""

Read = Callable[[Sequence[str], int, int], tuple[int, Iterator[pa.RecordBatch]]]
"""Of names of columns, a number of rows and the row to start at: returns the number of a row at or
before that one, and record batches from it on, of about so many rows."""


class Part(NamedTuple):
    """One file, opened and not yet read, or the rows of a named source.

    Arguments:
        label: Its name in messages.
        schema: Its columns.
        rows: Its rows, by its footer.
        open: Reads it.
        sha256: Returns the SHA-256 of its content.
        kind: Its format.
        positional: Whether its columns have no names of their own.
    """

    label: str
    schema: pa.Schema
    rows: int
    open: Read
    sha256: Callable[[], str]
    kind: str
    positional: bool = False

    def batches(
        self, names: Sequence[str], size: int, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yields batches of at most ``size`` rows, and where they are.

        They are of all rows, or of those from ``first`` on and before ``last``.

        Raises:
            BadInput: Where the file is damaged, or unless it has its rows.
        """
        with damage(self.label, kind=self.kind):
            start, batches = self.open(list(names), size, first)
        while True:
            with damage(self.label, names[0], start, self.kind):
                if (batch := next(batches, None)) is None:
                    break
                batch.validate(full=True)  # text is UTF-8
            end = start + len(batch)
            stop = end if last is None else min(end, last)
            for k in range(max(start, first), stop, size):
                yield batch.slice(k - start, min(size, stop - k)), Place(self.label, k)
            start = end
            if stop == last:
                return
        if start != self.rows:
            raise BadInput(f"{self.label}: found {start} rows, expected {self.rows} (its footer)")


def _part(
    path: Path, kind: str, schema: pa.Schema, rows: int, read: Read, *, positional: bool = False
) -> Part:
    return Part(str(path), schema, rows, read, partial(sha256, path), kind, positional)


def parquet(path: Path) -> Part:
    """Opens Parquet; reads the footer.

    Through a buffer, and not ahead, its batches hold a page of each column (about 2 MB); a scanner
    of ``pyarrow.dataset`` holds a whole row group, which may be the whole file.
    """

    def read(names: Sequence[str], size: int, start: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """Reads from the row group on that has row ``start``."""
        options = {"pre_buffer": False, "page_checksum_verification": True}
        file = pq.ParquetFile(path, buffer_size=BUFFER, **options)
        count = file.metadata.num_row_groups
        ends = np.cumsum([0, *(file.metadata.row_group(k).num_rows for k in range(count))])
        group = int(np.searchsorted(ends, start, side="right")) - 1
        batches = file.iter_batches(size, row_groups=list(range(group, count)), columns=names)
        return int(ends[group]), batches

    with damage(path), pq.ParquetFile(path) as file:
        return _part(path, "Parquet", file.schema_arrow, file.metadata.num_rows, read)


def _arrow(path: Path) -> Part:
    """Opens an Arrow IPC file, which a Feather file is; reads the footer of every batch."""

    def opened() -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return file.schema, map(file.get_batch, range(file.num_record_batches))

    def read(names: Sequence[str], size: int, start: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """Reads all batches, which stay on the disk until they are used."""
        return 0, (batch.select(names) for batch in opened()[1])

    with damage(path, kind="Arrow IPC"):
        schema, batches = opened()
        return _part(path, "Arrow IPC", schema, sum(map(len, batches)), read)


def _csv(path: Path) -> Part:
    """Opens CSV with a header; parses it all, once, for its types and rows.

    A column is of integers only if all of it is. Empty fields are nulls; so are, among numbers,
    NA, NaN, null and the other ``SIGNS``.
    """

    def read(names: Sequence[str], size: int, start: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """Parses the file again, by the types that it has."""
        return 0, map(_emptied, _csv_reader(path, column_types=dict(types), include_columns=names))

    with damage(path, kind="CSV"):
        _check_first_lines(path)
        status = path.stat()
        types, rows = _scanned(path, status.st_mtime_ns, status.st_size)
    return _part(path, "CSV", pa.schema(types), rows, read)


def _csv_reader(path: Path, **options: Any) -> pc.CSVStreamingReader:  # noqa: ANN401
    blocks = pc.ReadOptions(use_threads=False, block_size=CSV_BYTES)
    convert = pc.ConvertOptions(**options)
    convert.null_values = [*convert.null_values, *SIGNS]
    return pc.open_csv(path, read_options=blocks, convert_options=convert)


def _emptied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch with nulls in place of empty text."""
    columns = batch.columns
    for k, column in enumerate(columns):
        if is_text(column.type):
            columns[k] = compute.if_else(compute.equal(column, ""), None, column)
    return pa.record_batch(columns, batch.schema)


@cache
def _scanned(
    path: Path, changed: int, size: int
) -> tuple[tuple[tuple[str, pa.DataType], ...], int]:
    """Returns names and types of a CSV file's columns, and its rows."""
    with _csv_reader(path) as reader:
        schema = reader.schema
    _check_header(path, schema.names)
    types = [(f.name, pa.float64() if pa.types.is_null(f.type) else f.type) for f in schema]
    try:
        return tuple(types), _counted(path, types)
    except pa.ArrowInvalid:  # an integer column may go on with reals
        wide = [(n, pa.float64() if pa.types.is_integer(t) else t) for n, t in types]
        return tuple(wide), _counted(path, wide)


def _counted(path: Path, types: Sequence[tuple[str, pa.DataType]]) -> int:
    with _csv_reader(path, column_types=dict(types)) as reader:
        return sum(len(batch) for batch in reader)


def _check_header(path: Path, names: Sequence[str]) -> None:
    with suppress(pa.ArrowInvalid):
        pa.array(names).cast(pa.float64())
        raise BadInput(
            f"{path}: found numbers in the first line, expected names of columns: put a line of "
            "names before it"
        )


def _check_first_lines(path: Path) -> None:
    """Refuses another encoding than UTF-8 and another separator than commas, by two lines."""
    with path.open("rb") as file:
        header, row = (file.readline(CSV_BYTES) for _ in range(2))
    if header.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise _other_csv(path, "UTF-16", "UTF-8", "encoding='utf-16'")
    with suppress(UnicodeDecodeError):
        header.decode()
        for mark, word in ((";", "semicolons"), ("\t", "tabs")):
            if mark.encode() in header and b"," not in header:
                decimal = ", decimal=','" if b"," in row else ""
                raise _other_csv(
                    path, f"columns between {word}", "commas", f"sep={mark!r}{decimal}"
                )
        return
    raise _other_csv(path, "names in another encoding", "UTF-8", "encoding='latin-1'")


def _other_csv(path: Path, found: str, expected: str, options: str) -> BadInput:
    return BadInput(
        f"{path}: found {found}, expected {expected}: "
        f"pandas.read_csv(path, {options}).to_csv(new, index=False) converts it"
    )


def _npy(path: Path) -> Part:
    """Opens an array of NumPy, memory-mapped."""
    with damage(path, kind="NumPy", also=(ValueError, EOFError)):
        return _array(path, np.load(path, mmap_mode="r"))


def _npz(path: Path) -> Part:
    """Opens the one array of a NumPy archive, or the one called ``x``; reads it whole."""
    with damage(path, kind="NumPy", also=(ValueError, EOFError)), np.load(path) as archive:
        names = archive.files
        if "x" not in names and len(names) != 1:
            raise BadInput(
                f"{path}: found arrays {', '.join(names) or 'none'}, expected one, or one called "
                "x: np.savez(path, x=rows)"
            )
        return _array(path, archive["x" if "x" in names else names[0]])


def _array(path: Path, array: np.ndarray) -> Part:
    if array.dtype.kind not in "buif" or not array.ndim:
        raise BadInput(
            f"{path}: found an array of shape {array.shape} and type {array.dtype}, expected rows "
            "of numbers: np.asarray(rows, dtype=float) makes one"
        )
    rows = array[:, None] if array.ndim == 1 else array
    kind, levels = rows.dtype.kind, 256 if rows.dtype == np.uint8 else None
    if kind != "f" and levels is None and rows.ndim > 2:
        raise BadInput(
            f"{path}: found examples of shape {rows.shape[1:]} and type {rows.dtype}, expected "
            "uint8 levels or reals: rows.astype('uint8') or rows.astype('float32') converts them"
        )
    dtype = "float64" if rows.dtype.itemsize > 4 else "float32"
    if kind != "f":
        dtype = "uint8" if kind == "b" else rows.dtype.name
    one_list = rows.ndim > 2 or levels is not None
    schema = arrays_schema(rows.shape[1:], dtype, levels, one_list=one_list)

    def read(names: Sequence[str], size: int, start: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """Reads from row ``start`` on."""
        return start, array_batches([rows[start:]], schema, dtype, names, size)

    return _part(path, "NumPy", schema, len(rows), read, positional=True)


def arrays_schema(
    shape: Sequence[int], dtype: str, levels: int | None, *, one_list: bool, name: str = "image"
) -> pa.Schema:
    """Returns the schema of rows without names: columns x1 … xD, or one fixed-size list."""
    kind, width = pa.from_numpy_dtype(np.dtype(dtype)), math.prod(shape)
    if not one_list:
        return pa.schema([(f"x{k + 1}", kind) for k in range(width)])
    metadata = {"shape": json.dumps(list(shape))}
    metadata |= {} if levels is None else {"levels": json.dumps(levels)}
    return pa.schema([(name, pa.list_(kind, width))], metadata=metadata)


def array_batches(
    matrices: Iterable[np.ndarray],
    schema: pa.Schema,
    dtype: str,
    names: Sequence[str],
    size: int,
    labels: np.ndarray | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yields columns of rows in matrices, of at most ``size`` rows.

    Arguments:
        matrices: The rows, of any shape.
        schema: Their columns, as of ``arrays_schema``, and perhaps ``label``.
        dtype: The type that they are given.
        names: The columns that are wanted.
        size: Rows of a batch.
        labels: The classes of all rows, with shape (N,).
    """
    first, kind = 0, schema.field(0).type
    for rows in matrices:
        for k in range(0, len(rows), size):
            x = np.ascontiguousarray(rows[k : k + size], dtype)
            found = dict(zip(schema.names, x.reshape(len(x), -1).T, strict=False))
            if pa.types.is_fixed_size_list(kind):
                lists = pa.FixedSizeListArray.from_arrays(x.reshape(-1), type=kind)
                found = {schema.names[0]: lists}
            if labels is not None:
                found[LABEL] = np.asarray(labels[first : first + len(x)], np.int64)
            first += len(x)
            yield pa.record_batch([pa.array(found[name]) for name in names], list(names))


FORMATS: dict[str, Callable[[Path], Part]] = {
    ".parquet": parquet,
    ".csv": _csv,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".npy": _npy,
    ".npz": _npz,
}
"""How files are opened, by the ends of their names."""


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is of real numbers, whole ones or booleans."""
    is_it = pa.types
    return is_it.is_floating(kind) or is_it.is_integer(kind) or is_it.is_boolean(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_time(kind: pa.DataType) -> bool:
    """Whether a type is of timestamps or dates."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def is_category(kind: pa.DataType) -> bool:
    """Whether a type is text, or a dictionary of text or of numbers."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type) or is_number(kind.value_type)
    return is_text(kind)


def lookup(
    column: pa.Array, numbers: Callable[[list[str]], Sequence[float]], null: float
) -> np.ndarray:
    """Returns numbers of a column's values with shape (B,), computed once a distinct text."""
    encoded = as_text(column).dictionary_encode()
    found = np.array([*numbers(encoded.dictionary.to_pylist()), null])
    return found[encoded.indices.fill_null(-1).to_numpy()]


def as_text(column: pa.Array) -> pa.Array:
    """Returns a column of text or of a dictionary as text."""
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return values.cast(pa.string())


def level_numbers(column: pa.Array, levels: Sequence[str]) -> np.ndarray:
    """Returns numbers of levels with shape (B,), NaN of nulls, ∞ of what is no level."""
    found = lookup(column, lambda values: coded(values, levels), np.nan)
    return np.where(found == -1, np.inf, found)


def numbers(column: pa.Array, unit: str | None) -> np.ndarray:
    """Returns a column as numbers, a null as NaN; times in a unit since 1970."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not is_time(column.type):
        return column.to_numpy(zero_copy_only=False)
    micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.int64()).to_numpy(zero_copy_only=False) / (TIMES[unit] * 1e6)


def times(values: np.ndarray, kind: pa.DataType, unit: str) -> pa.Array:
    """Returns numbers (N,) in a unit since 1970 as timestamps or dates of a type."""
    whole = np.round(values * (TIMES[unit] * 1e6)).astype(np.int64)
    ours = pa.timestamp("us", tz=getattr(kind, "tz", None))
    return pa.array(whole).cast(ours).cast(kind, safe=False)
