"""Frames, arrays and lists as the events and contexts of a flow."""

__all__ = ["as_context", "as_events", "as_tensor", "check_finite", "context_of", "is_table"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .column import column_label
from .frames import ArrayLike, columns_of, is_frame
from .schema import Columns


def is_table(x: ArrayLike) -> bool:
    """Returns whether data have columns of their own kinds: frames, and arrays of objects."""
    if isinstance(x, Tensor):
        return False
    return is_frame(x) or np.asarray(x).dtype.kind not in "biufc"


def as_tensor(x: ArrayLike, what: str) -> Tensor:
    """Returns numbers as a tensor of 8-bit integers, float32 or float64.

    Raises:
        TypeError: if they are complex.
        ValueError: if an integer is not exact in float64.
    """
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        x = torch.from_numpy(native.copy() if native.dtype != np.bool_ else native.astype(float))
    if x.is_complex():
        raise TypeError(f"{what}: found values of type {x.dtype}, expected real numbers")
    if x.dtype in (torch.uint8, torch.float32, torch.float64):
        return x
    if not x.is_floating_point() and x.numel() and int(x.abs().max()) > 2**53:
        raise ValueError(f"{what}: found {int(x.abs().max())}, expected whole numbers up to 2^53")
    return x.to(torch.float32 if x.is_floating_point() else torch.float64)


def as_events(
    x: ArrayLike, event_shape: Sequence[int], columns: Columns | None, dtype: torch.dtype
) -> Tensor:
    """Returns ``x`` with shape (*batch, *event).

    A tensor has the numbers of the modelled columns. A frame, or an array with shape (N, K), has
    the columns of the table. A Series is one column of a flow of one column, and one row of any
    other flow.

    Arguments:
        x: The data.
        event_shape: The shape of one event.
        columns: The columns of the table that the flow was fitted to; None: an array.
        dtype: The flow's dtype, which has to hold all numbers of an array or a frame.

    Raises:
        ValueError: if the last dimensions of ``x`` are neither an event nor, without ambiguity,
            as many elements (rows of an image, images of rows), or a number is too large.
    """
    event, size = tuple(event_shape), math.prod(event_shape)
    if not isinstance(x, Tensor):
        x = _numbers(x, size, columns)
        _check_range(x, size, columns, dtype)
    if x.ndim >= len(event) and tuple(x.shape[x.ndim - len(event) :]) == event:
        return x
    starts = [k for k in range(1, x.ndim) if math.prod(x.shape[k:]) == size]
    if len(starts) == 1 and (len(event) == 1 or x.ndim - starts[0] == 1):
        return x.reshape(*x.shape[: starts[0]], *event)
    expected = ", ".join(map(str, event))
    raise ValueError(f"x: found shape {tuple(x.shape)}, expected (*, {expected})")


def _numbers(x: ArrayLike, size: int, columns: Columns | None) -> Tensor:
    """Returns the numbers of a frame or an array."""
    if _is_series(x):
        if size > 1 and columns:
            x = dict(zip(map(str, getattr(x, "index", columns.names)), x.to_list(), strict=True))
        elif size > 1 or x.name in (None, "") or not columns:
            x = np.asarray(x) if size > 1 else np.asarray(x)[:, None]
    if columns:
        if isinstance(x, Mapping):
            return torch.from_numpy(_broadcast(x, columns, "x"))
        if is_frame(x) or np.ndim(x) == 2:
            return torch.from_numpy(columns.encode(x))
    if columns is not None and is_frame(x) and columns.notes.get("column"):
        return _lists(x, columns.notes)
    return _plain(x, "x")


def _lists(frame: ArrayLike, notes: Mapping[str, Any]) -> Tensor:
    """Returns the rows that a column of lists, such as images, has in its cells."""
    columns, name = columns_of(frame), notes["column"]
    if name not in columns:
        raise ValueError(f"x: found no column {name!r}, expected it among {', '.join(columns)}")
    cells = columns[name].to_pylist() if hasattr(columns[name], "to_pylist") else columns[name]
    rows = np.stack([np.asarray(cell).reshape(-1) for cell in cells])
    exact = rows.astype(notes["dtype"])
    return as_tensor(exact if (exact == rows).all() else rows, "x")


def _is_series(x: ArrayLike) -> bool:
    """Returns whether data are a single column of pandas or polars."""
    return hasattr(x, "to_frame") and not hasattr(x, "columns")


def _plain(x: ArrayLike, what: str) -> Tensor:
    """Returns numbers as a tensor, those of a frame by their order."""
    if is_frame(x):
        x = np.stack([np.asarray(column) for column in columns_of(x, what).values()], -1)
    if is_table(x):
        raise TypeError(f"{what}: found values of type {np.asarray(x).dtype}, expected numbers")
    return as_tensor(x, what)


def _broadcast(values: Mapping[str, ArrayLike], columns: Columns, what: str) -> np.ndarray:
    """Returns the numbers (*batch, D) of columns whose shapes broadcast, perhaps to ()."""
    used = {str(name): value for name, value in values.items() if str(name) in columns.names}
    shape = np.broadcast_shapes(*map(np.shape, used.values()))
    if len(shape) != 1 or any(np.shape(value) != shape for value in used.values()):
        used = {n: np.broadcast_to(np.asarray(v), shape).reshape(-1) for n, v in used.items()}
    return columns.encode(used, what).reshape(*shape, columns.width)


def _check_range(x: Tensor, size: int, columns: Columns | None, dtype: torch.dtype) -> None:
    """Raises ValueError at the first finite number that is infinite in ``dtype``."""
    too_large = (x.isfinite() & x.to(dtype).isinf()).flatten().nonzero()
    if len(too_large):
        row, feature = divmod(int(too_large[0]), size)
        label = column_label(feature, _names(columns))
        raise ValueError(
            f"x, row {row}, {label}: found {x.flatten()[too_large[0]].item()}, "
            f"expected a number of {dtype}: flow.double() takes larger ones"
        )


def _names(columns: Columns | None) -> list[str] | None:
    return [c.name for c in columns.modelled] if columns is not None and len(columns) else None


def context_of(
    x: ArrayLike, context: ArrayLike | None, columns: Columns | None
) -> ArrayLike | None:
    """Returns ``context``; without one the frame ``x`` itself, if it may have its columns.

    Only named columns can be divided into those of rows and those of contexts.
    """
    own = columns is not None and (len(columns) or columns.notes.get("column"))
    named = own and columns.context is not None
    return x if context is None and named and is_frame(x) else context


def as_context(context: ArrayLike | None, width: int, columns: Columns | None) -> Tensor | None:
    """Returns contexts with shape (*batch, C); the last dimension may be left out if C = 1.

    Arguments:
        context: A tensor of the C elements, of which those of a category are one-hot; or an
            array, a frame, a dictionary or a value of the contexts' columns.
        width: The number C of elements of a context; 0: the flow has none.
        columns: The columns of the table that the flow was fitted to.

    Raises:
        ValueError: if the flow has no context, or one of another size.
    """
    if context is None:
        return None
    if not isinstance(context, Tensor):
        known = columns.context if columns is not None else None
        context = _context_elements(context, width, known)
    if width == 1 and context.shape[-1:] != (1,):
        context = context.unsqueeze(-1)
    shape = tuple(context.shape)
    if not width:
        raise ValueError(f"context: found shape {shape}, expected None")
    if shape[-1:] != (width,):
        raise ValueError(f"context: found shape {shape}, expected (*, {width})")
    return context


def _context_elements(context: ArrayLike, width: int, columns: Columns | None) -> Tensor:
    """Returns the elements (*batch, C) of contexts, which broadcast in a dictionary."""
    single = width == 1 if columns is None else columns.width == 1
    if _is_series(context) and not (columns and single and context.name):
        context = np.asarray(context)[:, None] if single else np.asarray(context)
    if columns is None:
        return _plain(context, "context")
    if isinstance(context, Mapping):
        numbers = _broadcast(context, columns, "context")
    elif is_frame(context):
        numbers = columns.encode(context, "context")
    else:
        array, count = np.asarray(context), columns.width
        array = array[..., None] if count == 1 and array.shape[-1:] != (1,) else array
        if array.shape[-1:] != (count,):
            raise ValueError(f"context: found shape {array.shape}, expected (*, {count}): "
                             f"{', '.join(c.name for c in columns.modelled)}")  # fmt: skip
        flat = columns.encode(array.reshape(-1, count), "context")
        numbers = flat.reshape(*array.shape[:-1], count)
    return torch.from_numpy(columns.one_hot(numbers.reshape(-1, columns.width))).reshape(
        *numbers.shape[:-1], columns.context_width
    )


def check_finite(x: Tensor, context: Tensor | None, columns: Columns | None) -> None:
    """Raises ValueError at the first NaN or infinite value of rows and their contexts.

    Arguments:
        x: Rows with shape (N, *event).
        context: Contexts with shape (*batch, C), or None.
        columns: The columns of the table that the flow was fitted to.
    """
    _check_finite(x.flatten(1), "x", _names(columns))
    if context is not None:
        own = columns.context if columns is not None else None
        _check_finite(context.reshape(-1, context.shape[-1]), "context", own and own.elements)


def _check_finite(values: Tensor, what: str, names: Sequence[str] | None) -> None:
    # A compiled or exported graph cannot depend on values.
    if torch.compiler.is_compiling() or bool((finite := values.isfinite()).all()):
        return
    row, feature = (~finite).nonzero()[0].tolist()
    raise ValueError(
        f"{what}, row {row}, {column_label(feature, names)}: found {values[row, feature].item()}, "
        "expected a finite number. Leave out such rows, or fill in missing values by flow.impute"
    )
