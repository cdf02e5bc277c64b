"""What the columns of a Parquet schema mean: one array a row, or one feature a column."""

__all__ = ["Layout", "read_layout", "same_layout"]

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ebflow.data.columns import ADVICE, choose_columns
from ebflow.errors import BadInput

VALUES = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}


@dataclass(frozen=True)
class Layout:
    """How a record batch becomes a matrix of D features a row.

    Arguments:
        columns: The columns to read: one fixed-size list, or D scalar columns.
        types: Their Arrow types.
        array: Whether the one column is a fixed-size list.
        shape: Shape of an example; its product is D.
        dtype: dtype of the matrix: ``uint8``, ``float32`` or ``float64``.
        levels: Number of levels of uint8 data, None if continuous.
        warnings: What a user should know about this reading of the columns.
        label: The column of classes, None of data without.
    """

    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    array: bool
    shape: tuple[int, ...]
    dtype: str
    levels: int | None
    warnings: tuple[str, ...] = ()
    label: str | None = None

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
    names, dropped = choose_columns(schema, file=file, columns=columns, label=label)
    fields = [schema.field(name) for name in names]
    array = pa.types.is_fixed_size_list(fields[0].type) and len(fields) == 1
    dtype, width = _array_type(fields[0], file) if array else _tabular_type(fields, file)
    return Layout(
        columns=tuple(names),
        types=tuple(field.type for field in fields),
        array=array,
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
