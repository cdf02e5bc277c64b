"""From record batches to matrices whose every value has been checked."""

__all__ = ["DRAWN", "LACKING", "as_labels", "as_matrix", "times"]

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from .categories import codes, one_of
from .layout import Layout, is_time
from .messages import found_at

CLASSES = 10_000
"""More classes than any data set is taken to have."""

TIMES = {"seconds": 1.0, "days": 86_400.0}
"""Seconds of the units in which timestamps are read as numbers, from 1970 on."""

LACKING = ", or data.missing: drop leaves such rows out, impute draws what they lack"
DRAWN = ": ebflow impute draws what is missing"
"""What is said behind what is expected in place of a missing entry, of data to train on, or to
score."""


def as_matrix(
    batch: pa.RecordBatch, layout: Layout, *, file: str, first: int, lacking: str | None = ""
) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Arguments:
        batch: B rows that hold at least the columns of the layout.
        layout: Which columns to read.
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.
        lacking: What is said of a null or NaN of real data, behind what is expected; None: it is
            taken, as NaN.

    Raises:
        BadInput: At a null, NaN, infinite or too large value, or one that is no level; names the
            row and column.
    """
    matrix = _matrix(batch, layout, file, first)
    bad = ~np.isfinite(matrix) if layout.levels is None else ~(matrix < layout.levels)
    if lacking is None and layout.levels is None:
        bad &= ~np.isnan(matrix)
    if bad.any():
        row, feature = divmod(int(np.argmax(bad)), layout.width)
        absent = layout.levels is None and np.isnan(matrix[row, feature])
        where, expected = _where(layout, feature)
        value = _value(batch, layout, row, feature)
        told = f"{expected}{lacking}" if absent else expected
        raise BadInput(found_at(file, first + row, where, value, told))
    return matrix


def _matrix(batch: pa.RecordBatch, layout: Layout, file: str, first: int) -> np.ndarray:
    """Returns features; a null is NaN, or there are only integers; what is no level is ∞."""
    if layout.array:
        lists = batch.column(layout.columns[0])
        _check_lists(lists, layout, file, first)
        return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), layout.width)
    matrix, start = np.empty((len(batch), layout.width), dtype=layout.dtype), 0
    for name, levels in zip(layout.columns, layout.categories, strict=True):
        column, end = batch.column(name), start + (1 if levels is None else len(levels))
        if levels is None:
            matrix[:, start] = _numbers(column, layout.timestamps)
        else:
            matrix[:, start:end] = _one_hot(column, levels)
        start = end
    return matrix


def _one_hot(column: pa.Array, levels: Sequence[str]) -> np.ndarray:
    numbers = codes(column, levels)
    found = (numbers[:, None] == np.arange(len(levels))).astype(np.float64)
    found[numbers < 0] = np.inf
    found[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return found


def _where(layout: Layout, feature: int) -> tuple[str, str]:
    """Returns the name of a feature's column, and what is expected there."""
    if layout.levels is not None:
        return layout.feature(feature), f"0 … {layout.levels - 1}"
    levels = None if layout.array else layout.categories[layout.column(feature)]
    if levels is None:
        return layout.feature(feature), "a finite number"
    return f"column {layout.columns[layout.column(feature)]}", one_of(levels)


def _value(batch: pa.RecordBatch, layout: Layout, row: int, feature: int) -> object:
    """Returns an entry as it is shown in a message."""
    if layout.array:
        return batch.column(layout.columns[0])[row].as_py()[feature]
    value = batch.column(layout.columns[layout.column(feature)])[row].as_py()
    return repr(value[:60]) if isinstance(value, str) else value


def times(values: np.ndarray, kind: pa.DataType, unit: str) -> pa.Array:
    """Returns numbers (N,) in a unit since 1970 as timestamps or dates of a type."""
    whole = np.round(values * (TIMES[unit] * 1e6)).astype(np.int64)
    ours = pa.timestamp("us", tz=getattr(kind, "tz", None))
    return pa.array(whole).cast(ours).cast(kind, safe=False)


def _numbers(column: pa.Array, unit: str | None) -> np.ndarray:
    """Returns a column as numbers, a null as NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not is_time(column.type):
        return column.to_numpy(zero_copy_only=False)
    micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.int64()).to_numpy(zero_copy_only=False) / (TIMES[unit] * 1e6)


def _check_lists(lists: pa.Array, layout: Layout, file: str, first: int) -> None:
    """Raises BadInput at a list that is null, as Arrow itself does while it reads Parquet."""
    for row in np.flatnonzero(lists.is_null())[:1].tolist():
        where, expected = f"column {layout.columns[0]}", f"a list of {layout.width}"
        raise BadInput(found_at(file, first + row, where, None, expected))


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
        raise BadInput(found_at(file, first + row, f"column {name}", value, expected))
    return labels.astype(np.int64)
