"""What the columns of a source mean, and their checked values as matrices.

A row is one fixed-size list, such as an image, or D features: one of each column of numbers, and
one of each level of a column of categories. Beside it stand its class, the name of its split, and
columns that it is given: its context.
"""

__all__ = ["COLUMN", "DRAWN", "LABEL", "LACKING", "Columns", "Layout", "Place", "as_labels",
           "as_matrix", "damage", "first_error", "is_category", "is_number", "is_text", "is_time",
           "lacks", "levels_of", "listed", "lookup", "several", "short", "times",
           "type_name"]  # fmt: skip

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from ..errors import BadInput
from . import Levels, coded, expanded, titles

COLUMN = "split"
"""The column that names the split of each row, if it holds text."""

LABEL = "label"
"""What a context may call the column of classes, whatever its name; that of a named source."""

MOST = 256
"""Most levels of a column of categories."""

CLASSES = 10_000
"""More classes than any data set is taken to have."""

TIMES = {"seconds": 1.0, "days": 86_400.0}
"""Seconds of the units in which timestamps are read as numbers, from 1970 on."""

LACKING = ", or data.missing: drop leaves such rows out, impute draws what they lack"

DRAWN = ": ebflow impute draws what is missing"
"""What is said behind what is expected in place of a missing entry, of data to train on, or to
score."""


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


def several(names: Sequence[str], one: str, more: str) -> str:
    """Returns "column a holds" or "columns a, b, c and 7 more hold", by the verbs."""
    if len(names) == 1:
        return f"column {names[0]} {one}"
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"columns {', '.join(names[:3])}{rest} {more}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Returns names, some of them if they are many."""
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    if not is_time(column.type):
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
