r"""Rows in memory: from what callers hand in, tensors, arrays or frames, to checked splits.

Columns of a frame go by their names, those of an array by their positions.

What rows lack is filled in, before there is a flow, by a Gaussian of the columns' ranks. Column by
column, the observed values are carried to normal scores, :math:`\Phi^{-1}` of their ranks. Mean
and covariance of the scores are those of greatest likelihood given what is observed, by
expectation maximisation; missing scores are drawn from their conditional law and carried back to
values that the column has: integers stay integers, and nothing leaves its column's range.

Source: Statistical Analysis with Missing Data (Little and Rubin, 2019), 11.2, for the
maximisation; Extending the Rank Likelihood for Semiparametric Copula Estimation (Hoff,
2007) for the law.
"""

__all__ = ["ArrayLike", "Arrays", "Completed", "Gaussian", "Law", "Rows", "as_contexts",
           "as_frame", "as_rows", "as_tensor"]  # fmt: skip

import hashlib
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import Generator, RowGenerator, generator, normal
from . import Levels, coded, expanded, is_numeral, text
from .loader import Batch, Split

DTYPES = (torch.uint8, torch.float32, torch.float64)

ArrayLike = Any
"""A tensor, an array, or a data frame."""

Known = dict[str, Any]
"""What a flow knows of its columns."""

ROWS, NUMBERS = 5_000, 1e9
"""Rows of the maximisation at most, and of rows times D³; never fewer than 2 D rows."""

ITERATIONS = 25
"""Of the maximisation."""

RIDGE = 1e-3
"""Share of the identity in the covariance of the scores."""

CHUNK = 1 << 22
"""Most numbers of the matrices of a chunk of rows."""


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
            description = [name, split.shape, split.levels, split.groups]
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


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of greatest likelihood given what is observed of some rows, nearly.

    Attributes:
        mean: With shape (D,), in float64.
        covariance: With shape (D, D).
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, z: Tensor) -> "Gaussian":
        """Fits it to rows (N, D) of columns of about unit scale, NaN where an entry is missing.

        Cost: O(D³) a row and iteration.
        """
        found = cls(z.new_zeros(z.shape[1]), torch.eye(z.shape[1]).to(z))
        for _ in range(ITERATIONS):
            found = found._maximised(z)
        return found

    def expected(self, z: Tensor) -> Tensor:
        """Returns rows (N, D) with the conditional means of their missing entries."""
        seen = ~z.isnan()
        away = torch.where(seen, z - self.mean, 0.0)
        return torch.where(seen, z, self.mean + self._carried(seen, away))

    def drawn(self, z: Tensor, noise: Generator) -> Tensor:
        """Returns rows (N, D) with their missing entries drawn from their conditional law."""
        seen = ~z.isnan()
        whole = self.mean + normal(z.shape, z, noise) @ torch.linalg.cholesky(self.covariance).mT
        return torch.where(seen, z, whole + self._carried(seen, torch.where(seen, z - whole, 0.0)))

    def _maximised(self, z: Tensor) -> "Gaussian":
        """Returns what one iteration makes of it."""
        parts = z.split(_chunk(z.shape[1]))
        whole = torch.cat([self.expected(rows) for rows in parts])
        spread = sum(self._spread(~rows.isnan()) for rows in parts)
        mean = whole.mean(0)
        centred = whole - mean
        found = (centred.mT @ centred + spread) / len(z)
        return Gaussian(mean, (1 - RIDGE) * found + RIDGE * torch.eye(len(mean)).to(found))

    def _spread(self, seen: Tensor) -> Tensor:
        """Returns the sum of the conditional covariances of what rows lack."""
        cross = self.covariance * seen.unsqueeze(1)
        rest = self.covariance - cross @ self._solved(seen, cross.mT)
        return (rest * (~seen).unsqueeze(1) * (~seen).unsqueeze(2)).sum(0)

    def _carried(self, seen: Tensor, away: Tensor) -> Tensor:
        """Returns Σ_{·o} Σ_oo⁻¹ of deviations (B, D) that are 0 where nothing is seen."""
        return (self.covariance @ self._solved(seen, away.unsqueeze(2))).squeeze(2)

    def _solved(self, seen: Tensor, columns: Tensor) -> Tensor:
        """Returns Σ_oo⁻¹ of columns (B, D, R), by Cholesky's factors.

        PyTorch's LU of several large matrices by several threads is wrong
        (pytorch/pytorch#141358).
        """
        return torch.cholesky_solve(columns, torch.linalg.cholesky(self._block(seen)))

    def _block(self, seen: Tensor) -> Tensor:
        """Returns Σ_oo of every row with shape (B, D, D), the identity where nothing is seen."""
        both = seen.unsqueeze(1) & seen.unsqueeze(2)
        return torch.where(both, self.covariance, torch.eye(len(self.mean)).to(self.covariance))


