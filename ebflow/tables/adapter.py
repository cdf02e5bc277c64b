"""Converts frames, arrays and lists to the events and contexts of a flow."""

__all__ = ["as_context", "as_events", "check_finite", "context_of"]

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arrays import as_contexts, as_frame, as_rows
from .frames import ArrayLike
from .levels import called, titles

Columns = dict[str, Any] | None


def as_events(
    x: ArrayLike, event_shape: Sequence[int], columns: Columns, dtype: torch.dtype
) -> Tensor:
    """Returns ``x``, a tensor, an array or a frame, with shape (*batch, *event).

    A Series is one column of a flow of one column, and one row of any other flow.

    Arguments:
        x: The data.
        event_shape: The shape of one event.
        columns: The flow's description of its columns.
        dtype: The flow's dtype, which has to hold all numbers of an array or a frame.

    Raises:
        ValueError: if the last dimensions of ``x`` are neither an event nor, without ambiguity,
            as many elements (rows of an image, images of rows), or a number is too large.
    """
    event, size = tuple(event_shape), math.prod(event_shape)
    if not isinstance(x, Tensor):
        x = as_rows(as_frame(x, size), columns or {})
        _check_range(x, size, columns or {}, dtype)
    if x.ndim >= len(event) and tuple(x.shape[x.ndim - len(event) :]) == event:
        return x
    starts = [k for k in range(1, x.ndim) if math.prod(x.shape[k:]) == size]
    if len(starts) == 1 and (len(event) == 1 or x.ndim - starts[0] == 1):
        return x.reshape(*x.shape[: starts[0]], *event)
    expected = ", ".join(map(str, event))
    raise ValueError(f"x: found shape {tuple(x.shape)}, expected (*, {expected})")


def _check_range(x: Tensor, size: int, columns: dict[str, Any], dtype: torch.dtype) -> None:
    """Raises ValueError at the first finite number that is infinite in ``dtype``."""
    too_large = (x.isfinite() & x.to(dtype).isinf()).flatten().nonzero()
    if len(too_large):
        row, feature = divmod(int(too_large[0]), size)
        title = called(feature, columns.get("names"))
        raise ValueError(
            f"x, row {row}, {title}: found {x.flatten()[too_large[0]].item()}, "
            f"expected a number of {dtype}: flow.double() takes larger ones"
        )


def context_of(x: ArrayLike, context: ArrayLike | None, columns: Columns) -> ArrayLike | None:
    """Returns ``context``; without one, the frame ``x`` itself if it has the context's columns.

    Only named columns can be divided into those of rows and those of contexts.
    """
    columns = columns or {}
    named = (columns.get("names") or columns.get("column")) and columns.get("context")
    return x if context is None and named and hasattr(x, "columns") else context


def as_context(context: ArrayLike | None, width: int, columns: Columns) -> Tensor | None:
    """Returns contexts with shape (*batch, C); the last dimension may be left out if C = 1.

    Arguments:
        context: A tensor, an array, a frame, a dictionary or a number.
        width: The number C of elements of a context; 0: the flow has none.
        columns: The flow's description of its columns.

    Raises:
        ValueError: if the flow has no context, or one of another size, or a category is unknown.
    """
    if context is None:
        return None
    if not isinstance(context, Tensor):
        context = as_contexts(context, columns or {}, width)
    if width == 1 and context.shape[-1:] != (1,):
        context = context.unsqueeze(-1)
    shape = tuple(context.shape)
    if not width:
        raise ValueError(f"context: found shape {shape}, expected None")
    if shape[-1:] != (width,):
        raise ValueError(f"context: found shape {shape}, expected (*, {width})")
    return context


def check_finite(x: Tensor, context: Tensor | None, columns: Columns) -> None:
    """Raises ValueError at the first NaN or infinite value of rows and their contexts.

    Arguments:
        x: Rows with shape (N, *event).
        context: Contexts with shape (*batch, C), or None.
        columns: The flow's description of its columns.
    """
    columns = columns or {}
    _check_finite(x.flatten(1), "x", columns.get("names"))
    if context is not None:
        own = columns.get("context") or {}
        names = own.get("names") or ()
        names = titles(names, own.get("levels") or [None] * len(names))
        _check_finite(context.reshape(-1, context.shape[-1]), "context", names)


def _check_finite(values: Tensor, kind: str, names: Sequence[str] | None) -> None:
    # A compiled or exported graph cannot depend on values.
    if torch.compiler.is_compiling() or bool((finite := values.isfinite()).all()):
        return
    row, feature = (~finite).nonzero()[0].tolist()
    raise ValueError(
        f"{kind}, row {row}, {called(feature, names)}: found {values[row, feature].item()}, "
        "expected a finite number. Leave out such rows, or fill in missing values by "
        "ebflow.imputation.impute"
    )
