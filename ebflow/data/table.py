"""From a Parquet schema and record batches to matrices whose every value has been checked.

A row is one fixed-size list, such as an image, or one number of each of D columns.
"""

__all__ = [
    "Layout",
    "as_labels",
    "as_matrix",
    "read_columns",
    "read_footer",
    "read_layout",
    "same_layout",
    "shard_arrays",
]

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadInput

VALUES = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}

CLASSES = 10_000
"""More classes than any data set is taken to have."""

MAGIC = b"PAR1"
BUFFER = 1 << 18
ADVICE = "choose others by columns"


@dataclass(frozen=True)
class Layout:
    """How a record batch becomes a matrix of D features a row.

    Arguments:
        columns: The columns to read: one fixed-size list, or D scalar columns.
        types: Their Arrow types.
        shape: Shape of an example; its product is D.
        dtype: dtype of the matrix: ``uint8``, ``float32`` or ``float64``.
        levels: Number of levels of uint8 data, None if continuous.
        warnings: What a user should know about this reading of the columns.
        label: The column of classes, None of data without.
    """

    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    shape: tuple[int, ...]
    dtype: str
    levels: int | None
    warnings: tuple[str, ...] = ()
    label: str | None = None

    @property
    def array(self) -> bool:
        """Whether the data are one fixed-size list."""
        return len(self.types) == 1 and pa.types.is_fixed_size_list(self.types[0])

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of all columns to read."""
        return self.columns if self.label is None else (*self.columns, self.label)

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the D features, None for arrays."""
        return None if self.array else self.columns

    def feature(self, index: int) -> str:
        """Names feature ``index`` in a message: ``column image[3]`` or ``column age``."""
        return (
            f"column {self.columns[0]}[{index}]" if self.array else f"column {self.columns[index]}"
        )


def read_layout(
    schema: pa.Schema,
    *,
    file: str,
    columns: Sequence[str] | None = None,
    label: str | None = None,
) -> Layout:
    """Decides which columns are the data and what they mean.

    Arguments:
        schema: Arrow schema; its metadata may hold ``shape`` and ``levels`` in JSON.
        file: Name of the file for messages.
        columns: The columns chosen by the user; None takes the one fixed-size list, or all.
        label: The column of classes; None: none is read.

    Raises:
        BadInput: If the choice or a type does not make a data set.
    """
    names, dropped = _choose_columns(schema, file, columns, label)
    fields = [schema.field(name) for name in names]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    dtype, width = _array_type(fields[0], file) if array else _tabular_type(fields, file)
    return Layout(
        columns=tuple(names),
        types=tuple(field.type for field in fields),
        shape=_shape(schema, file, width),
        dtype=dtype,
        levels=_levels(schema, file, dtype),
        warnings=dropped + _integer_warnings(fields),
        label=label,
    )


def same_layout(first: Layout, other: Layout, *, first_file: str, file: str) -> None:
    """Raises BadInput unless two files of a folder hold the same columns and shapes."""
    found, expected = (dict(zip(o.columns, o.types, strict=True)) for o in (other, first))
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise BadInput(
                f"{file}, column {name}: found {found.get(name, 'no such column')}, "
                f"expected {expected.get(name, 'no such column')} as in {first_file}"
            )
    for key in ("shape", "levels"):
        if getattr(first, key) != getattr(other, key):
            raise BadInput(
                f"{file}, schema metadata {key}: found {getattr(other, key)}, "
                f"expected {getattr(first, key)} as in {first_file}"
            )


