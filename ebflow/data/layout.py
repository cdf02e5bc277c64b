"""What the columns of a Parquet schema mean: which are data, which stand beside them.

A row is one fixed-size list, such as an image, or D features: one of each column of numbers, and
one of each level of a column of categories.
"""

__all__ = ["LABEL", "Layout", "is_time", "read_layout", "same_layout", "unit"]

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, ValidationError

from ..errors import BadInput
from . import Levels, groups, titles, width
from .categories import NUMBERS, is_text
from .given import Given, read_given
from .manifest import first_error
from .messages import listed, named
from .splits import COLUMN, names_splits

VALUES = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}

ADVICE = "choose others by columns"


def is_time(kind: pa.DataType) -> bool:
    """Whether a type is a timestamp or a date."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (is_time, "or data.timestamps seconds, which reads numbers"),
    (pa.types.is_temporal, "or make numbers of it, as t.dt.total_seconds()"),
    (pa.types.is_decimal, "or cast it to double"),
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
        columns: The columns to read: one fixed-size list, or columns of numbers and categories.
        types: Their Arrow types.
        units: Their units by the metadata of their fields, None where these name none.
        categories: Of each the levels, None of one of numbers; none where they are still to be
            read.
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
    categories: Levels
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
    def unread(self) -> tuple[str, ...]:
        """The names of the columns of categories whose levels are still to be read."""
        pairs = zip(self.columns, self.categories, strict=True)
        return tuple(name for name, known in pairs if known is not None and not known)

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def features(self) -> list[str]:
        """The names of the features, as ``age`` and ``region=north``; of a list ``image[0]``."""
        if self.array:
            return [f"{self.columns[0]}[{k}]" for k in range(self.width)]
        return titles(self.columns, self.categories)

    @property
    def groups(self) -> tuple[int, ...]:
        """For each feature the number of its column of categories, −1 of one of numbers."""
        return (-1,) * self.width if self.array else groups(self.categories)

    def feature(self, index: int) -> str:
        """Names feature ``index`` in a message: ``column image[3]`` or ``column age``."""
        return f"column {self.features[index]}"

    def column(self, feature: int) -> int:
        """Returns the number of the column that a feature is of."""
        sizes = [1 if known is None else len(known) for known in self.categories]
        return int(np.searchsorted(np.cumsum(sizes), feature, side="right"))

    def told(self, levels: Mapping[str, Sequence[str]]) -> "Layout":
        """Returns the layout with the levels of the columns of categories that were unread."""
        pairs = list(zip(self.columns, self.categories, strict=True))
        known = tuple(levels.get(name, old) for name, old in pairs)
        lines = (
            f"column {name} holds categories and is read as {len(found)} features, one of each "
            "level, dequantised by uniform noise"
            for name, found in levels.items()
        )
        lines = (*self.warnings, *lines)
        return replace(self, categories=known, shape=(width(known),), warnings=lines)


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
        categories: The levels of each of ``columns``, None of one of numbers; None: columns of
            text are of categories whose levels are still to be read.

    Raises:
        BadInput: If the choice or a type does not make a data set.
    """
    _check_names(schema.names, file)
    beside = _beside(schema, file, label, split, context)
    fields, index = _features(schema, file, columns, beside)
    if categories is None:
        categories = [() if is_text(field.type) else None for field in fields]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    numbers = [f for f, known in zip(fields, categories, strict=True) if known is None]
    dtype = _array_type(fields[0], file) if array else _tabular_type(numbers, file, timestamps)
    where = f"{file}, schema metadata"
    told = _told(schema, where)
    times = [field.name for field in numbers if is_time(field.type)]
    return Layout(
        columns=tuple(field.name for field in fields),
        types=tuple(field.type for field in fields),
        units=tuple(unit(field, file) for field in fields),
        categories=tuple(categories),
        shape=_shape(told, where, fields[0].type.list_size if array else width(categories)),
        dtype=dtype,
        levels=_levels(told, where, dtype),
        warnings=(*_left_out(index), *_read_as(numbers, timestamps)),
        timestamps=timestamps if times else None,
        **beside,
    )


