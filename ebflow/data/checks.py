"""Turns record batches into matrices, and says which value is bad."""

__all__ = ["as_labels", "as_matrix", "reading"]

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from ebflow.data.layout import Layout
from ebflow.errors import BadInput

CLASSES = 10_000
"""More classes than any data set is taken to have."""


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Turns Arrow's errors while reading ``file`` into one BadInput line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise BadInput(f"{file}: corrupt or unreadable Parquet ({text[:200]})") from None


def as_matrix(batch: pa.RecordBatch, layout: Layout, *, file: str, first: int) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Arguments:
        batch: B rows that hold at least the columns of the layout.
        layout: Which columns to read.
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.

    Raises:
        BadInput: At a null, NaN, infinite or too large value; names the row and column.
    """
    matrix = (
        _array(batch, layout, file, first) if layout.array else _table(batch, layout, file, first)
    )
    if layout.levels is not None:
        _refuse(matrix >= layout.levels, matrix, layout, file, first, f"0 … {layout.levels - 1}")
    elif matrix.dtype.kind == "f":
        _refuse(~np.isfinite(matrix), matrix, layout, file, first, "a finite number")
    return matrix


def as_labels(batch: pa.RecordBatch, name: str, *, file: str, first: int) -> np.ndarray:
    """Returns the classes of a batch, with shape (B,), after checking every value.

    Arguments as in ``as_matrix``, and ``name``: the column of classes.

    Raises:
        BadInput: At a null, or a number that is not 0 … 9999; names the row.
    """
    column = batch.column(name)
    if column.null_count:
        _refuse_null(column, f"column {name}", file, first)
    labels = column.to_numpy(zero_copy_only=False)
    bad = (labels < 0) | (labels >= CLASSES)
    if bad.any():
        row = int(np.argmax(bad))
        expected = f"a class 0 … {CLASSES - 1}"
        raise BadInput(_found(file, first + row, f"column {name}", str(labels[row]), expected))
    return labels.astype(np.int64)


def _array(batch: pa.RecordBatch, layout: Layout, file: str, first: int) -> np.ndarray:
    column = batch.column(layout.columns[0])
    if column.null_count:
        _refuse_null(column, f"column {layout.columns[0]}", file, first)
    values = column.flatten()
    if values.null_count:
        index = int(np.argmax(_nulls(values)))
        row, feature = divmod(index, layout.width)
        raise BadInput(_found(file, first + row, layout.feature(feature), "null", "a number"))
    return values.to_numpy(zero_copy_only=True).reshape(len(batch), layout.width)


def _table(batch: pa.RecordBatch, layout: Layout, file: str, first: int) -> np.ndarray:
    matrix = np.empty((len(batch), layout.width), dtype=layout.dtype)
    for j, name in enumerate(layout.columns):
        column = batch.column(name)
        if column.null_count:
            _refuse_null(column, layout.feature(j), file, first)
        matrix[:, j] = column.to_numpy(zero_copy_only=False)
    return matrix


def _refuse(
    bad: np.ndarray, matrix: np.ndarray, layout: Layout, file: str, first: int, expected: str
) -> None:
    if bad.any():
        row, feature = divmod(int(np.argmax(bad)), layout.width)
        value = matrix[row, feature].item()
        raise BadInput(_found(file, first + row, layout.feature(feature), str(value), expected))


def _refuse_null(column: pa.Array, where: str, file: str, first: int) -> None:
    row = first + int(np.argmax(_nulls(column)))
    raise BadInput(_found(file, row, where, "null", "a value"))


def _nulls(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False)


def _found(file: str, row: int, where: str, found: str, expected: str) -> str:
    return f"{file}, row {row}, {where}: found {found}, expected {expected}"
