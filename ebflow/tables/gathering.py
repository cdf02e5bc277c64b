"""The training and validation rows of a fit."""

import math
import numbers
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput, warn
from ..randomness import generator
from .adapter import as_tensor, context_elements, is_table
from .batches import Batch
from .completion import completed
from .detect import detect_columns
from .frames import ArrayLike, columns_of, is_frame, numbered
from .rows import Arrays, Rows, refuse
from .schema import Columns

SPLITS = ("train", "validation")
POLICIES = ("drop", "impute")  # Treatments of rows that have missing values
LEAST = 5  # Rows of a fit at least
REMEDY = (
    "a finite number. Pass missing='drop' to leave out such rows, or missing='impute' to sample "
    "missing values while the flow is trained"
)


def gather(
    x: ArrayLike,
    context: ArrayLike | Sequence[str] | None,
    validation: float | int | tuple[ArrayLike, ...],
    levels: int | None,
    missing: str | None,
    seed: int,
    dtype: torch.dtype,
    sample_weight: ArrayLike | None = None,
    effort: float = 1.0,
    known: Columns | None = None,
) -> tuple[Arrays, Columns | None]:
    """Returns the training and validation rows, and the columns of a table.

    Arguments and errors are those of ``ebflow.fit``; ``dtype`` is the flow's. ``effort`` is the
    share of the usual rows that a first imputation is fitted to. ``known`` are the columns of a
    flow that is trained further; None: they are detected.
    """
    if missing not in (None, *POLICIES):
        raise ValueError(f"missing: found {missing!r}, expected one of {', '.join(POLICIES)}")
    check_count(x)
    columns = known if known and not isinstance(x, Tensor) else describe(x, context, levels)
    encoded = _encoded(x, context, columns, levels, "x")
    used = _usable(encoded, missing, dtype, columns)
    rows, weights = encoded.take(used), row_weights(sample_weight, len(encoded.x))
    weights = None if weights is None else weights[used.cpu()]
    sizes = columns.sizes if columns else None
    split = partial(Rows, levels=levels, missing=missing is not None, categories=sizes or None)
    split(*rows, name="x")  # checks all rows by their own numbers
    if isinstance(validation, tuple):
        held_out = validation[0], validation[1] if len(validation) > 1 else context
        other = _encoded(*held_out, columns, levels, "validation")
        chosen = torch.arange(len(rows.x)) if weights is None else copies(weights, seed)
        other = other.take(_usable(other, missing, dtype, columns, "validation"))
        batches = [rows.take(chosen.to(rows.x.device)), other]
    else:
        batches = _divided(rows, validation, weights, seed)
    splits = [split(*batch, name=name) for batch, name in zip(batches, SPLITS, strict=True)]
    return Arrays(*completed(splits, seed, effort)), columns


def describe(
    x: ArrayLike, context: ArrayLike | Sequence[str] | None, levels: int | None
) -> Columns | None:
    """Returns the columns of a table and those of its contexts; None for tensors and images."""
    named, data, given = _names(context, x), None, None
    if is_table(x) and levels is None:
        names = list(columns_of(x))
        if unknown := [name for name in named if name not in names]:
            raise ValueError(f"context: found no column {unknown[0]!r} in x, expected some of "
                             f"{', '.join(names)}")  # fmt: skip
        if not (rest := [name for name in names if name not in named]):
            raise ValueError("x: found no column to model, expected one that is not in context")
        data = detect_columns(x, rest)
        _check_varied(data, "x")
    if named or not (context is None or isinstance(context, Tensor)):
        frame, what = (x, "x") if named else (context, "context")
        frame = frame if is_frame(frame) else np.asarray(frame).reshape(len(frame), -1)
        given = detect_columns(frame, named or None, context=True, what=what)
        _check_varied(given, "context")
    if data is None and given is None:
        return None
    return Columns(data or (), data.library if data else "tensor", given)


