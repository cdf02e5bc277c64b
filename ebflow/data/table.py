"""What the columns of a source mean, and their checked values as matrices.

A row is one fixed-size list, such as an image, or D features: one of each column of numbers, and
one of each level of a column of categories. Beside it stand its class, the name of its split, and
columns that it is given: its context.
"""

__all__ = ["COLUMN", "LABEL", "Columns", "Layout", "Place", "as_labels", "as_matrix",
           "check_kinds", "damage", "first_error", "lacks", "levels_of", "lookup", "read_given",
           "read_layout", "same_layout", "short", "times", "type_name"]  # fmt: skip

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, ValidationError

from ..errors import BadInput
from . import Levels, coded, expanded, titles, width

COLUMN = "split"
"""The column that names the split of each row, if it holds text."""

LABEL = "label"
"""What a context may call the column of classes, whatever its name; that of a named source."""

MOST = 256
"""Most levels of a column of categories."""

CLASSES = 10_000
"""More classes than any data set is taken to have."""

LISTED = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}
"""What a fixed-size list may hold, and the dtype of its rows."""

TIMES = {"seconds": 1.0, "days": 86_400.0}
"""Seconds of the units in which timestamps are read as numbers, from 1970 on."""

ADVICE, ABSENT = "choose others by columns", "no such column"
LACKING = ", or data.missing: drop leaves such rows out, impute draws what they lack"
DRAWN = ": ebflow impute draws what is missing"
"""What is said behind what is expected in place of a missing entry, of data to train on, or to
score."""


