"""From a Parquet schema and record batches to matrices whose every value has been checked.

A row is one fixed-size list, such as an image, or one number of each of D columns.
"""

__all__ = ["DRAWN", "LACKING", "Layout", "as_labels", "as_matrix", "damage", "read_columns",
           "read_footer", "read_layout", "read_shard", "same_layout", "shard_schema",
           "times"]  # fmt: skip

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, ValidationError

from ..errors import BadInput
from .given import Given, is_text, read_given
from .manifest import first_error
from .splits import COLUMN, names_splits

VALUES = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}

CLASSES = 10_000
"""More classes than any data set is taken to have."""

NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
"""What a column of a table may hold."""

TIMES = {"seconds": 1.0, "days": 86_400.0}
"""Seconds of the units in which timestamps are read as numbers, from 1970 on."""

FINITE = "a finite number"
LACKING = f"{FINITE}, or data.missing: drop leaves such rows out, impute draws what they lack"
DRAWN = f"{FINITE}: ebflow impute draws what is missing"
"""What is expected in place of a missing entry of data to train on, or to score."""

BUFFER = 1 << 18
ADVICE = "choose others by columns"


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (_is_time, "or data.timestamps seconds, which reads numbers"),
    (pa.types.is_temporal, "or make numbers of it, as t.dt.total_seconds()"),
    (pa.types.is_decimal, "or cast it to double"),
    (pa.types.is_dictionary, "or make columns of 0 and 1 of it by pandas.get_dummies"),
    (pa.types.is_string, "or make columns of 0 and 1 of it by pandas.get_dummies"),
    (pa.types.is_large_string, "or make columns of 0 and 1 of it by pandas.get_dummies"),
    (pa.types.is_list, "or cast it to a fixed-size list"),
)
"""How columns that are no numbers are converted, by what they are."""
ABSENT = "no such column"

LABEL = "label"
"""What a context may call the column of classes, whatever its name; that of a named source."""


