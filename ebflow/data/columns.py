"""Which columns of a Parquet schema are the data."""

__all__ = ["ADVICE", "choose_columns"]

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ebflow.errors import BadInput

ADVICE = "choose columns with --data.columns"


def choose_columns(
    schema: pa.Schema, *, file: str, columns: Sequence[str] | None, label: str | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the names of the columns to read, and warnings about those left out.

    Arguments:
        schema: Arrow schema of the file.
        file: Name of the file for messages.
        columns: The user's choice; None takes the one fixed-size list (or the one called
            ``image``), else every column but the index of a pandas frame.
        label: The column of classes, which is none of the data.

    Raises:
        BadInput: If names repeat, or the choice is not in the schema or not unique.
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
            f"{_listed(schema.names)}: choose it with --data.label"
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise BadInput(
            f"{file}, column {label}: found {schema.field(label).type}, expected integer classes"
        )
    if columns is not None and label in columns:
        raise BadInput(f"data.columns: found {label}, the classes (data.label), expected features")


def _chosen(schema: pa.Schema, file: str, columns: list[str]) -> list[str]:
    if not columns:
        raise BadInput("data.columns: found no name, expected at least one")
    for name, count in Counter(columns).items():
        if count > 1:
            raise BadInput(f"data.columns: found {name} {count} times, expected once")
        if name not in schema.names:
            raise BadInput(
                f"{file}, column {name}: no such column, expected one of {_listed(schema.names)}"
            )
    return columns


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")
