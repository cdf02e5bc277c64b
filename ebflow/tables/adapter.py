"""Frames, arrays and lists as the events and contexts of a flow."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .frames import ArrayLike, as_array, columns_of, is_frame, is_positional
from .rows import refuse
from .schema import Columns


def is_table(x: ArrayLike) -> bool:
    """Returns True if data have columns to describe: frames and arrays (N, K), but no tensors."""
    return not isinstance(x, Tensor) and (is_frame(x) or np.asarray(x).ndim == 2)


def as_tensor(x: ArrayLike, what: str) -> Tensor:
    """Returns real numbers as a tensor of 8-bit integers, float32 or float64."""
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{what}: found values of type {array.dtype}, expected numbers")
        if array.dtype.kind == "u" and array.itemsize > 1:  # PyTorch has few functions of these
            array = np.minimum(array, np.uint64(2**53 + 1)).astype(np.int64)
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
    """Returns ``x`` with shape (*batch, *event), as ``Flow.as_events``.

    A tensor has the numbers of the modelled columns. A frame, or an array with shape
    (*batch, K), has the columns of the table. A Series is one column. The last dimensions are an
    event or, if that is unambiguous, as many elements (rows of an image, images of rows).
    """
    event = tuple(event_shape)
    x = _shaped(x if isinstance(x, Tensor) else _numbers(x, columns, "x"), event)
    if x.dtype != torch.float64 or torch.compiler.is_compiling():
        return x
    rows = x.reshape(-1, math.prod(event))
    too_large = rows.isfinite() & rows.to(dtype).isinf()
    refuse(rows, too_large, "x", columns.features if columns else None,
           f"a number of {dtype}: flow.double() takes larger ones")  # fmt: skip
    return x


def _shaped(x: Tensor, event: tuple[int, ...]) -> Tensor:
    """Returns ``x`` with shape (*batch, *event)."""
    if x.ndim >= len(event) and tuple(x.shape[x.ndim - len(event) :]) == event:
        return x
    starts = [k for k in range(1, x.ndim) if math.prod(x.shape[k:]) == math.prod(event)]
    if len(starts) == 1 and (len(event) == 1 or x.ndim - starts[0] == 1):
        return x.reshape(*x.shape[: starts[0]], *event)
    expected = ", ".join(map(str, event))
    raise ValueError(f"x: found shape {tuple(x.shape)}, expected (*, {expected})")


def _numbers(x: ArrayLike, columns: Columns | None, what: str) -> Tensor:
    """Returns the numbers of a frame, a mapping or an array, with shape (*batch, D)."""
    if columns:
        frame, batch = _as_frame(x, columns)
        numbers = columns.encode(frame, what)
        return torch.from_numpy(numbers).view(*batch, columns.width)
    if is_frame(x):
        x = np.stack([np.asarray(column) for column in columns_of(x, what).values()], -1)
    return as_tensor(x, what)


def differing(x: ArrayLike, columns: Columns | None) -> Tensor:
    """Returns True for rows (*batch,) that differ from a constant or a linear function.

    A tensor has no such columns, and no row of it differs.
    """
    none = torch.tensor(False)
    if isinstance(x, Tensor) or not columns or not any(c.dropped for c in columns):
        return none
    frame, batch = _as_frame(x, columns)
    rows = [differs for _, differs, _ in columns.exceptions(frame)]
    return torch.from_numpy(np.any(rows, axis=0).reshape(batch)) if rows else none


def _as_frame(x: ArrayLike, columns: Columns) -> tuple[ArrayLike, tuple[int, ...]]:
    """Returns data as a frame or as an array (N, K), and the shape of their batch.

    The columns of a mapping are broadcast. One column needs no last dimension.
    """
    if isinstance(x, Mapping):
        used = {str(name): as_array(v) for name, v in x.items() if str(name) in columns.names}
        shape = np.broadcast_shapes(*map(np.shape, used.values()))
        used = {name: np.broadcast_to(v, shape).reshape(-1) for name, v in used.items()}
        return used, shape
    if not is_positional(x):
        return x, (-1,)
    array = as_array(x)
    if is_frame(x) or (columns.width == 1 and array.shape[-1:] not in ((1,), (len(columns),))):
        array = array[..., None]
    return array.reshape(-1, array.shape[-1]) if array.ndim else array, array.shape[:-1]


def context_of(
    x: ArrayLike, context: ArrayLike | None, columns: Columns | None
) -> ArrayLike | None:
    """Returns ``context``; without one the frame ``x`` itself, if it may have its columns."""
    if context is not None or not columns or not columns.names_contexts:
        return context
    return x if is_frame(x) else None


def as_context(context: ArrayLike | None, width: int, columns: Columns | None) -> Tensor | None:
    """Returns contexts with shape (*batch, C), as ``Flow.as_context``.

    The last dimension may be omitted if C = 1. A tensor has the C elements, ``width`` of the flow,
    of which those of a category are one-hot. Other data have the contexts' columns.
    """
    if context is None:
        return None
    if not isinstance(context, Tensor):
        context = context_elements(context, columns.context if columns is not None else None)
    if width == 1 and context.shape[-1:] != (1,):
        context = context.unsqueeze(-1)
    if not width or context.shape[-1:] != (width,):
        expected = f"(*, {width})" if width else "None"
        raise ValueError(f"context: found shape {tuple(context.shape)}, expected {expected}")
    return context


def context_elements(context: ArrayLike, columns: Columns | None) -> Tensor:
    """Returns the elements (*batch, C) of contexts, of which those of a category are one-hot."""
    numbers = _numbers(context, columns, "context")
    return torch.from_numpy(columns.one_hot(numbers.numpy(), context)) if columns else numbers


def check_finite(x: Tensor | None, context: Tensor | None, columns: Columns | None) -> None:
    """Raises ValueError at the first NaN or infinite value of rows (N, *event) and contexts."""
    if torch.compiler.is_compiling():  # a compiled or exported graph cannot depend on values
        return
    expected = "a finite number. Leave out such rows, or fill in missing values by flow.impute"
    names = columns.features if columns else None
    if x is not None:
        refuse(x.flatten(1), ~x.flatten(1).isfinite(), "x", names, expected)
    own = getattr(columns, "context", None)
    if own is not None and context is None:
        raise ValueError(f"context: found None, expected {', '.join(own.features)}")
    if context is not None:
        rows = context.reshape(-1, context.shape[-1])
        refuse(rows, ~rows.isfinite(), "context", own and own.elements, expected)