def _names(context: object, x: ArrayLike) -> list[str]:
    """Returns the names of the columns of a frame that a context is; none if it is data."""
    if not is_frame(x):
        return []
    names, numbers = [context] if isinstance(context, str) else context, numbered(x)
    named = isinstance(names, list | tuple) and all(
        isinstance(name, str) or str(name) in numbers for name in names
    )
    return [*map(str, names)] if named else []


def _check_varied(columns: Columns, what: str) -> None:
    if not columns.width:
        reasons = "; ".join(f"{c.name}: {c.describe()}" for c in columns[:8])
        raise ValueError(f"{what}: found no column to model, expected one that varies ({reasons})")


def check_count(x: ArrayLike) -> int:
    """Returns the number of rows; raises ValueError if a fit needs more."""
    if is_table(x):
        count = len(next(iter(columns_of(x).values()), ()))
    elif not isinstance(x, Tensor) and not np.asarray(x).ndim:
        raise TypeError(
            f"x: found {type(x).__name__}, expected a frame, an array or a tensor of rows: read a "
            "file first, as by pandas.read_csv, and make a sparse matrix dense by x.toarray()"
        )
    else:
        count = len(x)
    if count < LEAST:
        raise ValueError(f"x: found {count} rows, expected {LEAST} or more")
    return count


def _encoded(
    x: ArrayLike,
    context: ArrayLike | Sequence[str] | None,
    columns: Columns | None,
    levels: int | None,
    what: str,
) -> Batch:
    """Returns rows and their contexts with shape (N, C), on one device."""
    rows = torch.from_numpy(columns.encode(x, what)) if columns else as_tensor(x, what)
    if rows.dtype == torch.uint8 and rows.ndim == 2 and levels is None:
        rows = rows.double()  # a table's small integers, and no grey levels
    if context is None:
        return Batch(rows, None)
    frame = x if _names(context, x) else context
    elements = context_elements(frame, columns.context if columns is not None else None)
    if len(elements) != len(rows):
        raise ValueError(f"context: found {len(elements)} rows, expected {len(rows)} as in x")
    elements = elements if elements.is_floating_point() else elements.double()
    return Batch(rows, elements.reshape(len(rows), -1).to(rows.device))


def _usable(
    batch: Batch, missing: str | None, dtype: torch.dtype, columns: Columns | None, what: str = "x"
) -> Tensor:
    """Returns the numbers of the rows that are used; refuses infinite and missing values."""
    x, context = batch
    everything = torch.arange(len(x), device=x.device)
    if not x.is_floating_point():  # levels of images
        x = x.new_zeros(len(x), 1, dtype=dtype)
    if x.ndim < 2:
        expected = "rows: (N, *event); of one column x[:, None]"
        raise ValueError(f"{what}: found shape {tuple(x.shape)}, expected {expected}")
    x, names = x.flatten(1), columns.features if columns else None
    lacking = x.isnan()
    if missing and (empty := lacking.all(0)).any():
        feature = int(empty.nonzero()[0])
        column = names[feature] if names else feature
        raise BadInput(option=what, column=column, found="no value", expected="some")
    refuse(x, x.to(dtype).isinf(), what, names, f"a finite number of {dtype}")
    if columns:
        _refuse_new_levels(x, what, columns)
    if not missing:
        refuse(x, lacking, what, names, REMEDY)
    used = ~lacking.any(1) if missing == "drop" else torch.ones_like(everything, dtype=torch.bool)
    if context is not None:
        own = columns.context if columns is not None else None
        bad = context.isinf() if missing == "drop" else ~context.isfinite()
        drop = "" if missing == "drop" else ": missing='drop' leaves rows without it out"
        refuse(context, bad, "context", own and own.elements, f"a finite number{drop}")
        used &= ~context.isnan().any(1)
    dropped, imputed = int((~used).sum()), int((lacking.any(1) & used).sum())
    for count, fate in ((dropped, "were dropped"), (imputed, "are imputed (missing='impute')")):
        if count:
            warn(f"{what}: {count} of {len(x)} rows have missing values and {fate}")
    return everything[used]