def _choose_columns(
    schema: pa.Schema, file: str, columns: Sequence[str] | None, label: str | None
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the names of the columns to read, and warnings about those left out.

    Without a choice these are the one fixed-size list (or the one called ``image``), else every
    column but the classes and the index of a pandas frame.
    """
    _check_names(schema, file)
    if label is not None:
        _check_label(schema, file, columns, label)
    if columns is not None:
        return _chosen(schema, file, list(columns)), ()
    arrays = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    if len(arrays) == 1 or "image" in arrays:
        return ["image" if "image" in arrays else arrays[0]], ()
    if arrays:
        raise BadInput(
            f"{file}: found {len(arrays)} fixed-size lists ({_listed(arrays)}), "
            f"expected one: {ADVICE}"
        )
    return _without_index(schema, label)


def _without_index(schema: pa.Schema, label: str | None) -> tuple[list[str], tuple[str, ...]]:
    index = [name for name in schema.names if name.startswith("__index_level_")]
    names = [name for name in schema.names if name not in (*index, label)]
    if not names:
        return schema.names, ()
    reason = "is the index of a pandas frame and was left out"
    return names, tuple(f"column {name} {reason}" for name in index)


def _check_names(schema: pa.Schema, file: str) -> None:
    if not schema.names:
        raise BadInput(f"{file}: found no column, expected at least one")
    for name, count in Counter(schema.names).items():
        if not name.isprintable() or not name:
            raise BadInput(f"{file}, column {name!r}: expected a name of printable characters")
        if count > 1:
            raise BadInput(f"{file}, column {name}: found {count} of this name, expected one")


def _check_label(schema: pa.Schema, file: str, columns: Sequence[str] | None, label: str) -> None:
    if label not in schema.names:
        raise BadInput(
            f"{file}, column {label}: no such column of classes, expected one of "
            f"{_listed(schema.names)}: choose another by label"
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise BadInput(
            f"{file}, column {label}: found {schema.field(label).type}, expected integer classes"
        )
    if columns is not None and label in columns:
        raise BadInput(f"columns: found {label}, the classes (label), expected features")


def _chosen(schema: pa.Schema, file: str, columns: list[str]) -> list[str]:
    if not columns:
        raise BadInput("columns: found no name, expected at least one")
    for name, count in Counter(columns).items():
        if count > 1:
            raise BadInput(f"columns: found {name} {count} times, expected once")
        if name not in schema.names:
            raise BadInput(
                f"{file}, column {name}: no such column, expected one of {_listed(schema.names)}"
            )
    return columns


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")


def _array_type(field: pa.Field, file: str) -> tuple[str, int]:
    value, size = field.type.value_type, field.type.list_size
    if value not in VALUES:
        raise BadInput(
            f"{file}, column {field.name}: found a fixed-size list of {value}, "
            "expected uint8, float or double"
        )
    if size < 1:
        raise BadInput(f"{file}, column {field.name}: found lists of {size}, expected at least 1")
    return VALUES[value], size


def _tabular_type(fields: list[pa.Field], file: str) -> tuple[str, int]:
    for field in fields:
        if not (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
            kind = "nested " if pa.types.is_nested(field.type) else ""
            raise BadInput(
                f"{file}, column {field.name}: found {kind}{_one_line(field.type)}, "
                f"expected a number, or one fixed-size list: {ADVICE}"
            )
    common = np.result_type(*(field.type.to_pandas_dtype() for field in fields), np.float32)
    return common.name, len(fields)


def _integer_warnings(fields: list[pa.Field]) -> tuple[str, ...]:
    return tuple(
        f"column {field.name} holds integers ({field.type}) and is read as continuous"
        for field in fields
        if pa.types.is_integer(field.type)
    )


def _shape(schema: pa.Schema, file: str, width: int) -> tuple[int, ...]:
    found = _metadata(schema, file, "shape")
    if found is None:
        return (width,)
    if not isinstance(found, list) or not all(type(n) is int and n > 0 for n in found):
        raise BadInput(
            f"{file}, schema metadata shape: found {found!r}, expected a list such as [1, 28, 28]"
        )
    if math.prod(found) != width:
        raise BadInput(
            f"{file}, schema metadata shape: found {found} with {math.prod(found)} values, "
            f"expected {width} as in the data"
        )
    return tuple(found)


def _levels(schema: pa.Schema, file: str, dtype: str) -> int | None:
    found = _metadata(schema, file, "levels")
    if found is None:
        return 256 if dtype == "uint8" else None
    if dtype != "uint8":
        raise BadInput(
            f"{file}, schema metadata levels: found {found!r} with {dtype} data, "
            "expected it only with fixed-size lists of uint8"
        )
    if type(found) is not int or not 2 <= found <= 256:
        raise BadInput(
            f"{file}, schema metadata levels: found {found!r}, expected a whole number 2 … 256"
        )
    return found


def _metadata(schema: pa.Schema, file: str, key: str) -> object:
    text = (schema.metadata or {}).get(key.encode())
    if text is None:
        return None
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        raise BadInput(f"{file}, schema metadata {key}: found {text!r}, expected JSON") from None


def _one_line(type: pa.DataType) -> str:
    text = " ".join(str(type).split())
    return text if len(text) <= 60 else text[:57] + "..."


def as_matrix(batch: pa.RecordBatch, layout: Layout, *, file: str, first: int) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Arguments:
        batch: B rows that hold at least the columns of the layout.
        layout: Which columns to read.
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.

    Raises:
        BadInput: At a null, NaN, infinite or too large value; names the row and column.
    """
    matrix = (
        _array(batch, layout, file, first) if layout.array else _table(batch, layout, file, first)
    )
    if layout.levels is not None:
        _refuse(matrix >= layout.levels, matrix, layout, file, first, f"0 … {layout.levels - 1}")
    elif matrix.dtype.kind == "f":
        _refuse(~np.isfinite(matrix), matrix, layout, file, first, "a finite number")
    return matrix


def as_labels(batch: pa.RecordBatch, name: str, *, file: str, first: int) -> np.ndarray:
    """Returns the classes of a batch, with shape (B,), after checking every value.

    Arguments as in ``as_matrix``, and ``name``: the column of classes.

    Raises:
        BadInput: At a null, or a number that is not 0 … 9999; names the row.
    """
    column = batch.column(name)
    if column.null_count:
        _refuse_null(column, f"column {name}", file, first)
    labels = column.to_numpy(zero_copy_only=False)
    bad = (labels < 0) | (labels >= CLASSES)
    if bad.any():
        row = int(np.argmax(bad))
        expected = f"a class 0 … {CLASSES - 1}"
        raise BadInput(_found(file, first + row, f"column {name}", str(labels[row]), expected))
    return labels.astype(np.int64)


def _array(batch: pa.RecordBatch, layout: Layout, file: str, first: int) -> np.ndarray:
    column = batch.column(layout.columns[0])
    if column.null_count:
        _refuse_null(column, f"column {layout.columns[0]}", file, first)
    values = column.flatten()
    if values.null_count:
        index = int(np.argmax(_nulls(values)))
        row, feature = divmod(index, layout.width)
        raise BadInput(_found(file, first + row, layout.feature(feature), "null", "a number"))
    return values.to_numpy(zero_copy_only=True).reshape(len(batch), layout.width)


def _table(batch: pa.RecordBatch, layout: Layout, file: str, first: int) -> np.ndarray:
    matrix = np.empty((len(batch), layout.width), dtype=layout.dtype)
    for j, name in enumerate(layout.columns):
        column = batch.column(name)
        if column.null_count:
            _refuse_null(column, layout.feature(j), file, first)
        matrix[:, j] = column.to_numpy(zero_copy_only=False)
    return matrix


def _refuse(
    bad: np.ndarray, matrix: np.ndarray, layout: Layout, file: str, first: int, expected: str
) -> None:
    if bad.any():
        row, feature = divmod(int(np.argmax(bad)), layout.width)
        value = matrix[row, feature].item()
        raise BadInput(_found(file, first + row, layout.feature(feature), str(value), expected))


def _refuse_null(column: pa.Array, where: str, file: str, first: int) -> None:
    row = first + int(np.argmax(_nulls(column)))
    raise BadInput(_found(file, row, where, "null", "a value"))


def _nulls(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False)


def _found(file: str, row: int, where: str, found: str, expected: str) -> str:
    return f"{file}, row {row}, {where}: found {found}, expected {expected}"


def parquet_file(path: Path) -> pq.ParquetFile:
    """Opens a Parquet file to be streamed; raises BadInput if it is none.

    Reading through a buffer, and not ahead, holds a page of each column (about 2 MB) instead of a
    whole row group, which may be the whole file.
    """
    _check_magic(path)
    with _reading(path):
        return pq.ParquetFile(
            path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
        )


def read_footer(path: Path) -> tuple[pa.Schema, int]:
    """Returns the schema and the number of rows; raises BadInput if the file is damaged."""
    with parquet_file(path) as file, _reading(path):
        return file.schema_arrow, file.metadata.num_rows


def read_columns(path: Path, names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
    """Yields columns in batches of at most ``size`` rows.

    Raises:
        BadInput: Where the file is damaged.
    """
    with parquet_file(path) as file:
        yield from _batches(path, file, names, size)


def shard_arrays(
    path: Path, column: str, size: int, *, rows: int, dtype: str, width: int
) -> Iterator[np.ndarray]:
    """Yields a column of a prepared shard in order, with shape (B, D) or, of classes, (B,).

    Arguments:
        path: The shard.
        column: ``x`` or ``label``.
        size: The most rows B of an array.
        rows: The rows that the manifest says it has.
        dtype: The dtype of ``x`` by the manifest.
        width: Its number of features D.

    Raises:
        BadInput: If the shard is damaged, or another than the manifest says.
    """
    with parquet_file(path) as file:
        _check_shard(path, file, rows, column, pa.list_(pa.from_numpy_dtype(dtype), width))
        for batch in _batches(path, file, [column], size):
            with _reading(path):
                values = batch.column(column)
                values = values.flatten() if column == "x" else values
                array = values.to_numpy(zero_copy_only=True)
            yield array.reshape(len(batch), width) if column == "x" else array


def _batches(
    path: Path, file: pq.ParquetFile, names: Sequence[str], size: int
) -> Iterator[pa.RecordBatch]:
    batches, first = file.iter_batches(size, columns=list(names)), 0
    while True:
        with _reading(path), _naming_row(path, names, first):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
        first += len(batch)


def _check_shard(
    path: Path, file: pq.ParquetFile, rows: int, column: str, expected: pa.DataType
) -> None:
    if (found := file.metadata.num_rows) != rows:
        raise BadInput(f"{path}: found {found} rows, expected {rows} (manifest)")
    types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    found = types.get("x", "no such column")
    if not _same_list(found, expected):
        raise BadInput(
            f"{path}, column x: found {found}, expected a fixed-size list of "
            f"{expected.list_size} {expected.value_type} (manifest)"
        )
    if column == "label" and types.get("label") != pa.int64():
        found = types.get("label", "no such column")
        raise BadInput(f"{path}, column label: found {found}, expected int64 (manifest)")


def _same_list(found: pa.DataType | str, expected: pa.DataType) -> bool:
    """Whether two types are lists of the same, whatever the names of their elements."""
    if isinstance(found, str) or not pa.types.is_fixed_size_list(found):
        return False
    return (found.value_type, found.list_size) == (expected.value_type, expected.list_size)


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


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns Arrow's errors while reading a file into one BadInput line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise BadInput(f"{path}: corrupt or unreadable Parquet ({text[:200]})") from None


def _check_magic(path: Path) -> None:
    with _reading(path), path.open("rb") as stream:
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
