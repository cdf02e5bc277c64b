"""Splits of rows in memory, checked, and data sets of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import generator
from .batches import Batch, Split, joined

DTYPES = (torch.uint8, torch.float32, torch.float64)
PASS = 1 << 14  # Rows at a time of a pass over a split


class Rows(Split):
    """A split of checked rows in memory, which are shared, not copied; options as in ``Split``.

    Arguments:
        x: Raw rows with shape (N, D) or (N, *shape): uint8, float32 or float64.
        context: The contexts, real numbers with shape (N, C); None: there are none.
        levels: The number of levels of uint8 rows; None: 256. Other rows are continuous.
        missing: True if values may be missing, as NaN.

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
        levels: int | None = None,
        name: str = "train",
        missing: bool = False,
        categories: Sequence[int] | None = None,
    ) -> None:
        levels = _levels(x, levels)
        if x.ndim < 2 or not x.numel():
            raise BadInput(option="x", found=f"shape {tuple(x.shape)}", expected="(N, D), N > 0")
        rows = x.detach().flatten(1)
        if levels is None:
            bad = rows.isinf() if missing else ~rows.isfinite()
            refuse(rows, bad, "x", None, "a finite number")
        else:
            refuse(rows, rows > levels - 1, "x", None, f"0 … {levels - 1}")
        context = None if context is None else _checked_context(context.detach(), len(x))
        width = 0 if context is None else context.shape[1]
        options = {"levels": levels, "context_width": width, "categories": categories}
        super().__init__(name, shape=x.shape[1:], dtype=x.dtype, parts=[len(x)], **options)
        self.resident = Batch(rows, context)

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows."""
        return self.resident


class Arrays:
    """A data set in memory, of splits with the same kind of rows and different names."""

    def __init__(self, *splits: Split) -> None:
        self._splits = {split.name: split for split in splits}
        if not splits or len(self._splits) < len(splits):
            names = [split.name for split in splits]
            raise BadInput(option="splits", found=names, expected="one or more of other names")
        for key in ("shape", "dtype", "levels", "context_width", "categories"):
            found = [getattr(split, key) for split in splits]
            if any(value != found[0] for value in found):
                raise BadInput(option=f"splits, {key}", found=found, expected="equal ones")

    def split(self, name: str) -> Split:
        """Returns the split with a name; raises BadInput if there is none."""
        if name not in self._splits:
            raise BadInput(found=f"no split {name!r}", expected=f"one of {list(self._splits)}")
        return self._splits[name]


def sampled(split: Split, count: int, seed: int, *path: str) -> Split:
    """Returns at most ``count`` random rows of a split, in order; O(count) memory, one pass."""
    if len(split) <= count:
        return split
    return subset(split, torch.randperm(len(split), generator=generator(seed, *path))[:count])


def subset(split: Split, numbers: Tensor) -> Rows:
    """Returns the rows with some numbers, in order, by one pass in the memory of these rows."""
    chosen = torch.zeros(len(split), dtype=torch.bool).index_fill(0, numbers.cpu(), True)
    pairs = zip(split.batches(PASS), chosen.split(PASS), strict=True)
    taken = (batch.take(rows.to(batch.x.device).nonzero().flatten()) for batch, rows in pairs)
    x, context = joined([*taken])
    options = {"levels": split.levels, "name": split.name, "categories": split.categories}
    return Rows(x.unflatten(1, split.shape), context, **options)


def refuse(
    values: Tensor, bad: Tensor, what: str, names: Sequence[str] | None, expected: str
) -> None:
    """Raises BadInput at the first bad value of a matrix that is called ``what``."""
    if bad.any():
        row, feature = divmod(int(bad.flatten().to(torch.uint8).argmax()), bad.shape[1])
        column, found = names[feature] if names else feature, values[row, feature].item()
        raise BadInput(option=what, column=column, row=row, found=found, expected=expected)


def _levels(x: Tensor, levels: int | None) -> int | None:
    """Returns the number of levels of rows, None if they are continuous."""
    if x.dtype not in DTYPES:
        raise TypeError(f"x: found {x.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    if levels is None:
        return 256 if x.dtype == torch.uint8 else None
    if x.dtype != torch.uint8:
        raise BadInput(option="levels", found=levels, expected=f"None for {x.dtype} rows")
    if not 2 <= levels <= 256:
        raise BadInput(option="levels", found=levels, expected="a whole number 2 … 256")
    return levels


def _checked_context(context: Tensor, rows: int) -> Tensor:
    if not context.is_floating_point():
        raise TypeError(f"context: found {context.dtype}, expected real numbers")
    if context.ndim != 2 or len(context) != rows or not context.shape[1]:
        raise BadInput(option="context", found=tuple(context.shape), expected=f"({rows}, C)")
    refuse(context, ~context.isfinite(), "context", None, "a finite number")
    return context
