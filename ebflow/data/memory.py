"""Rows in memory: from what callers hand in, tensors, arrays or frames, to checked splits.

Columns of a frame go by their names, those of an array by their positions.
"""

__all__ = ["LEAST", "ArrayLike", "Arrays", "Rows", "as_contexts", "as_rows", "as_tensor",
           "gathered"]  # fmt: skip

import hashlib
import json
import math
import numbers
import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import generator as derive
from . import Levels, coded, expanded, text
from .loader import Batch, Split
from .missing import POLICIES, Completed, Law

DTYPES = (torch.uint8, torch.float32, torch.float64)

ArrayLike = Any
"""A tensor, an array, or a data frame."""

Known = dict[str, Any]
"""What a flow knows of its columns."""

SPLITS = ("train", "validation")

LEAST = 5
"""Rows at least, of which some are for validation."""

REMEDY = (
    ", or missing='drop', which leaves such rows out, or missing='impute', which draws what is "
    "missing"
)


class Rows(Split):
    """Creates a split of rows in memory; they are checked, and shared, not copied.

    Arguments:
        x: Raw rows with shape (N, D) or (N, *shape): uint8, float32 or float64.
        context: What each row is given, real numbers with shape (N, C); None: nothing.
        shape: Shape of an example; None takes that of ``x``.
        levels: Number of levels of uint8 rows; None: 256 of these, and reals are continuous.
        name: Name of the split.
        missing: Whether entries may be missing, as NaN.
        groups: As of ``Split``.

    Raises:
        TypeError: If a dtype is another.
        BadInput: If shapes do not agree, there are no rows, or a value is not finite or no level.
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
        groups: Sequence[int] | None = None,
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
            given=0 if context is None else context.shape[1],
            groups=groups,
        )
        self.resident = Batch(rows, context)

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows."""
        return self.resident


