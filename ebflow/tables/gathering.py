"""The rows of a fit by what its caller says: those to train on, and those held out."""

__all__ = ["LEAST", "gathered"]

import numbers
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..randomness import generator as derive
from .arrays import as_frame, as_tensor
from .batches import Batch, Split
from .completion import Completed, Law
from .frames import ArrayLike
from .levels import called
from .rows import Arrays, Rows

SPLITS = ("train", "validation")

POLICIES = ("drop", "impute")
"""What may be done with rows that lack an entry."""

LEAST = 5
"""Rows at least, of which some are for validation."""

REMEDY = (
    ", or missing='drop', which leaves such rows out, or missing='impute', which draws what is "
    "missing"
)


def gathered(
    x: ArrayLike,
    context: ArrayLike | None,
    validation: float | int | tuple[ArrayLike, ...],
    levels: int | None,
    missing: str | None,
    seed: int,
    kind: torch.dtype,
) -> tuple[Arrays, dict[str, Any]]:
    """Returns training and validation rows, and what is known of the columns.

    Arguments and errors are those of :func:`ebflow.fit`; ``kind`` is the type of the flow.
    """
    rows, names = as_tensor(as_frame(x), "x")
    beside, given = (None, None) if context is None else as_tensor(as_frame(context), "context")
    if rows.dtype == torch.uint8 and rows.ndim == 2 and levels is None:
        rows = rows.double()  # a table's small integers, and no grey levels
    whole = _policy(_batch(rows, beside), missing, kind, names)
    known = given and {"names": given, "levels": [None] * len(given)}
    made = partial(Rows, shape=whole.x.shape[1:], levels=levels, missing=missing is not None)
    checked = made(*whole, name="x")
    columns = {"names": names, "dtype": str(whole.x.dtype).removeprefix("torch."),
               "levels": checked.levels, "context": known}  # fmt: skip
    if isinstance(validation, tuple):
        held, called = as_tensor(as_frame(validation[0]), "validation")
        if names and called and names != called:
            raise ValueError(f"validation: found columns {called}, expected {names}, as of x")
        also = as_tensor(as_frame(validation[1]), "validation")[0] if len(validation) > 1 else None
        batches = [whole, _policy(_batch(held, also), missing, kind)]
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


def _policy(
    batch: Batch, missing: str | None, kind: torch.dtype, names: Sequence[str] | None = None
) -> Batch:
    """Returns the rows that are used; raises ValueError at what a type has not, or is missing."""
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
    if missing and (empty := lacking.all(0)).any():
        feature = int(empty.to(torch.uint8).argmax())
        raise ValueError(f"x, {called(feature, names)}: found no value, expected some")
    infinite = rows.flatten(1).to(kind).isinf()
    for broken, remedy in ((infinite, f" of {kind}"), (lacking, REMEDY)):
        if broken.any() and not (missing and remedy is REMEDY):
            row, feature = divmod(int(broken.flatten().to(torch.uint8).argmax()), broken.shape[1])
            raise ValueError(
                f"x, row {row}, {called(feature, names)}: "
                f"found {rows.flatten(1)[row, feature].item()}, expected a finite number{remedy}"
            )
    kept = ~lacking.any(1)
    if missing != "drop" or kept.all():
        return batch
    message = f"{int((~kept).sum())} of {len(rows)} rows lack an entry and were dropped"
    warnings.warn(message, RuntimeWarning, stacklevel=4)
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