def _is_number(kind: pa.DataType) -> bool:
    is_it = pa.types
    return is_it.is_floating(kind) or is_it.is_integer(kind) or is_it.is_boolean(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _is_category(kind: pa.DataType) -> bool:
    """Whether a type is text, or a dictionary of text or of numbers."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type) or _is_number(kind.value_type)
    return _is_text(kind)


def _is_class(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or _is_category(kind)


def _names_splits(kind: pa.DataType) -> bool:
    return _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (_is_time, "or data.timestamps seconds, which reads numbers"),
    (pa.types.is_temporal, "or make numbers of it, as t.dt.total_seconds()"),
    (pa.types.is_decimal, "or cast it to double"),
    (pa.types.is_list, "or cast it to a fixed-size list"),
)
"""How columns that are no numbers are converted, by what they are."""


class Place(NamedTuple):
    """Where a batch of B rows stands, and what of it is checked.

    Arguments:
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.
        lacking: What is said of a null or NaN behind what is expected; None: it is taken, as NaN.
        used: The rows whose values are checked, with shape (B,); None: all.
    """

    file: str
    first: int
    lacking: str | None = ""
    used: np.ndarray | None = None

    def bad(self, row: int, name: str, value: object, expected: str) -> BadInput:
        """Returns the line on a value of a row of the batch."""
        shown = repr(value[:60]) if isinstance(value, str) else value
        found, where = "null" if value is None else shown, f"{self.file}, row {self.first + row}"
        return BadInput(f"{where}, column {name}: found {found}, expected {expected}")

    def first_bad(self, x: np.ndarray, most: int | None = None) -> tuple[int, int, str] | None:
        """Returns row and column of the first value that is not finite, or not below ``most``.

        And what is said behind what is expected. None: all of the matrix (B, K) is good.
        """
        if most is not None:
            bad = ~(x < most)
        else:
            bad = np.isinf(x) if self.lacking is None else ~np.isfinite(x)
        if self.used is not None:
            bad &= self.used[:, None]
        if not bad.any():
            return None
        row, k = divmod(int(np.argmax(bad)), x.shape[1])
        return row, k, self.lacking or "" if most is None and np.isnan(x[row, k]) else ""


@dataclass(frozen=True)
class Columns:
    """Columns of a source, in order.

    Arguments:
        names: Their names.
        types: Their Arrow types.
        units: Their units by the metadata of their fields, None where these name none.
        levels: Of each the levels, None of one of numbers; none where they are still to be read.
        timestamps: The unit in which timestamps are read as numbers, None of data without.
    """

    names: tuple[str, ...] = ()
    types: tuple[pa.DataType, ...] = ()
    units: tuple[str | None, ...] = ()
    levels: Levels = ()
    timestamps: str | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of those of categories."""
        pairs = zip(self.names, self.levels, strict=True)
        return tuple(name for name, known in pairs if known is not None)

    def told(self, levels: Mapping[str, Sequence[str]]) -> "Columns":
        """Returns the columns with the levels of some."""
        pairs = zip(self.names, self.levels, strict=True)
        return replace(self, levels=tuple(levels.get(name, old) for name, old in pairs))

    def stored(self, batch: pa.RecordBatch, place: Place, dtype: str = "float64") -> np.ndarray:
        """Returns numbers, and numbers of levels, with shape (B, K), after checking every value.

        Raises:
            BadInput: At a null, a number that is not finite, or no level; names row and column.
        """
        found = np.empty((len(batch), len(self.names)), dtype)
        for k, (name, known) in enumerate(zip(self.names, self.levels, strict=True)):
            column = batch.column(name)
            numbers = _codes(column, known) if known else _numbers(column, self.timestamps)
            found[:, k] = numbers
        if bad := place.first_bad(found):
            row, k, lacking = bad
            expected = _one_of(self.levels[k]) if self.levels[k] else "a finite number"
            value = batch.column(self.names[k])[row].as_py()
            raise place.bad(row, self.names[k], value, expected + lacking)
        return found


@dataclass(frozen=True)
class Layout:
    """How a record batch becomes a matrix of D features a row, and what stands beside them.

    Arguments:
        data: The columns of features: one fixed-size list, or numbers and categories.
        shape: Shape of an example; its product is D.
        dtype: dtype of the matrix: ``uint8``, ``float32`` or ``float64``.
        levels: Number of levels of uint8 data, None if continuous.
        remarks: What a user should know about this reading of the columns.
        label: The column of classes, None of data without.
        split: The column that names the split of each row, None of data without.
        given: The columns of context, none of data without.
    """

    data: Columns
    shape: tuple[int, ...]
    dtype: str
    levels: int | None
    remarks: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    given: Columns = Columns()

    @property
    def array(self) -> bool:
        """Whether the data are one fixed-size list."""
        return len(self.data.types) == 1 and pa.types.is_fixed_size_list(self.data.types[0])

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of features."""
        return self.data.names

    @property
    def units(self) -> tuple[str | None, ...]:
        """Their units."""
        return self.data.units

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the columns of features, that of classes and those of context."""
        beside = () if self.label in (None, *self.given.names) else (self.label,)
        return (*self.columns, *beside, *self.given.names)

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def features(self) -> list[str]:
        """The names of the features, as ``age`` and ``region=north``; of a list ``image[0]``."""
        if self.array:
            return [f"{self.columns[0]}[{k}]" for k in range(self.width)]
        return titles(self.columns, self.data.levels)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The remarks, and how categories are read."""
        pairs = zip(self.columns, self.data.levels, strict=True)
        lines = (
            f"column {name} holds categories and is read as {len(known)} features, one of each "
            "level, dequantised by uniform noise"
            for name, known in pairs
            if known is not None
        )
        return (*self.remarks, *lines)


def read_layout(
    schema: pa.Schema,
    *,
    file: str,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    context: Sequence[str] = (),
    timestamps: str | None = None,
    categories: Levels | None = None,
) -> Layout:
    """Decides which columns are the data and what they mean.

    Options that are not told here are those of ``prepare``.

    Arguments:
        schema: Arrow schema; its metadata may hold ``shape`` and ``levels`` in JSON, that of a
            field ``unit``.
        file: Name of the file for messages.
        split: ``split_column`` of ``prepare``.
        categories: The levels of each of ``columns``, None of one of numbers; None: columns of
            text are of categories whose levels are still to be read.

    Raises:
        BadInput: If the choice or a type does not make a data set.
    """
    _check_names(schema.names, file)
    label, split, given = _beside(schema, file, label, split, context)
    taken = {label: "the classes (label)", split: "names of splits (split_column)"}
    taken |= dict.fromkeys(given.names, "a context")
    found, index = _candidates(schema, file, taken) if columns is None else (columns, ())
    if given.names and set(found) <= set(taken):
        raise BadInput(
            f"{file}: found all of {_listed(schema.names)} taken from the data, expected some "
            "left: choose others by context"
        )
    fields = _fields(schema, file, "columns", found, taken, "features")
    if categories is None:
        categories = [() if _is_category(field.type) else None for field in fields]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    numbers = [f for f, known in zip(fields, categories, strict=True) if known is None]
    dtype = _array_type(fields[0], file) if array else _tabular_type(numbers, file, timestamps)
    where = f"{file}, schema metadata"
    told = _told(schema, where)
    times = timestamps if any(_is_time(field.type) for field in numbers) else None
    return Layout(
        _columns(fields, file, categories, times),
        _shape(told, where, fields[0].type.list_size if array else width(categories)),
        dtype,
        _grey_levels(told, where, dtype),
        remarks=tuple(_remarks(index, numbers, timestamps)),
        label=label,
        split=split,
        given=given,
    )


def _beside(
    schema: pa.Schema, file: str, label: str | None, split: str | None, context: Sequence[str]
) -> tuple[str | None, str | None, Columns]:
    """Returns the columns of classes, of splits and of context, after checking them."""
    if LABEL in context and label is None and LABEL in schema.names:
        label = LABEL if pa.types.is_integer(schema.field(LABEL).type) else None
    if label is not None and LABEL not in schema.names:
        context = [label if name == LABEL else name for name in context]
    if label is not None and label in context:
        _check_beside(schema, file, "label", label, "classes (integers or text)", _is_class)
    elif label is not None:
        _check_beside(schema, file, "label", label, "integer classes", pa.types.is_integer)
    if split is not None:
        _check_beside(schema, file, "split_column", split, "names of splits", _names_splits)
    elif COLUMN in schema.names and _names_splits(schema.field(COLUMN).type):
        split = COLUMN
    taken = {split: "names of splits (split_column)"}
    fields = _fields(schema, file, "context", context, taken, "data")
    return label, split, _given(fields, file, label)


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
        raise BadInput(f"{file}, column {name}: found {type_name(found)}, expected {what}")


def _fields(
    schema: pa.Schema,
    file: str,
    option: str,
    names: Sequence[str],
    taken: Mapping[str | None, str],
    expected: str,
) -> list[pa.Field]:
    """Returns the columns that an option chooses, of those that are not taken."""
    for name, count in Counter(names).items():
        if count > 1:
            raise BadInput(f"{option}: found {name} {count} times, expected once")
        if name not in schema.names:
            raise BadInput(
                f"{file}, column {name}: {ABSENT}, expected one of {_listed(schema.names)}: "
                f"choose others by {option}"
            )
        if name in taken:
            raise BadInput(f"{option}: found {name}, {taken[name]}, expected {expected}")
    if option == "columns" and not names:
        raise BadInput("columns: found no name, expected at least one")
    return [schema.field(name) for name in names]


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


def _columns(
    fields: Sequence[pa.Field], file: str, levels: Levels, timestamps: str | None = None
) -> Columns:
    names, types = tuple(f.name for f in fields), tuple(f.type for f in fields)
    units = tuple(_told(field, f"{file}, column {field.name}").unit for field in fields)
    return Columns(names, types, units, tuple(levels), timestamps)


def _given(fields: Sequence[pa.Field], file: str, label: str | None = None) -> Columns:
    """Returns columns of context; those of text, and that of classes, are of categories."""
    for field in fields:
        if not _is_category(field.type) and not _is_number(field.type):
            raise BadInput(
                f"{file}, column {field.name}: found {type_name(field.type)}, "
                "expected numbers or categories (text) for a context: choose others by context"
            )
    levels = [() if f.name == label or _is_category(f.type) else None for f in fields]
    return _columns(fields, file, levels)


def read_given(schema: pa.Schema, names: Sequence[str], levels: Levels, *, file: str) -> Columns:
    """Returns the columns that a flow is given, with its levels.

    Raises:
        BadInput: If one is missing, or of another kind.
    """
    if missing := [name for name in names if name not in schema.names]:
        raise BadInput(
            f"{file}, column {missing[0]}: {ABSENT}, expected those of the context, "
            f"{', '.join(names[:12])}, among {', '.join(schema.names[:12])}"
        )
    given = _given([schema.field(name) for name in names], file)
    check_kinds(given, levels, label=file)
    return replace(given, levels=levels)


def check_kinds(given: Columns, levels: Levels, *, label: str) -> None:
    """Raises BadInput at text where a flow takes numbers."""
    for name, kind, known in zip(given.names, given.types, levels, strict=True):
        if known is None and _is_category(kind):
            raise BadInput(f"{label}, column {name}: found text, expected numbers")


def _array_type(field: pa.Field, file: str) -> str:
    value, size = field.type.value_type, field.type.list_size
    if value not in LISTED or size < 1:
        raise BadInput(
            f"{file}, column {field.name}: found a fixed-size list of {size} {value}, "
            "expected one or more uint8, float or double"
        )
    return LISTED[value]


def _tabular_type(fields: Sequence[pa.Field], file: str, timestamps: str | None) -> str:
    """Returns the dtype of columns of numbers, among which timestamps may be."""
    for field in fields:
        if not _is_number(field.type) and not (timestamps and _is_time(field.type)):
            kind = "nested " if pa.types.is_nested(field.type) else ""
            hints = [ADVICE, *(told for is_it, told in CONVERSIONS if is_it(field.type))]
            raise BadInput(
                f"{file}, column {field.name}: found {kind}{type_name(field.type)}, "
                f"expected a number, or one fixed-size list: {', '.join(hints)}"
            )
    return np.result_type(*(_dtype(field.type) for field in fields), np.float32).name


def _dtype(kind: pa.DataType) -> np.dtype:
    """Returns NumPy's type of a number or a time; ``to_pandas_dtype`` would import pandas."""
    if _is_time(kind):
        return np.dtype("float64")
    letter = (
        "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    )
    return np.dtype(f"{letter}{-(-kind.bit_width // 8)}")


def _remarks(
    index: Sequence[str], fields: Sequence[pa.Field], timestamps: str | None
) -> Iterator[str]:
    """Yields what was left out, and how columns that hold no reals are read."""
    for name in index:
        yield f"column {name} is the index of a pandas frame and was left out"
    kinds = (
        (pa.types.is_integer, "integers", "numbers"),
        (pa.types.is_boolean, "booleans", "0 and 1"),
        (_is_time, "times", f"{timestamps} since 1970"),
    )
    for is_kind, held, told in kinds:
        names = [field.name for field in fields if is_kind(field.type)]
        if names:
            yield f"{several(names, 'holds', 'hold')} {held}, read as {told}"


def same_layout(first: Layout, other: Layout, *, first_file: str, file: str) -> None:
    """Raises BadInput unless two files of a folder hold the same columns and shapes."""
    expected, found = _facts(first), _facts(other)
    for key in sorted(expected.keys() | found.keys()):
        one, two = expected.get(key, ABSENT), found.get(key, ABSENT)
        if one != two:
            raise BadInput(f"{file}, {key}: found {two}, expected {one} as in {first_file}")


def _facts(layout: Layout) -> dict[str, object]:
    found = {} if layout.split is None else {f"column {layout.split}": "names of splits"}
    for columns in (layout.data, layout.given):
        for name, kind, unit in zip(columns.names, columns.types, columns.units, strict=True):
            found[f"column {name}"] = type_name(kind) + f" in {unit}" * bool(unit)
    told = {"shape": layout.shape, "levels": layout.levels}
    return found | {f"schema metadata {key}": value for key, value in told.items()}


class _Metadata(BaseModel):
    """What the metadata of a schema or of a field may say; other keys are left alone."""

    model_config = ConfigDict(strict=True)

    shape: Json[Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] | None = None
    levels: Json[Annotated[int, Field(ge=2, le=256)]] | None = None
    unit: Annotated[str, Field(max_length=60, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")] | None = None


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


def _shape(told: _Metadata, where: str, width: int) -> tuple[int, ...]:
    if told.shape and math.prod(told.shape) != width:
        raise BadInput(
            f"{where}, key 'shape': found {told.shape} with {math.prod(told.shape)} values, "
            f"expected {width} as in the data"
        )
    return told.shape or (width,)


def _grey_levels(told: _Metadata, where: str, dtype: str) -> int | None:
    if dtype == "uint8":
        return told.levels or 256
    if told.levels is not None:
        raise BadInput(
            f"{where}, key 'levels': found {told.levels} with {dtype} data, expected none but of "
            "uint8 lists"
        )
    return None


def levels_of(
    names: Sequence[str],
    batches: Iterable[pa.RecordBatch],
    training: np.ndarray | None = None,
    *,
    label: str,
    option: str,
) -> dict[str, tuple[str, ...]]:
    """Returns the levels of columns by their names: in the order of text, or of numbers.

    Arguments:
        names: The columns.
        batches: Record batches of them.
        training: Which of all rows count, with shape (N,); None: all.
        label: Name of the source for messages.
        option: The option that chooses such columns.

    Raises:
        BadInput: If a column has no level, one alone, or more than ``MOST``.
    """
    seen, start = {name: set() for name in names}, 0
    for batch in batches:
        if training is not None:
            start, mine = start + len(batch), training[start : start + len(batch)]
            batch = batch.filter(pa.array(mine))
        for name, known in seen.items():
            known.update(pc.unique(_as_text(batch.column(name))).drop_null().to_pylist())
            if len(known) > MOST:
                raise BadInput(
                    f"{label}, column {name}: found more than {MOST} levels "
                    f"({min(known)[:40]!r}, …), expected fewer, as of categories: choose others "
                    f"by {option}, or merge levels"
                )
    for name, known in seen.items():
        if len(known) < 2:
            found = f"the level {min(known)[:40]!r} alone" if known else "no value"
            rows = "rows" if training is None else "training rows"
            raise BadInput(
                f"{label}, column {name}: found {found} in the {rows}, expected two levels or "
                f"more: choose others by {option}"
            )
    return {name: _ordered(known) for name, known in seen.items()}


def _ordered(levels: set[str]) -> tuple[str, ...]:
    whole = all(level.removeprefix("-").isdecimal() for level in levels)
    return tuple(sorted(levels, key=int if whole else None))


def _one_of(levels: Sequence[str]) -> str:
    """Returns what is expected of a value, in a message."""
    more = f" … ({len(levels)} in all)" if len(levels) > 8 else ""
    return f"a level of the training rows: {', '.join(levels[:8])}{more}"


def _as_text(column: pa.Array) -> pa.Array:
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return values.cast(pa.string())


def lookup(
    column: pa.Array, numbers: Callable[[list[str]], Sequence[float]], null: float
) -> np.ndarray:
    """Returns numbers of a column's values with shape (B,), computed once a distinct text."""
    encoded = _as_text(column).dictionary_encode()
    found = np.array([*numbers(encoded.dictionary.to_pylist()), null])
    return found[encoded.indices.fill_null(-1).to_numpy()]


def _codes(column: pa.Array, levels: Sequence[str]) -> np.ndarray:
    """Returns numbers of levels with shape (B,), NaN of nulls, ∞ of what is no level."""
    found = lookup(column, lambda values: coded(values, levels), np.nan)
    return np.where(found == -1, np.inf, found)


def _numbers(column: pa.Array, unit: str | None) -> np.ndarray:
    """Returns a column as numbers, a null as NaN; times in a unit since 1970."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not _is_time(column.type):
        return column.to_numpy(zero_copy_only=False)
    micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.int64()).to_numpy(zero_copy_only=False) / (TIMES[unit] * 1e6)


def times(values: np.ndarray, kind: pa.DataType, unit: str) -> pa.Array:
    """Returns numbers (N,) in a unit since 1970 as timestamps or dates of a type."""
    whole = np.round(values * (TIMES[unit] * 1e6)).astype(np.int64)
    ours = pa.timestamp("us", tz=getattr(kind, "tz", None))
    return pa.array(whole).cast(ours).cast(kind, safe=False)


def as_matrix(batch: pa.RecordBatch, layout: Layout, place: Place) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Raises:
        BadInput: At a null, NaN, infinite or too large value, or one that is no level; names the
            row and column.
    """
    if not layout.array:
        stored = layout.data.stored(batch, place, layout.dtype)
        return expanded(stored, layout.data.levels).astype(layout.dtype, copy=False)
    lists, name, grey = batch.column(layout.columns[0]), layout.columns[0], layout.levels
    for row in np.flatnonzero(lists.is_null())[:1].tolist():
        raise place.bad(row, name, None, f"a list of {layout.width}")
    found = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), layout.width)
    if bad := place.first_bad(found, grey):
        row, k, lacking = bad
        expected = "a finite number" if grey is None else f"0 … {grey - 1}"
        raise place.bad(row, f"{name}[{k}]", lists[row].as_py()[k], expected + lacking)
    return found


def as_labels(batch: pa.RecordBatch, name: str, place: Place) -> np.ndarray:
    """Returns the classes in a column of a batch, with shape (B,), after checking every value.

    Raises:
        BadInput: At a null, or a number that is not 0 … 9999; names the row.
    """
    column = batch.column(name)
    labels = column.to_numpy(zero_copy_only=False)
    bad = ~((labels >= 0) & (labels < CLASSES))
    for row in np.flatnonzero(bad)[:1].tolist():
        raise place.bad(row, name, column[row].as_py(), f"a class 0 … {CLASSES - 1}")
    return labels.astype(np.int64)


def lacks(batch: pa.RecordBatch, layout: Layout, place: Place) -> np.ndarray:
    """Returns which rows of a batch lack a feature or a context, null or NaN; shape (B,)."""
    names, found = layout.given.names, np.zeros(len(batch), bool)
    if layout.array:
        found |= np.isnan(as_matrix(batch, layout, place._replace(lacking=None))).any(1)
    else:
        names = (*layout.columns, *names)
    for name in names:
        missing = pc.is_null(batch.column(name), nan_is_null=True)
        found |= missing.to_numpy(zero_copy_only=False)
    return found


def several(names: Sequence[str], one: str, more: str) -> str:
    """Returns "column a holds" or "columns a, b, c and 7 more hold", by the verbs."""
    if len(names) == 1:
        return f"column {names[0]} {one}"
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"columns {', '.join(names[:3])}{rest} {more}"


def _listed(names: Sequence[str]) -> str:
    """Returns names, twelve at most."""
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")


def type_name(kind: pa.DataType) -> str:
    """Returns the name of a type, sixty characters at most."""
    text = " ".join(str(kind).split())
    return text if len(text) <= 60 else text[:57] + "..."


def first_error(error: ValidationError) -> str:
    """Returns the end of a line on the first thing wrong; if that is a version, on that alone."""
    found = error.errors(include_url=False, include_context=False)
    told = next((one for one in found if one["loc"] == ("version",)), found[0])
    expected = re.sub("^Input should", "expected it to", told["msg"])
    if not told["loc"]:
        return f": found no manifest of a data set ({expected})"
    value = "" if told["type"] == "missing" else f"found {short(told['input'])}, "
    return f", key {'.'.join(map(str, told['loc']))[:60]!r}: {value}{expected}"


def short(value: object) -> str:
    """Returns a value in JSON, sixty characters at most."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def damage(
    path: str | Path,
    column: str = "x",
    first: int = 0,
    kind: str = "Parquet",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turns Arrow's errors, and others, while reading a file from a row on, into one BadInput."""
    try:
        yield
        return
    except BadInput:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, *also) as error:
        text = " ".join(str(error).split())
    # Arrow finds a null where a fixed-size list is expected, and counts it from 1.
    if found := re.search(r"lists to be of size=(\d+) but index (\d+) had size=0", text):
        place, expected = Place(str(path), first), f"a list of {found[1]}"
        raise place.bad(int(found[2]) - 1, column, None, expected)
    raise BadInput(f"{path}: found a damaged file or none of {kind} ({text[:200]})")
