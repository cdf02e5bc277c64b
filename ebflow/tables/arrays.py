"""What callers hand in, as tensors: arrays, data frames, tables.

Columns of a frame go by their names, those of an array by their positions.
"""

__all__ = ["as_contexts", "as_frame", "as_rows", "as_tensor"]

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .frames import ArrayLike
from .levels import Levels, coded, expanded, is_numeral, text

Known = dict[str, Any]
"""What a flow knows of its columns."""


def as_frame(x: ArrayLike, width: int = 1) -> ArrayLike:
    """Returns a table of pyarrow, or a named Series of a column, as a frame; the rest as it is.

    A Series without a name becomes an array with shape (N, 1); where rows have another width than
    1 a Series is no column, but a row.
    """
    if hasattr(x, "column_names"):
        return x.to_pandas()
    if width != 1 or not hasattr(x, "to_frame"):
        return x
    return np.asarray(x)[:, None] if x.name in (None, "") else x.to_frame()


def as_tensor(x: ArrayLike, name: str) -> tuple[Tensor, list[str] | None]:
    """Returns data as a tensor of 8-bit integers or reals, and the names of its columns.

    Raises:
        TypeError: if it is not of real numbers, naming the column of a frame.
        ValueError: if two columns have one name.
    """
    names = [str(column) for column in x.columns] if hasattr(x, "columns") else None
    if not isinstance(x, Tensor):
        array = np.asarray(x) if names is None else _stacked(x, names, name)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: found values of type {array.dtype}, expected real numbers")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        x = torch.from_numpy(np.array(native, dtype=_real(native.dtype)))
    if x.dtype not in (torch.uint8, torch.float32, torch.float64):
        if x.is_complex():
            raise TypeError(f"{name}: found values of type {x.dtype}, expected real numbers")
        x = x.to(torch.float32 if x.is_floating_point() else torch.float64)
    return x, names


def _stacked(frame: ArrayLike, names: Sequence[str], what: str) -> np.ndarray:
    """Returns the columns of a frame as one array."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{what}: found column {twice[0]} twice, expected names of their own")
    columns = [_numbers(frame[own], name, what)
               for own, name in zip(frame.columns, names, strict=True)]  # fmt: skip
    return np.stack(columns, 1) if columns else np.empty((len(frame), 0))


def _numbers(column: ArrayLike, name: str, what: str) -> np.ndarray:
    """Returns a column of numbers or booleans; NaN where one of pandas' own types has none."""
    array = np.asarray(column)
    if array.dtype == object and getattr(column.dtype, "kind", "O") in "biuf":
        array = column.to_numpy(dtype="float64", na_value=np.nan)
    elif array.dtype == object and all(v is None or isinstance(v, numbers.Real) for v in array):
        array = array.astype("float64")
    if array.dtype.kind in "biuf":
        return array
    words = [row for row, value in enumerate(array) if not is_numeral(value)]
    if 2 * len(words) > len(array) or array.dtype.kind not in "OU":
        raise TypeError(
            f"{what}, column {name}: found {column.dtype}, expected numbers: leave it out, or "
            "make numbers of it (pandas.get_dummies); ebflow run density reads categories, times"
        )
    row = words[0] if words else 0
    raise TypeError(
        f"{what}, row {row}, column {name}: found {array[row]!r}, expected a number: "
        "pandas.to_numeric(…, errors='coerce') makes numbers, and NaN of what is none"
    )


def _real(dtype: np.dtype) -> np.dtype:
    kept = {np.dtype(t) for t in ("uint8", "float32", "float64")}
    if dtype in kept:
        return dtype
    return np.dtype("float32" if dtype == np.dtype("float16") else "float64")


def as_rows(x: ArrayLike, known: Known) -> Tensor:
    """Returns rows with shape (N, D): a frame's columns by their names, an array's in order.

    Images stand in one column of a frame. Categories of a frame become the codes of their levels.

    Arguments:
        x: A frame, whose other columns are left out, or an array of examples.
        known: What the flow knows of its columns.

    Raises:
        ValueError: if a frame lacks a column, or a category is none of its levels.
        TypeError: if it is not of real numbers.
    """
    names, image = known.get("names"), known.get("column")
    if names and hasattr(x, "columns"):
        x = _table(x, names, known.get("categories") or [None] * len(names))
    elif image and hasattr(x, "columns"):
        x = np.stack([np.asarray(one) for one in _named(x, [image], "x")[0]])
        whole = x.astype(known["dtype"])
        x = whole if (whole == x).all() else x
    return as_tensor(x, "x")[0]


def _table(frame: ArrayLike, names: Sequence[str], levels: Levels) -> np.ndarray:
    columns = _named(frame, names, "x")
    if all(known is None for known in levels):
        pairs = zip(columns, names, strict=True)
        return np.stack([_numbers(column, name, "x") for column, name in pairs], 1)
    each = zip(map(np.asarray, columns), names, levels, strict=True)
    return np.stack([_stored("x", *one) for one in each], 1)


def as_contexts(given: ArrayLike, known: Known, width: int) -> Tensor:
    """Returns contexts with shape (*batch, C).

    Arguments:
        given: A frame, or a dictionary, that has the columns; or an array of them with shape
            (*batch, K); of one column with or without its dimension.
        known: What the flow knows of its columns.
        width: The number C of elements.

    Raises:
        ValueError: if a column is missing, or a value is none of its levels.
        TypeError: if numbers are none.
    """
    context = known.get("context") or {}
    names, levels = context.get("names"), context.get("levels")
    given = as_frame(given, len(names) if names else width)
    if levels is None:
        return as_tensor(given, "context")[0]
    columns = np.broadcast_arrays(*map(np.asarray, _given(given, names)))
    flat = zip((column.ravel() for column in columns), names, levels, strict=True)
    stored = np.stack([_stored("context", *each) for each in flat], 1)
    found = expanded(stored, levels)
    return torch.from_numpy(found.reshape(*columns[0].shape, found.shape[1]))


def _given(given: ArrayLike, names: Sequence[str]) -> list[ArrayLike]:
    """Returns the columns of contexts, by their names or, of an array, in order."""
    if hasattr(given, "columns") or isinstance(given, Mapping):
        return _named(given, names, "context")
    array = np.asarray(given)
    if len(names) == 1 and array.shape[-1:] != (1,):
        array = array[..., None]
    if array.shape[-1:] != (len(names),):
        raise ValueError(
            f"context: found shape {array.shape}, expected (*, {len(names)}): {', '.join(names)}"
        )
    return list(np.moveaxis(array, -1, 0))


def _named(frame: ArrayLike, names: Sequence[str], what: str) -> list[ArrayLike]:
    own = {str(column): column for column in getattr(frame, "columns", frame)}
    if missing := [name for name in names if name not in own]:
        raise ValueError(
            f"{what}: found no column {', '.join(missing)}, expected {', '.join(names)}"
        )
    return [frame[own[name]] for name in names]


def _stored(what: str, column: np.ndarray, name: str, levels: Sequence[str] | None) -> np.ndarray:
    """Returns numbers, or those of levels."""
    if levels is None:
        return as_tensor(column, f"{what}, column {name}")[0].double().numpy()
    codes = coded(column.tolist(), levels)
    for row in np.flatnonzero(codes < 0)[:1]:
        raise ValueError(
            f"{what}, row {row}, column {name}: found {text(column[row])!r}, expected one of "
            f"{', '.join(levels)}"
        )
    return codes
