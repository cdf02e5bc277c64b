"""Columns of a source that are context: which they are, their levels, their checked values."""

__all__ = ["MOST", "Given", "as_given", "check_kinds", "lacks", "levels_of", "read_given"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadInput
from .context import Levels, coded

MOST = 256
"""Most levels of a column of categories."""

NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)


@dataclass(frozen=True)
class Given:
    """Columns of context, in order.

    Arguments:
        names: Their names.
        types: Their Arrow types.
        units: Their units by the metadata of their fields, None where these name none.
        label: The one of them that is the column of classes, if one is.
    """

    names: tuple[str, ...] = ()
    types: tuple[pa.DataType, ...] = ()
    units: tuple[str | None, ...] = ()
    label: str | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of those of categories: text, and the classes."""
        pairs = zip(self.names, self.types, strict=True)
        return tuple(n for n, kind in pairs if n == self.label or is_text(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text, or a dictionary of any values."""
    return any(
        is_it(kind)
        for is_it in (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    )


def read_given(
    schema: pa.Schema,
    names: Sequence[str],
    *,
    file: str,
    units: Sequence[str | None] | None = None,
    label: str | None = None,
) -> Given:
    """Returns the columns of context; arguments as in ``Given``.

    Raises:
        BadInput: If one is missing, or no column of numbers or categories.
    """
    if missing := [name for name in names if name not in schema.names]:
        raise BadInput(
            f"{file}, column {missing[0]}: no such column, expected those of the context, "
            f"{', '.join(names[:12])}, among {', '.join(schema.names[:12])}"
        )
    fields = [schema.field(name) for name in names]
    for field in fields:
        if not is_text(field.type) and not any(is_it(field.type) for is_it in NUMBERS):
            raise BadInput(
                f"{file}, column {field.name}: found {' '.join(str(field.type).split())[:60]}, "
                "expected numbers or categories (text) for a context: choose others by context"
            )
    units = tuple(units) if units else (None,) * len(fields)
    return Given(tuple(names), tuple(f.type for f in fields), units, label)


def check_kinds(given: Given, levels: Levels, *, label: str) -> None:
    """Raises BadInput at text where a flow takes numbers."""
    for name, kind, known in zip(given.names, given.types, levels, strict=True):
        if known is None and is_text(kind):
            raise BadInput(f"{label}, column {name}: found text, expected numbers")


def levels_of(
    given: Given, batches: Iterable[tuple[pa.RecordBatch, np.ndarray]], *, label: str
) -> Levels:
    """Returns the levels of every column among training rows: in the order of text, or of numbers.

    Arguments:
        given: The columns.
        batches: Record batches of the columns of categories, each with which of its rows are
            training rows, with shape (B,).
        label: Name of the source for messages.

    Raises:
        BadInput: If a column has no level, one alone, or more than ``MOST``.
    """
    seen: dict[str, set[str]] = {name: set() for name in given.categories}
    for batch, training in batches:
        for name, known in seen.items():
            found = as_text(batch.column(name).filter(pa.array(training)))
            known.update(value for value in pc.unique(found).to_pylist() if value is not None)
            _check_few(name, known, label)
    for name, known in seen.items():
        _check_several(name, known, label)
    return tuple(_ordered(seen[name]) if name in seen else None for name in given.names)


def as_text(column: pa.Array) -> pa.Array:
    """Returns a column's values as text, null where they are null."""
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return values.cast(pa.string())


def _ordered(levels: set[str]) -> tuple[str, ...]:
    whole = all(level.removeprefix("-").isdecimal() for level in levels)
    return tuple(sorted(levels, key=int if whole else None))


def _check_few(name: str, levels: set[str], label: str) -> None:
    if len(levels) > MOST:
        raise BadInput(
            f"{label}, column {name}: found more than {MOST} levels ({sorted(levels)[0][:40]!r}, "
            "…), expected fewer, as of categories: choose others by context, or merge levels"
        )


def _check_several(name: str, levels: set[str], label: str) -> None:
    if len(levels) < 2:
        found = f"the level {min(levels)[:40]!r} alone" if levels else "no value"
        raise BadInput(
            f"{label}, column {name}: found {found} in the training rows, expected two levels or "
            "more: choose others by context"
        )


def lacks(batch: pa.RecordBatch, given: Given) -> np.ndarray:
    """Returns which rows of a batch lack a value of their context, with shape (B,)."""
    found = np.zeros(len(batch), bool)
    for name in given.names:
        found |= pc.is_null(batch.column(name), nan_is_null=True).to_numpy(zero_copy_only=False)
    return found


def as_given(
    batch: pa.RecordBatch,
    given: Given,
    levels: Levels,
    *,
    file: str,
    first: int,
    used: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the contexts of a batch, with shape (B, K), after checking every value.

    Those of categories are the numbers of their levels.

    Arguments:
        batch: B rows that hold at least the columns of context.
        given: The columns.
        levels: Their levels.
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.
        used: The rows whose values are checked, with shape (B,); None: all.

    Raises:
        BadInput: At a null, a number that is not finite, or no level; names the row and column.
    """
    found = np.empty((len(batch), len(given.names)))
    for j, (name, known) in enumerate(zip(given.names, levels, strict=True)):
        column = batch.column(name)
        found[:, j] = _numbers(column) if known is None else _codes(column, known)
        bad = ~np.isfinite(found[:, j]) if known is None else found[:, j] < 0
        for row in np.flatnonzero(bad if used is None else bad & used)[:1].tolist():
            value = column[row].as_py()
            told = "null" if value is None else repr(value[:60] if _texts(value) else value)
            raise BadInput(
                f"{file}, row {first + row}, column {name}: found {told}, expected "
                f"{_expected(known)}"
            )
    return found


def _numbers(column: pa.Array) -> np.ndarray:
    whole = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
    return whole.to_numpy(zero_copy_only=False)


def _codes(column: pa.Array, levels: Sequence[str]) -> np.ndarray:
    """Returns numbers of levels, −1 of nulls and of what is no level."""
    encoded = as_text(column).dictionary_encode()
    numbers = np.append(coded(encoded.dictionary.to_pylist(), levels), -1.0)
    places = encoded.indices.to_numpy(zero_copy_only=False)  # of a null NaN
    return numbers[np.nan_to_num(places, nan=-1).astype(int)]


def _texts(value: object) -> bool:
    return isinstance(value, str)


def _expected(levels: Sequence[str] | None) -> str:
    if levels is None:
        return "a finite number"
    more = f" … ({len(levels)} in all)" if len(levels) > 8 else ""
    return f"a level of the training rows: {', '.join(levels[:8])}{more}"