@dataclass(frozen=True)
class Law:
    """A Gaussian of normal scores.

    Attributes:
        values: The observed values of each column, ascending.
        scores: The law of the scores.
        groups: For each column that is an element of a one-hot category the number of that, −1
            for others; a level is the element whose score is farthest beyond those of zeros.
    """

    values: tuple[Tensor, ...]
    scores: Gaussian
    groups: tuple[int, ...]

    @classmethod
    def of_split(cls, split: Split, seed: int = 0) -> "Law":
        """Fits the law to the rows of a split, their contexts beside them; as ``of``."""
        return cls.of(_whole(split), seed, split.groups)

    @classmethod
    def of(cls, x: Tensor, seed: int = 0, groups: Sequence[int] = ()) -> "Law":
        """Fits the law to rows with shape (N, D), NaN where an entry is missing.

        Cost: O(D³) a row and iteration.

        Raises:
            BadInput: If a column has no value.
        """
        columns = tuple(column[~column.isnan()].sort().values for column in x.mT)
        for k, column in enumerate(columns):
            if not len(column):
                raise BadInput(f"x, feature {k}: found no value in {len(x)} rows, expected some")
        width = x.shape[1]
        most = max(2 * width, min(ROWS, int(NUMBERS / width**3)))
        order = torch.randperm(len(x), generator=generator(seed, "missing", "rows"))
        return cls(columns, Gaussian.of(_scores(columns, x[order[:most]])), tuple(groups))

    def complete(self, x: Tensor, seed: int, *path: str | int) -> Tensor:
        """Returns rows (N, D) with their missing entries drawn; the noise is the row's own.

        Arguments:
            x: The rows, NaN where an entry is missing.
            seed: The seed.
            path: What the noise is for.
        """
        found, first = [], 0
        for rows in x.split(_chunk(x.shape[1])):
            noise = RowGenerator(seed, "missing", *path, first=first)
            drawn = self._values(self.scores.drawn(_scores(self.values, rows), noise))
            found.append(torch.where(rows.isnan(), drawn.to(x), rows))
            first += len(rows)
        return torch.cat(found)

    def _values(self, z: Tensor) -> Tensor:
        u = torch.special.ndtr(z)
        columns = zip(self.values, u.mT, strict=True)
        found = torch.stack(
            [v[(p * len(v)).long().clamp(max=len(v) - 1)].double() for v, p in columns], 1
        )
        for group in sorted({*self.groups} - {-1}):
            some = [k for k, each in enumerate(self.groups) if each == group]
            zeros = torch.stack([1 - self.values[k].double().mean() for k in some])
            best = (z[:, some] - torch.special.ndtri(zeros)).argmax(1)
            found[:, some] = torch.nn.functional.one_hot(best, len(some)).to(found)
        return found


class Completed(Split):
    """Creates a split in memory whose missing entries are filled in, to be filled in again.

    Arguments:
        split: The split, NaN where an entry is missing.
        law: What they are drawn from at first, given the contexts if there are any.
        seed: Where the draws come from.

    Raises:
        BadInput: If the split does not fit into the memory for one.
    """

    def __init__(self, split: Split, law: Law, seed: int) -> None:
        keys = ("shape", "dtype", "levels", "where", "given", "groups")
        options = {key: getattr(split, key) for key in keys}
        super().__init__(split.name, parts=[len(split)], **options)
        self.split = split
        self.missing, context = split.tensor().isnan(), split.context
        x = law.complete(_whole(split), seed, split.name)[:, : split.width]
        self.resident = Batch(x.to(self.dtype).contiguous(), context)

    @property
    def content(self) -> Batch:
        """The rows as they are, missing entries included."""
        return self.split.content

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows, as they are filled in now."""
        return self.resident

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,)."""
        return self.split.labels()


def _chunk(width: int) -> int:
    """Returns how many rows of a width have their matrices in memory at a time."""
    return max(1, CHUNK // width**2)


def _whole(split: Split) -> Tensor:
    """Returns rows and their contexts, with shape (N, D + C)."""
    x, context = split.tensor(), split.context
    return x if context is None else torch.cat([x, context.to(x)], 1)


def _scores(columns: Sequence[Tensor], x: Tensor) -> Tensor:
    """Returns normal scores in float64, NaN where an entry is missing."""
    found = []
    for known, column in zip(columns, x.mT, strict=True):
        ends = [
            torch.searchsorted(known, column.contiguous(), right=right) for right in (False, True)
        ]
        middle = (ends[0] + ends[1]).double() / (2 * len(known))
        least = 0.5 / len(known)
        z = torch.special.ndtri(middle.clamp(least, 1 - least))
        found.append(torch.where(column.isnan(), torch.nan, z))
    return torch.stack(found, 1)
