"""What the columns of a source mean: which are the data, and what stands beside them.

A row is one fixed-size list, such as an image, or D columns of numbers and of categories, as the
codes of their levels. Beside it stand its class, the name of its split, and its context.
"""

__all__ = ["COLUMN", "Columns", "Layout", "check_kinds", "read_given", "read_layout",
           "same_layout"]  # fmt: skip

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, ValidationError

from ebflow.errors import BadInput
from ebflow.tables.levels import Levels
from pipelines.data.formats import (
    LABEL,
    is_category,
    is_number,
    is_text,
    is_time,
    level_numbers,
    numbers,
)
from pipelines.data.messages import Place, first_error, listed, several, type_name

COLUMN = "split"
"""The column that names the split of each row, if it holds text."""

LISTED = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}
"""What a fixed-size list may hold, and the dtype of its rows."""

ADVICE, ABSENT = "choose others by columns", "no such column"


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

    def with_levels(self, levels: Mapping[str, Sequence[str]]) -> "Columns":
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
            read, by = (level_numbers, known) if known else (numbers, self.timestamps)
            found[:, k] = read(batch.column(name), by)
        if bad := place.first_bad(found):
            row, k, lacking = bad
            expected = "a finite number"
            if known := self.levels[k]:
                expected = f"a level of the training rows: {listed(known, 8)}"
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
        """The names of the features, as ``age``; of a list ``image[0]``."""
        if self.array:
            return [f"{self.columns[0]}[{k}]" for k in range(self.width)]
        return list(self.columns)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The remarks, and how categories are read."""
        pairs = zip(self.columns, self.data.levels, strict=True)
        lines = (
            f"column {name} holds categories and is read as the codes 0 … {len(known) - 1} of its "
            "levels, dequantized by uniform noise"
            for name, known in pairs
            if known is not None
        )
        return (*self.remarks, *lines)


def _is_class(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or is_category(kind)


def _names_splits(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (is_time, "or data.timestamps seconds, which reads numbers"),
    (pa.types.is_temporal, "or make numbers of it, as t.dt.total_seconds()"),
    (pa.types.is_decimal, "or cast it to double"),
    (pa.types.is_list, "or cast it to a fixed-size list"),
    (pa.types.is_binary, "or make text of it, in UTF-8"),
)
"""How columns that are no numbers are converted, by what they are."""


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
    if not schema.names:
        raise BadInput(f"{file}: found no column, expected at least one")
    asked = {*(columns or ()), label, split, *context, COLUMN, LABEL}
    _check_names([n for n in schema.names if columns is None or n in asked], file)
    label, split, given = _beside(schema, file, label, split, context)
    taken = {label: "the classes (label)", split: "names of splits (split_column)"}
    taken |= dict.fromkeys(given.names, "a context")
    found, index = _candidates(schema, file, taken) if columns is None else (columns, ())
    if given.names and set(found) <= set(taken):
        raise BadInput(
            f"{file}: found all of {listed(schema.names)} taken from the data, expected some "
            "left: choose others by context"
        )
    fields = _fields(schema, file, "columns", found, taken, "features")
    if categories is None:
        categories = [() if is_category(field.type) else None for field in fields]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    numbers = [f for f, known in zip(fields, categories, strict=True) if known is None]
    dtype = _array_type(fields[0], file) if array else _tabular_type(numbers, file, timestamps)
    where = f"{file}, schema metadata"
    metadata = _metadata(schema, where)
    times = timestamps if any(is_time(field.type) for field in numbers) else None
    return Layout(
        _columns(fields, file, categories, times),
        _shape(metadata, where, fields[0].type.list_size if array else len(fields)),
        dtype,
        _grey_levels(metadata, where, dtype),
        remarks=(*_remarks(index, numbers, timestamps), *_of_splits(schema, split)),
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
    """Raises BadInput at a name that is asked for and is none, or not the only one."""
    for name, count in Counter(names).items():
        if not name.isprintable() or not name:
            raise BadInput(
                f"{file}, column {name!r}: expected a name of printable characters: {ADVICE}, or "
                "write the file without its index, df.to_csv(path, index=False)"
            )
        if count > 1:
            raise BadInput(f"{file}, column {name}: found {count} of this name, expected one")


def _check_beside(
    schema: pa.Schema, file: str, option: str, name: str, what: str, right: Callable
) -> None:
    """Raises BadInput unless an option names a column of the right type beside the features."""
    if name not in schema.names:
        raise BadInput(
            f"{file}, column {name}: {ABSENT}, expected one with {what} of "
            f"{listed(schema.names)}: choose another by {option}"
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
                f"{file}, column {name}: {ABSENT}, expected one of {listed(schema.names)}: "
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
            f"{file}: found {len(arrays)} fixed-size lists ({listed(arrays)}), "
            f"expected one: {ADVICE}"
        )
    index = [name for name in schema.names if name.startswith("__index_level_")]
    names = [name for name in schema.names if name not in (*index, *beside)]
    return (names, index) if names else (schema.names, [])


def _columns(
    fields: Sequence[pa.Field], file: str, levels: Levels, timestamps: str | None = None
) -> Columns:
    names, types = tuple(f.name for f in fields), tuple(f.type for f in fields)
    units = tuple(_metadata(field, f"{file}, column {field.name}").unit for field in fields)
    return Columns(names, types, units, tuple(levels), timestamps)


def _given(fields: Sequence[pa.Field], file: str, label: str | None = None) -> Columns:
    """Returns columns of context; those of text, and that of classes, are of categories."""
    for field in fields:
        if not is_category(field.type) and not is_number(field.type):
            raise BadInput(
                f"{file}, column {field.name}: found {type_name(field.type)}, "
                "expected numbers or categories (text) for a context: choose others by context"
            )
    levels = [() if f.name == label or is_category(f.type) else None for f in fields]
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
        if known is None and is_category(kind):
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
        if not is_number(field.type) and not (timestamps and is_time(field.type)):
            kind = "nested " if pa.types.is_nested(field.type) else ""
            hints = [ADVICE, *(advice for is_it, advice in CONVERSIONS if is_it(field.type))]
            raise BadInput(
                f"{file}, column {field.name}: found {kind}{type_name(field.type)}, "
                f"expected a number, or one fixed-size list: {', '.join(hints)}"
            )
    return np.result_type(*(_dtype(field.type) for field in fields), np.float32).name


def _dtype(kind: pa.DataType) -> np.dtype:
    """Returns NumPy's type of a number or a time; ``to_pandas_dtype`` would import pandas."""
    if is_time(kind):
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
        (is_time, "times", f"{timestamps} since 1970"),
    )
    for is_kind, held, meaning in kinds:
        names = [field.name for field in fields if is_kind(field.type)]
        if names:
            yield f"{several(names, 'holds', 'hold')} {held}, read as {meaning}"


