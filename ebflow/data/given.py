"""Columns of a source that are context: which they are, their levels, their checked values."""

__all__ = ["Given", "as_given", "check_kinds", "lacks", "levels_of", "read_given"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadInput
from . import Levels, categories
from .categories import NUMBERS, is_text
from .messages import named


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
                f"{file}, column {field.name}: found {named(field.type)}, "
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
    """Returns the levels of every column among training rows, None of those of numbers.

    Arguments and errors as of ``categories.levels_of``.
    """
    seen = categories.levels_of(given.categories, batches, label=label, option="context")
    return tuple(seen.get(name) for name in given.names)


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
        found[:, j] = _numbers(column) if known is None else categories.codes(column, known)
        bad = ~np.isfinite(found[:, j]) if known is None else found[:, j] < 0
        for row in np.flatnonzero(bad if used is None else bad & used)[:1].tolist():
            value = column[row].as_py()
            told = "null" if value is None else repr(value[:60] if _texts(value) else value)
            raise BadInput(
                f"{file}, row {first + row}, column {name}: found {told}, expected "
                f"{'a finite number' if known is None else categories.one_of(known)}"
            )
    return found


def _numbers(column: pa.Array) -> np.ndarray:
    whole = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
    return whole.to_numpy(zero_copy_only=False)


def _texts(value: object) -> bool:
    return isinstance(value, str)
