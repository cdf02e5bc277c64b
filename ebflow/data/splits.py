"""How each row of a source gets its split.

A source may name the split of its rows, in a column of text or by their order. What it does not
name is drawn from its training rows, which are all rows of a source that names none: a seeded
permutation gives every row a rank, or the last row has the first rank. By rank come test,
validation, selection and training rows; rows beyond are left out. So the test split stays as it
is when the other counts change, and a smaller training split is part of a larger one. Of a split
that the source names, the rows of the lowest ranks are used.
"""

__all__ = ["COLUMN", "SELECTION", "SPLITS", "Counts", "assign", "codes", "names_splits", "rule",
           "split_counts"]  # fmt: skip

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import BadInput

SPLITS = ("train", "validation", "test")

SELECTION = "selection"
"""A further split, on which a search of configurations names its winner."""

COLUMN = "split"
"""The column that names the split of each row, if it holds text."""

NAMES = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2, SELECTION: 3}
"""The number of each split by what such a column calls it."""

MINIMUM = 2


class Counts(NamedTuple):
    """Rows of each split, in the order of their numbers."""

    train: int
    validation: int
    test: int
    selection: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; the selection split is one only if it has rows."""
        return self._fields if self.selection else SPLITS

    def of(self, split: str) -> int:
        """Returns the rows of the split of that name."""
        return getattr(self, split)


def names_splits(kind: pa.DataType) -> bool:
    """Whether a type is text, as that of a column that names splits is."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def codes(column: pa.Array, *, file: str, name: str, first: int) -> np.ndarray:
    """Returns the numbers of the splits that a column names, as int8 with shape (B,).

    Raises:
        BadInput: At a null or another name; names the row, of which ``first`` is the number.
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    numbers = np.array([*(NAMES.get(n, -1) for n in encoded.dictionary.to_pylist()), -1], np.int8)
    places = encoded.indices.to_numpy(zero_copy_only=False)  # of a null NaN
    found = numbers[np.nan_to_num(places, nan=-1).astype(int)]
    for row in np.flatnonzero(found < 0)[:1].tolist():
        value = column[row].as_py()
        told = "null" if value is None else repr(value[:60])
        raise BadInput(
            f"{file}, row {first + row}, column {name}: found {told}, "
            f"expected one of {', '.join(NAMES)}"
        )
    return found


def split_counts(
    named: Counts,
    *,
    label: str,
    validation: int | float,
    test: int | float,
    selection: int | float | None = None,
    rows: int | None = None,
) -> Counts:
    """Turns counts or fractions into rows of each split.

    Arguments:
        named: Rows that the source names for each split: the most of these. What is drawn comes
            from the training rows.
        label: Name of the source for messages.
        validation: Rows of the validation split, or their fraction of the rows used.
        test: The same for the test split.
        selection: The same for the selection split; None: there is none.
        rows: Rows to use in all; None uses every row.

    Raises:
        BadInput: If a count or fraction is out of range, or leaves fewer than two training rows.
    """
    total = sum(named)
    if rows is not None and not (_integer(rows) and 1 <= rows <= total):
        raise BadInput(f"rows: found {rows!r}, expected 1 … {total} (the rows of {label})")
    sizes = {"validation": validation, "test": test, SELECTION: selection}
    used = total if rows is None else rows
    held = {name: _held(name, size, used) for name, size in sizes.items()}
    drawn = sum(count for name, count in held.items() if not named.of(name))
    train = named.train - drawn if rows is None else rows - sum(held.values())
    counts = Counts(train, **held)
    if train < MINIMUM:
        raise BadInput(_too_few(label, counts))
    _check_named(label, counts._replace(train=train + drawn), named)
    return counts


def assign(named: np.ndarray, counts: Counts, seed: int | None) -> np.ndarray:
    """Returns each row's number of ``Counts``, or -1 if it is left out, as int8 with shape (N,).

    Arguments:
        named: The number of the split that the source names for each row, with shape (N,); 0
            where it names none.
        counts: Rows of each split.
        seed: Seed of the permutation; None: the last row has the first rank.
    """
    order, found = _order(len(named), seed), np.full(len(named), -1, np.int8)
    pools = {code: order[named[order] == code] for code in np.unique(named).tolist()}
    for code in (2, 1, 3, 0):
        pool = pools.get(code, pools[0])
        found[pool[: counts[code]]] = code
        if code not in pools:
            pools[0] = pool[counts[code] :]
    return found


def rule(named: Counts, counts: Counts, seed: int | None, column: str | None) -> str:
    """Returns in a line how the rows got their splits."""
    drawn = [name for name in counts.splits[1:] if not named.of(name)]
    law = "the last" if seed is None else f"random (PCG64, seed {seed})"
    if named.train == sum(named):
        return f"{', '.join(drawn)} rows are {law} of all rows"
    rows = ", ".join(f"{count} {name}" for name, count in named._asdict().items() if count)
    source = f"column {column} names" if column else "the order of the source's rows fixes"
    told = f"; {', '.join(drawn)} rows are {law} of the training rows" if drawn else ""
    return f"{source} {rows} rows{told}"


def _order(total: int, seed: int | None) -> np.ndarray:
    """Returns the row numbers by rank."""
    if seed is None:
        return np.arange(total)[::-1]
    return np.argsort(np.random.Generator(np.random.PCG64(seed)).permutation(total))


def _too_few(label: str, counts: Counts) -> str:
    held, used = sum(counts[1:]), sum(counts)
    selected = f", {counts.selection} for selection" if counts.selection else ""
    return (
        f"{label}: found {used} row{'s' * (used != 1)}, expected at least {held + MINIMUM}: "
        f"{counts.validation} for validation{selected}, {counts.test} for test and {MINIMUM} "
        "for training"
    )


def _check_named(label: str, wanted: Counts, named: Counts) -> None:
    for split, rows, most in zip(named._fields, wanted, named, strict=True):
        if most and rows > most:
            raise BadInput(
                f"{label}: found {rows} rows wanted for {split}, expected at most {most} "
                "(the source fixes its splits)"
            )


def _held(name: str, size: int | float | None, used: int) -> int:
    if size is None:
        return 0
    if _integer(size) and size >= 1:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(used * size))
    raise BadInput(
        f"{name}: found {size!r}, expected a whole number of rows of at least 1, "
        "or a fraction between 0 and 1"
    )


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