def _beside(
    schema: pa.Schema, file: str, label: str | None, split: str | None, context: Sequence[str]
) -> dict[str, Any]:
    """Returns the columns of classes, of splits and of context, after checking them."""
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
    return {"label": label, "split": split, "given": given}


def _features(
    schema: pa.Schema, file: str, columns: Sequence[str] | None, beside: Mapping[str, Any]
) -> tuple[list[pa.Field], Sequence[str]]:
    """Returns the fields of the data, and the columns of an index that were left out."""
    given = beside["given"].names
    taken = {beside["label"]: "the classes (label)"}
    taken |= {beside["split"]: "names of splits (split_column)"}
    taken |= dict.fromkeys(given, "a context")
    found, index = _candidates(schema, file, taken) if columns is None else (columns, ())
    if given and set(found) <= set(taken):
        raise BadInput(
            f"{file}: found all of {listed(schema.names)} taken from the data, expected some "
            "left: choose others by context"
        )
    return [schema.field(name) for name in _chosen(schema, file, found, taken)], index


def _left_out(index: Sequence[str]) -> Iterator[str]:
    for name in index:
        yield f"column {name} is the index of a pandas frame and was left out"


def _read_as(fields: Sequence[pa.Field], timestamps: str | None) -> Iterator[str]:
    """Yields how columns that hold no reals are read."""
    for field in fields:
        if pa.types.is_integer(field.type):
            yield f"column {field.name} holds integers ({field.type}) and is read as continuous"
        elif pa.types.is_boolean(field.type):
            yield f"column {field.name} holds booleans and is read as 0 and 1"
        elif is_time(field.type):
            yield f"column {field.name} holds times and is read as {timestamps} since 1970"


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
    found = {f"column {n}": named(kind) + f" in {u}" * bool(u) for n, kind, u in columns}
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
            f"{listed(schema.names)}: choose another by {option}"
        )
    if not right(found := schema.field(name).type):
        raise BadInput(f"{file}, column {name}: found {named(found)}, expected {what}")


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
                f"{file}, column {name}: {ABSENT}, expected one of {listed(schema.names)}: "
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
            f"{file}: found {len(arrays)} fixed-size lists ({listed(arrays)}), "
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
                f"{file}, column {name}: {ABSENT}, expected one of {listed(schema.names)}"
            )
        if name in beside:
            raise BadInput(f"columns: found {name}, {beside[name]}, expected features")
    return columns


def _array_type(field: pa.Field, file: str) -> str:
    value, size = field.type.value_type, field.type.list_size
    if value not in VALUES or size < 1:
        raise BadInput(
            f"{file}, column {field.name}: found a fixed-size list of {size} {value}, "
            "expected one or more uint8, float or double"
        )
    return VALUES[value]


def _tabular_type(fields: Sequence[pa.Field], file: str, timestamps: str | None) -> str:
    """Returns the dtype of columns of numbers, among which timestamps may be."""
    for field in fields:
        if timestamps and is_time(field.type):
            continue
        if not any(number(field.type) for number in NUMBERS):
            kind = "nested " if pa.types.is_nested(field.type) else ""
            hints = [ADVICE, *(told for is_it, told in CONVERSIONS if is_it(field.type))]
            raise BadInput(
                f"{file}, column {field.name}: found {kind}{named(field.type)}, "
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


def _shape(told: "_Metadata", where: str, width: int) -> tuple[int, ...]:
    if told.shape and math.prod(told.shape) != width:
        raise BadInput(
            f"{where}, key 'shape': found {told.shape} with {math.prod(told.shape)} values, "
            f"expected {width} as in the data"
        )
    return told.shape or (width,)


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