def _of_splits(schema: pa.Schema, split: str | None) -> Iterator[str]:
    """Yields that a column called as one that names splits does not."""
    if split is None and COLUMN in schema.names:
        yield (
            f"column {COLUMN} holds {type_name(schema.field(COLUMN).type)} and was not used for "
            "the splits, whose names (train, validation, test) are expected of it"
        )


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
    metadata = {"shape": layout.shape, "levels": layout.levels}
    return found | {f"schema metadata {key}": value for key, value in metadata.items()}


class _Metadata(BaseModel):
    """What the metadata of a schema or of a field may say; other keys are left alone."""

    model_config = ConfigDict(strict=True)

    shape: Json[Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] | None = None
    levels: Json[Annotated[int, Field(ge=2, le=256)]] | None = None
    unit: Annotated[str, Field(max_length=60, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")] | None = None


def _metadata(owner: pa.Schema | pa.Field, where: str) -> _Metadata:
    """Returns the metadata of a schema or a field; raises BadInput if they make no sense."""
    found = {k.decode(errors="replace"): v for k, v in (owner.metadata or {}).items()}
    known = {
        k: v.decode(errors="replace") for k, v in found.items() if k in _Metadata.model_fields
    }
    try:
        return _Metadata.model_validate(known)
    except ValidationError as error:
        raise BadInput(f"{where}{first_error(error)}") from None


def _shape(metadata: _Metadata, where: str, width: int) -> tuple[int, ...]:
    if metadata.shape and math.prod(metadata.shape) != width:
        raise BadInput(
            f"{where}, key 'shape': found {metadata.shape} with {math.prod(metadata.shape)} "
            f"values, expected {width} as in the data"
        )
    return metadata.shape or (width,)


def _grey_levels(metadata: _Metadata, where: str, dtype: str) -> int | None:
    if dtype == "uint8":
        return metadata.levels or 256
    if metadata.levels is not None:
        raise BadInput(
            f"{where}, key 'levels': found {metadata.levels} with {dtype} data, expected none but "
            "of uint8 lists"
        )
    return None