class Arrays:
    """Creates a data set in memory from its splits.

    Arguments:
        splits: The splits, of the same kind of rows, each of another name.

    Raises:
        BadInput: If they do not agree.
    """

    def __init__(self, *splits: Split) -> None:
        self._splits = {split.name: split for split in splits}
        if not splits or len(self._splits) < len(splits):
            names = [split.name for split in splits]
            raise BadInput(f"splits: found {names}, expected one or more of different names")
        first = splits[0]
        for split in splits[1:]:
            for key in ("shape", "dtype", "levels", "given", "groups"):
                found, expected = getattr(split, key), getattr(first, key)
                if found != expected:
                    raise BadInput(
                        f"split {split.name}, {key}: found {found}, expected {expected} as in "
                        f"split {first.name}"
                    )

    def split(self, name: str) -> Split:
        """Returns the split of that name; raises BadInput if there is none."""
        if name not in self._splits:
            raise BadInput(f"found no split {name!r}, expected one of {', '.join(self._splits)}")
        return self._splits[name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, shapes, dtypes, levels, groups and bytes of all rows and contexts."""
        total = hashlib.sha256()
        for name, split in sorted(self._splits.items()):
            told = [name, split.shape, split.levels, split.groups]
            total.update(json.dumps(told).encode())
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
    """Raises BadInput at the first value that is not finite, or no level."""
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
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{what}, column {name}: found {column.dtype}, expected numbers: leave it out, or "
            "make numbers of it (pandas.get_dummies); ebflow run density reads categories, times"
        )
    return array


def _real(dtype: np.dtype) -> np.dtype:
    kept = {np.dtype(t) for t in ("uint8", "float32", "float64")}
    if dtype in kept:
        return dtype
    return np.dtype("float32" if dtype == np.dtype("float16") else "float64")


def as_rows(x: ArrayLike, known: Known) -> Tensor:
    """Returns rows with shape (N, D): a frame's columns by their names, an array's in order.

    Images stand in one column of a frame. Categories of a frame become one-hot.

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
    return expanded(np.stack([_stored("x", *one) for one in each], 1), levels)


def as_contexts(given: ArrayLike, known: Known) -> Tensor:
    """Returns contexts with shape (N, C) of a frame's columns by their names, or of an array's.

    Arguments:
        given: A frame that has the columns, or an array of them with shape (N, K).
        known: What the flow knows of its columns.

    Raises:
        ValueError: if a column is missing, or a value is none of its levels.
        TypeError: if numbers are none.
    """
    told = known.get("context") or {}
    names, levels = told.get("names"), told.get("levels")
    if names and hasattr(given, "columns"):
        columns = [np.asarray(column) for column in _named(given, names, "context")]
    elif levels is None:
        return as_tensor(given, "context")[0]
    else:
        array = np.asarray(given)
        if array.ndim != 2 or array.shape[1] != len(levels):
            raise ValueError(
                f"context: found shape {array.shape}, expected (*, {len(levels)}): "
                f"{', '.join(names)}"
            )
        columns = list(array.T)
    pairs = zip(columns, names, levels, strict=True)
    stored = np.stack([_stored("context", *each) for each in pairs], 1)
    return torch.from_numpy(expanded(stored, levels))


def _named(frame: ArrayLike, names: Sequence[str], what: str) -> list[ArrayLike]:
    own = {str(column): column for column in frame.columns}
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


def gathered(
    x: ArrayLike,
    context: ArrayLike | None,
    validation: float | int | tuple[ArrayLike, ...],
    levels: int | None,
    missing: str | None,
    seed: int,
) -> tuple[Arrays, dict[str, Any]]:
    """Returns training and validation rows, and what is known of the columns.

    Arguments and errors are those of ``fit``.
    """
    rows, names = as_tensor(x, "x")
    beside, given = (None, None) if context is None else as_tensor(context, "context")
    if rows.dtype == torch.uint8 and rows.ndim == 2 and levels is None:
        rows = rows.double()  # a table's small integers, and no grey levels
    whole = _policy(_batch(rows, beside), missing, names)
    known = given and {"names": given, "levels": [None] * len(given)}
    made = partial(Rows, shape=whole.x.shape[1:], levels=levels, missing=missing is not None)
    checked = made(*whole, name="x")
    columns = {"names": names, "dtype": str(whole.x.dtype).removeprefix("torch."),
               "levels": checked.levels, "context": known}  # fmt: skip
    if isinstance(validation, tuple):
        held, called = as_tensor(validation[0], "validation")
        if names and called and names != called:
            raise ValueError(f"validation: found columns {called}, expected {names}, as of x")
        also = as_tensor(validation[1], "validation")[0] if len(validation) > 1 else None
        batches = [whole, _policy(_batch(held, also), missing)]
    else:
        batches = _split(whole, validation, seed)
    splits = [made(*batch, name=name) for batch, name in zip(batches, SPLITS, strict=True)]
    return Arrays(*_completed(splits, seed)), columns


def _batch(rows: Tensor, context: Tensor | None) -> Batch:
    """Returns rows and their contexts with shape (N, C), on one device."""
    if context is None:
        return Batch(rows, None)
    if len(context) != len(rows):
        raise ValueError(f"context: found {len(context)} rows, expected {len(rows)} as in x")
    context = context if context.is_floating_point() else context.double()
    return Batch(rows, context.reshape(len(rows), -1).to(rows.device))


def _policy(batch: Batch, missing: str | None, names: Sequence[str] | None = None) -> Batch:
    """Returns the rows that are used; raises ValueError at an infinity, or at what is missing."""
    if missing not in (None, *POLICIES):
        raise ValueError(f"missing: found {missing!r}, expected one of {', '.join(POLICIES)}")
    rows = batch.x
    if not rows.is_floating_point():
        return batch
    if rows.ndim < 2:
        raise ValueError(
            f"x: found shape {tuple(rows.shape)}, expected rows: (N, *event); of one column x[:, "
            "None]"
        )
    lacking = rows.flatten(1).isnan()
    for broken, remedy in ((rows.flatten(1).isinf(), ""), (lacking, REMEDY)):
        if broken.any() and not (remedy and missing):
            row, feature = divmod(int(broken.flatten().to(torch.uint8).argmax()), broken.shape[1])
            raise ValueError(
                f"x, row {row}, {f'column {names[feature]}' if names else f'feature {feature}'}: "
                f"found {rows.flatten(1)[row, feature].item()}, expected a finite number{remedy}"
            )
    kept = ~lacking.any(1)
    if missing != "drop" or kept.all():
        return batch
    told = f"{int((~kept).sum())} of {len(rows)} rows lack an entry and were dropped"
    warnings.warn(told, RuntimeWarning, stacklevel=4)
    return batch.take(kept.nonzero().flatten())


def _completed(splits: Sequence[Rows], seed: int) -> Sequence[Split]:
    """Returns splits whose missing entries are drawn, by the law of the first, where some are."""
    if not any(bool(split.resident.x.isnan().any()) for split in splits):
        return splits
    law = Law.of_split(splits[0], seed)
    return [Completed(split, law, seed) for split in splits]


def _split(batch: Batch, held: float | int, seed: int) -> list[Batch]:
    """Returns the rows to train on, and those that are held out at random."""
    count = len(batch.x)
    if count < LEAST:
        raise ValueError(f"x: found {count} rows, expected {LEAST} or more")
    if not isinstance(held, numbers.Real):
        raise TypeError(
            f"validation: found {type(held).__name__}, expected a share, a number of rows, or a "
            "tuple of them: (x,) or (x, context)"
        )
    size = int(held) if isinstance(held, numbers.Integral) else max(1, round(held * count))
    if isinstance(held, bool) or not 1 <= size <= count - 2:
        raise ValueError(
            f"validation: found {held} of {count} rows, expected a share or a number of rows that "
            "leaves two rows or more to train on"
        )
    order = torch.randperm(count, generator=derive(seed, "validation")).to(batch.x.device)
    return [batch.take(rows) for rows in (order[size:], order[:size])]
