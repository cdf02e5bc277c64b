"""Splits of rows in memory, checked, and data sets of them."""

__all__ = ["Arrays", "Rows"]

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import BadInput
from .batches import Batch, Split

DTYPES = (torch.uint8, torch.float32, torch.float64)


class Rows(Split):
    """A split of checked rows in memory, which are shared, not copied.

    Arguments:
        x: Raw rows with shape (N, D) or (N, *shape): uint8, float32 or float64.
        context: The contexts, real numbers with shape (N, C); None: there are none.
        shape: The shape of an example; None: that of ``x``.
        levels: The number of levels of uint8 rows; None: 256. Other rows are continuous.
        name: The name of the split.
        missing: Whether values may be missing, as NaN.
        categories: The numbers of codes of the columns, as in ``Split``.

    Raises:
        TypeError: if the dtype is another one.
        BadInput: if shapes do not agree, there are no rows, a value is not finite, or an integer
            is not a level.
    """

    def __init__(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        shape: Sequence[int] | None = None,
        levels: int | None = None,
        name: str = "train",
        missing: bool = False,
        categories: Sequence[int] | None = None,
    ) -> None:
        _check_shape(x, shape)
        levels = _levels(x, levels)
        rows = x.detach().reshape(len(x), -1)
        _check_values(
            "x", rows.nan_to_num(nan=0.0) if missing and levels is None else rows, levels
        )
        if context is not None:
            context = context.detach()
            _check_context(context, len(x))
        super().__init__(
            name,
            shape=x.shape[1:] if shape is None else shape,
            dtype=x.dtype,
            levels=levels,
            parts=[len(x)],
            where=f"split {name}",
            context_width=0 if context is None else context.shape[1],
            categories=categories,
        )
        self.resident = Batch(rows, context)

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows."""
        return self.resident


class Arrays:
    """A data set in memory.

    Arguments:
        splits: The splits, with the same kind of rows and different names.

    Raises:
        BadInput: if they do not agree.
    """

    def __init__(self, *splits: Split) -> None:
        self._splits = {split.name: split for split in splits}
        if not splits or len(self._splits) < len(splits):
            names = [split.name for split in splits]
            raise BadInput(f"splits: found {names}, expected one or more of different names")
        first = splits[0]
        for split in splits[1:]:
            for key in ("shape", "dtype", "levels", "context_width", "categories"):
                found, expected = getattr(split, key), getattr(first, key)
                if found != expected:
                    raise BadInput(
                        f"split {split.name}, {key}: found {found}, expected {expected} as in "
                        f"split {first.name}"
                    )

    def split(self, name: str) -> Split:
        """Returns the split with a name; raises BadInput if there is none."""
        if name not in self._splits:
            raise BadInput(f"found no split {name!r}, expected one of {', '.join(self._splits)}")
        return self._splits[name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the splits' names, kinds, rows and contexts."""
        total = hashlib.sha256()
        for name, split in sorted(self._splits.items()):
            description = [name, split.shape, split.levels, split.categories]
            total.update(json.dumps(description).encode())
            for tensor in split.content:
                _update(total, tensor)
        return total.hexdigest()

    def __repr__(self) -> str:
        return f"Arrays({', '.join(map(repr, self._splits.values()))})"


def _check_shape(x: Tensor, shape: Sequence[int] | None) -> None:
    if x.ndim < 2 or not x.numel():
        raise BadInput(f"x: found shape {tuple(x.shape)}, expected (N, D) with at least one row")
    if shape is not None and math.prod(shape) != x[0].numel():
        raise BadInput(
            f"shape: found {tuple(shape)} of {math.prod(shape)} values, expected "
            f"{x[0].numel()} as in x"
        )


def _levels(x: Tensor, levels: int | None) -> int | None:
    if x.dtype not in DTYPES:
        raise TypeError(f"x: found {x.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    if x.dtype != torch.uint8:
        if levels is not None:
            raise BadInput(f"levels: found {levels} with {x.dtype} rows, expected torch.uint8")
        return None
    levels = 256 if levels is None else levels
    if not 2 <= levels <= 256:
        raise BadInput(f"levels: found {levels}, expected a whole number 2 … 256")
    return levels


def _check_context(context: Tensor, rows: int) -> None:
    if not context.is_floating_point():
        raise TypeError(f"context: found {context.dtype}, expected real numbers")
    if context.ndim != 2 or len(context) != rows or not context.shape[1]:
        raise BadInput(f"context: found shape {tuple(context.shape)}, expected ({rows}, C)")
    _check_values("context", context, None)


def _check_values(name: str, rows: Tensor, levels: int | None) -> None:
    """Raises BadInput at the first value that is not finite or not a level."""
    good = rows.isfinite() if levels is None else rows <= levels - 1
    if good.all():
        return
    row, feature = divmod(int((~good).flatten().to(torch.uint8).argmax()), rows.shape[1])
    expected = "a finite number" if levels is None else f"0 … {levels - 1}"
    raise BadInput(
        f"{name}, row {row}, feature {feature}: found {rows[row, feature].item()}, "
        f"expected {expected}"
    )


def _update(total: "hashlib._Hash", tensor: Tensor | None) -> None:
    """Adds a tensor's shape, dtype and bytes to a hash."""
    if tensor is None:
        total.update(b"null")
        return
    total.update(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
    total.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