@dataclass(frozen=True)
class Layout:
    """How a record batch becomes a matrix of D features a row.

    Arguments:
        columns: The columns to read: one fixed-size list, or D scalar columns.
        types: Their Arrow types.
        units: Their units by the metadata of their fields, None where these name none.
        shape: Shape of an example; its product is D.
        dtype: dtype of the matrix: ``uint8``, ``float32`` or ``float64``.
        levels: Number of levels of uint8 data, None if continuous.
        warnings: What a user should know about this reading of the columns.
        label: The column of classes, None of data without.
        split: The column that names the split of each row, None of data without.
        given: The columns of context, none of data without.
        timestamps: The unit in which timestamps are read as numbers, None of data without.
    """

    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    units: tuple[str | None, ...]
    shape: tuple[int, ...]
    dtype: str
    levels: int | None
    warnings: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    given: Given = Given()
    timestamps: str | None = None

    @property
    def array(self) -> bool:
        """Whether the data are one fixed-size list."""
        return len(self.types) == 1 and pa.types.is_fixed_size_list(self.types[0])

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the columns of features, that of classes and those of context."""
        beside = () if self.label in (None, *self.given.names) else (self.label,)
        return (*self.columns, *beside, *self.given.names)

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    def feature(self, index: int) -> str:
        """Names feature ``index`` in a message: ``column image[3]`` or ``column age``."""
        return f"column {f'{self.columns[0]}[{index}]' if self.array else self.columns[index]}"


def read_layout(
    schema: pa.Schema,
    *,
    file: str,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    context: Sequence[str] = (),
    timestamps: str | None = None,
) -> Layout:
    """Decides which columns are the data and what they mean.

    Arguments:
        schema: Arrow schema; its metadata may hold ``shape`` and ``levels`` in JSON, that of a
            field ``unit``.
        file: Name of the file for messages.
        columns: The columns chosen by the user; None takes the one fixed-size list (or the one
            called ``image``), or all but those of classes, splits and a pandas frame's index.
        label: The column of classes; None: none is read.
        split: The column that names splits; None: the one called ``split``, if it holds text.
        context: The columns that are given; ``label`` is that of classes, which may be text then.
        timestamps: The unit in which timestamps are read as numbers; None: they are refused.

    Raises:
        BadInput: If the choice or a type does not make a data set.
    """
    _check_names(schema.names, file)
    label, context = _conditions(schema, label, context)
    if label in context:
        _check_beside(schema, file, "label", label, "classes (integers or text)", _classes)
    elif label is not None:
        _check_beside(schema, file, "label", label, "integer classes", pa.types.is_integer)
    if split is not None:
        _check_beside(schema, file, "split_column", split, "names of splits", names_splits)
    elif COLUMN in schema.names and names_splits(schema.field(COLUMN).type):
        split = COLUMN
    given = _given(schema, file, context, label, split)
    beside = {label: "the classes (label)", split: "names of splits (split_column)"}
    beside |= dict.fromkeys(context, "a context")
    found, index = _candidates(schema, file, beside) if columns is None else (columns, ())
    if context and set(found) <= set(beside):
        raise BadInput(
            f"{file}: found all of {_listed(schema.names)} taken from the data, expected some "
            "left: choose others by context"
        )
    fields = [schema.field(name) for name in _chosen(schema, file, found, beside)]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    known = [
        pa.field(f.name, pa.float64()) if timestamps and _is_time(f.type) else f for f in fields
    ]
    dtype, width = _array_type(fields[0], file) if array else _tabular_type(known, file)
    where = f"{file}, schema metadata"
    told = _told(schema, where)
    if told.shape and math.prod(told.shape) != width:
        raise BadInput(
            f"{where}, key 'shape': found {told.shape} with {math.prod(told.shape)} values, "
            f"expected {width} as in the data"
        )
    dropped = [f"column {name} is the index of a pandas frame and was left out" for name in index]
    integers = [
        f"column {field.name} holds integers ({field.type}) and is read as continuous"
        for field in fields
        if pa.types.is_integer(field.type)
    ]
    booleans = [
        f"column {field.name} holds booleans and is read as 0 and 1"
        for field in fields
        if pa.types.is_boolean(field.type)
    ]
    times = [
        f"column {field.name} holds times and is read as {timestamps} since 1970"
        for field in fields
        if _is_time(field.type)
    ]
    return Layout(
        columns=tuple(field.name for field in fields),
        types=tuple(field.type for field in fields),
        units=tuple(unit(field, file) for field in fields),
        shape=told.shape or (width,),
        dtype=dtype,
        levels=_levels(told, where, dtype),
        warnings=(*dropped, *integers, *booleans, *times),
        label=label,
        split=split,
        given=given,
        timestamps=timestamps if times else None,
    )


def same_layout(first: Layout, other: Layout, *, first_file: str, file: str) -> None:
    """Raises BadInput unless two files of a folder hold the same columns and shapes."""
    expected, found = _facts(first), _facts(other)
    for key in sorted(expected.keys() | found.keys()):
        one, two = expected.get(key, ABSENT), found.get(key, ABSENT)
        if one != two:
            raise BadInput(f"{file}, {key}: found {two}, expected {one} as in {first_file}")


def _facts(layout: Layout) -> dict[str, object]:
    columns = [*zip(layout.columns, layout.types, layout.units, strict=True)]
    columns += zip(layout.given.names, layout.given.types, layout.given.units, strict=True)
    found = {f"column {n}": _one_line(kind) + f" in {u}" * bool(u) for n, kind, u in columns}
    told = {"shape": layout.shape, "levels": layout.levels}
    split = {} if layout.split is None else {f"column {layout.split}": "names of splits"}
    return found | split | {f"schema metadata {key}": value for key, value in told.items()}


def _check_names(names: Sequence[str], file: str) -> None:
    if not names:
        raise BadInput(f"{file}: found no column, expected at least one")
    for name, count in Counter(names).items():
        if not name.isprintable() or not name:
            raise BadInput(f"{file}, column {name!r}: expected a name of printable characters")
        if count > 1:
            raise BadInput(f"{file}, column {name}: found {count} of this name, expected one")


def _check_beside(
    schema: pa.Schema, file: str, option: str, name: str, what: str, right: Callable
) -> None:
    """Raises BadInput unless an option names a column of the right type beside the features."""
    if name not in schema.names:
        raise BadInput(
            f"{file}, column {name}: {ABSENT}, expected one with {what} of "
            f"{_listed(schema.names)}: choose another by {option}"
        )
    if not right(found := schema.field(name).type):
        raise BadInput(f"{file}, column {name}: found {_one_line(found)}, expected {what}")


def _conditions(
    schema: pa.Schema, label: str | None, context: Sequence[str]
) -> tuple[str | None, tuple[str, ...]]:
    """Returns the column of classes and those of context, of which ``label`` may be the former."""
    if LABEL in context and label is None and LABEL in schema.names:
        label = LABEL if pa.types.is_integer(schema.field(LABEL).type) else None
    alias = label if label is not None and LABEL not in schema.names else LABEL
    return label, tuple(alias if name == LABEL else name for name in context)


def _classes(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or is_text(kind)


def _given(
    schema: pa.Schema, file: str, context: Sequence[str], label: str | None, split: str | None
) -> Given:
    for name, count in Counter(context).items():
        if count > 1:
            raise BadInput(f"context: found {name} {count} times, expected once")
        if name not in schema.names:
            raise BadInput(
                f"{file}, column {name}: {ABSENT}, expected one of {_listed(schema.names)}: "
                "choose others by context"
            )
        if name == split:
            raise BadInput(f"context: found {name}, names of splits (split_column), expected data")
    units = [unit(schema.field(name), file) for name in context]
    return read_given(schema, context, file=file, units=units, label=label)


def _candidates(
    schema: pa.Schema, file: str, beside: Collection[str | None]
) -> tuple[list[str], list[str]]:
    """Returns the columns of features, and those of an index that were left out."""
    arrays = [f.name for f in schema if pa.types.is_fixed_size_list(f.type)]
    if len(arrays) == 1 or "image" in arrays:
        return ["image" if "image" in arrays else arrays[0]], []
    if arrays:
        raise BadInput(
            f"{file}: found {len(arrays)} fixed-size lists ({_listed(arrays)}), "
            f"expected one: {ADVICE}"
        )
    index = [name for name in schema.names if name.startswith("__index_level_")]
    names = [name for name in schema.names if name not in (*index, *beside)]
    return (names, index) if names else (schema.names, [])


def _chosen(
    schema: pa.Schema, file: str, columns: Sequence[str], beside: Mapping[str | None, str]
) -> Sequence[str]:
    if not columns:
        raise BadInput("columns: found no name, expected at least one")
    for name, count in Counter(columns).items():
        if count > 1:
            raise BadInput(f"columns: found {name} {count} times, expected once")
        if name not in schema.names:
            raise BadInput(
                f"{file}, column {name}: {ABSENT}, expected one of {_listed(schema.names)}"
            )
        if name in beside:
            raise BadInput(f"columns: found {name}, {beside[name]}, expected features")
    return columns


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")


def _array_type(field: pa.Field, file: str) -> tuple[str, int]:
    value, size = field.type.value_type, field.type.list_size
    if value not in VALUES or size < 1:
        raise BadInput(
            f"{file}, column {field.name}: found a fixed-size list of {size} {value}, "
            "expected one or more uint8, float or double"
        )
    return VALUES[value], size


def _tabular_type(fields: list[pa.Field], file: str) -> tuple[str, int]:
    for field in fields:
        if not any(number(field.type) for number in NUMBERS):
            kind = "nested " if pa.types.is_nested(field.type) else ""
            hints = [ADVICE, *(told for is_it, told in CONVERSIONS if is_it(field.type))]
            raise BadInput(
                f"{file}, column {field.name}: found {kind}{_one_line(field.type)}, "
                f"expected a number, or one fixed-size list: {', '.join(hints)}"
            )
    common = np.result_type(*(_dtype(field.type) for field in fields), np.float32)
    return common.name, len(fields)


def _dtype(kind: pa.DataType) -> np.dtype:
    """Returns NumPy's type of a number; ``to_pandas_dtype`` would import pandas."""
    letter = (
        "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    )
    return np.dtype(f"{letter}{-(-kind.bit_width // 8)}")


class _Metadata(BaseModel):
    """What the metadata of a schema or of a field may say; other keys are left alone."""

    model_config = ConfigDict(strict=True)

    shape: Json[Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] | None = None
    levels: Json[Annotated[int, Field(ge=2, le=256)]] | None = None
    unit: Annotated[str, Field(max_length=60, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")] | None = None


def unit(field: pa.Field, file: str) -> str | None:
    """Returns the unit of a column by its metadata; raises BadInput if that makes no sense."""
    return _told(field, f"{file}, column {field.name}").unit


def _told(owner: pa.Schema | pa.Field, where: str) -> _Metadata:
    """Returns the metadata of a schema or a field; raises BadInput if they make no sense."""
    found = {k.decode(errors="replace"): v for k, v in (owner.metadata or {}).items()}
    known = {
        k: v.decode(errors="replace") for k, v in found.items() if k in _Metadata.model_fields
    }
    try:
        return _Metadata.model_validate(known)
    except ValidationError as error:
        raise BadInput(f"{where}{first_error(error)}") from None


def _levels(told: _Metadata, where: str, dtype: str) -> int | None:
    if dtype == "uint8":
        return told.levels or 256
    if told.levels is not None:
        raise BadInput(
            f"{where}, key 'levels': found {told.levels} with {dtype} data, expected none but of "
            "uint8 lists"
        )
    return None


def _one_line(type: pa.DataType) -> str:
    text = " ".join(str(type).split())
    return text if len(text) <= 60 else text[:57] + "..."


def as_matrix(
    batch: pa.RecordBatch, layout: Layout, *, file: str, first: int, lacking: str | None = FINITE
) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Arguments:
        batch: B rows that hold at least the columns of the layout.
        layout: Which columns to read.
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.
        lacking: What is expected in place of a null or NaN of real data; None: it is taken, as
            NaN.

    Raises:
        BadInput: At a null, NaN, infinite or too large value; names the row and column.
    """
    columns = [batch.column(name) for name in layout.columns]
    if layout.array:
        _check_lists(columns[0], layout, file, first)
        columns = [columns[0].flatten()]
        matrix = columns[0].to_numpy(zero_copy_only=False).reshape(len(batch), layout.width)
    else:
        matrix = np.empty((len(batch), layout.width), dtype=layout.dtype)
        for j, column in enumerate(columns):
            matrix[:, j] = _numbers(column, layout.timestamps)
    # A null is NaN by now, or the matrix is one of integers.
    bad = ~np.isfinite(matrix) if layout.levels is None else ~(matrix < layout.levels)
    if lacking is None and layout.levels is None:
        bad &= ~np.isnan(matrix)
    if bad.any():
        row, feature = divmod(int(np.argmax(bad)), layout.width)
        at = (0, row * layout.width + feature) if layout.array else (feature, row)
        expected = FINITE if layout.levels is None else f"0 … {layout.levels - 1}"
        if layout.levels is None and np.isnan(matrix[row, feature]):
            expected = lacking
        value = columns[at[0]][at[1]].as_py()
        raise BadInput(_found(file, first + row, layout.feature(feature), value, expected))
    return matrix


def times(values: np.ndarray, kind: pa.DataType, unit: str) -> pa.Array:
    """Returns numbers (N,) in a unit since 1970 as timestamps or dates of a type."""
    whole = np.round(values * (TIMES[unit] * 1e6)).astype(np.int64)
    ours = pa.timestamp("us", tz=getattr(kind, "tz", None))
    return pa.array(whole).cast(ours).cast(kind, safe=False)


def _numbers(column: pa.Array, unit: str | None) -> np.ndarray:
    """Returns a column as numbers, a null as NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not _is_time(column.type):
        return column.to_numpy(zero_copy_only=False)
    micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.int64()).to_numpy(zero_copy_only=False) / (TIMES[unit] * 1e6)


def _check_lists(lists: pa.Array, layout: Layout, file: str, first: int) -> None:
    """Raises BadInput at a list that is null, as Arrow itself does while it reads Parquet."""
    for row in np.flatnonzero(lists.is_null())[:1].tolist():
        where, expected = f"column {layout.columns[0]}", f"a list of {layout.width}"
        raise BadInput(_found(file, first + row, where, None, expected))


def as_labels(batch: pa.RecordBatch, name: str, *, file: str, first: int) -> np.ndarray:
    """Returns the classes of a batch, with shape (B,), after checking every value.

    Arguments as in ``as_matrix``, and ``name``: the column of classes.

    Raises:
        BadInput: At a null, or a number that is not 0 … 9999; names the row.
    """
    column = batch.column(name)
    labels = column.to_numpy(zero_copy_only=False)
    bad = ~((labels >= 0) & (labels < CLASSES))
    for row in np.flatnonzero(bad)[:1].tolist():
        value, expected = column[row].as_py(), f"a class 0 … {CLASSES - 1}"
        raise BadInput(_found(file, first + row, f"column {name}", value, expected))
    return labels.astype(np.int64)


def _found(file: str, row: int, where: str, value: object, expected: str) -> str:
    found = "null" if value is None else value
    return f"{file}, row {row}, {where}: found {found}, expected {expected}"


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
            one, two = (
                ", ".join(f"{f.name} {_one_line(f.type)}" for f in s) for s in (found, schema)
            )
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
        raise BadInput(_found(str(path), row, f"column {column}", None, f"a list of {found[1]}"))
    raise BadInput(f"{path}: found a damaged file or none of {kind} ({text[:200]})")