def _refuse_new_levels(x: Tensor, what: str, columns: Columns) -> None:
    """Raises BadInput at the first code beyond those of the levels of its column."""
    new = x >= x.new_tensor([size or math.inf for size in columns.sizes])
    if new.any():
        row, k = divmod(int(new.flatten().byte().argmax()), len(columns.features))
        raise BadInput(option=what, column=columns.features[k], row=row, found="a new level",
                       expected="one of those that were fitted")  # fmt: skip


def _divided(
    batch: Batch, held_out: float | int, weights: Tensor | None, seed: int
) -> list[Batch]:
    """Returns the rows to train on, and those that are held out at random.

    Rows are divided before they are repeated by their weights, so that no row is in both parts.
    """
    if not isinstance(held_out, numbers.Real):
        raise TypeError(
            f"validation: found {type(held_out).__name__}, expected a share, a number of rows, or "
            "a tuple of them: (x,) or (x, context)"
        )
    order = torch.randperm(len(batch.x), generator=generator(seed, "validation"))
    order = order if weights is None else order[weights[order] > 0]
    whole = isinstance(held_out, numbers.Integral)
    size = int(held_out) if whole else max(1, round(held_out * len(order)))
    if isinstance(held_out, bool) or not 1 <= size <= len(order) - 2:
        raise ValueError(
            f"validation: found {held_out} of {len(order)} rows, expected a share or a number of "
            "rows that leaves two rows or more to train on"
        )
    parts = _with_values(batch.x, order[size:], order[:size])
    if weights is not None:
        parts = [part[copies(weights[part], seed)] for part in parts]
    return [batch.take(part.to(batch.x.device)) for part in parts]


def _with_values(x: Tensor, train: Tensor, held_out: Tensor) -> list[Tensor]:
    """Returns training and held-out rows; values that training lacks in a constant go there."""
    if not x.is_floating_point():
        return [train, held_out]
    rows, others = (x[part.to(x.device)].flatten(1) for part in (train, held_out))
    value = rows.gather(0, (~rows.isnan()).byte().argmax(0, keepdim=True))
    single = ~((rows != value) & ~rows.isnan()).any(0)
    moved = ((others != value) & ~others.isnan())[:, single].any(1).cpu()
    moved[:1] &= ~moved.all()  # one row is left at least
    return [torch.cat([train, held_out[moved]]), held_out[~moved]]


def row_weights(weights: ArrayLike | None, rows: int) -> Tensor | None:
    """Returns the weights of rows in float64 with shape (N,); None if all are alike."""
    if weights is None:
        return None
    array = weights.cpu() if isinstance(weights, Tensor) else weights
    weight = torch.from_numpy(np.array(array, dtype=np.float64)).flatten()
    wrong = int((~(weight.isfinite() & (weight >= 0))).sum())
    if len(weight) != rows or wrong:
        raise ValueError(
            f"sample_weight: found {len(weight)} weights for {rows} rows, {wrong} of them "
            "negative or not finite, expected one finite number of 0 or more for each row"
        )
    if not weight.any():
        raise ValueError("sample_weight: found only weights of zero, expected some above zero")
    return weight


def copies(weights: Tensor, seed: int) -> Tensor:
    """Returns the numbers of rows, each as often as its weight, in order.

    Whole weights are numbers of copies. Other weights are scaled to as many copies as rows:
    systematic sampling gives each row its weight, rounded up or down at random.
    """
    total = float(weights.sum())
    whole = bool((weights == weights.round()).all()) and total <= 10 * len(weights)
    scaled = weights if whole else weights * (len(weights) / total)
    start = 0.01 + 0.98 * float(torch.rand((), generator=generator(seed, "weights of rows")))
    ends = (scaled.cumsum(0) + start).floor().long()
    counts = ends.diff(prepend=ends.new_tensor([math.floor(start)]))
    return torch.arange(len(weights)).repeat_interleave(counts)
