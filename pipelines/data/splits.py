"""The assignment of rows to splits.

A source may name the split of its rows, in a text column or by their order. Rows of other splits
come from its training rows. A seeded permutation gives each row a rank, or the last row has rank
0. By rank come test, validation, selection and training rows; the rest is not used. So the test
split stays the same if other counts change, and a smaller training split is part of a larger one.
If the source names more rows for a split than are wanted, the rows of lowest rank are used.
"""

from typing import NamedTuple

import numpy as np

from ebflow.errors import BadInput

SPLITS = ("train", "validation", "test")

SELECTION = "selection"  # A further split, on which a search chooses its best configuration

# The code of each split, by its names in a column of splits.
CODES = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2, SELECTION: 3}

MINIMUM = 2  # Training rows at least


class Counts(NamedTuple):
    """Rows of each split, in the order of their codes."""

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

    @classmethod
    def of_codes(cls, codes: np.ndarray) -> "Counts":
        """Returns the rows of each split, from the code of each row's split, −1 for none."""
        return cls(*np.bincount(codes + 1, minlength=5)[1:].tolist())


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
        named: Rows that the source names for each split, which are the most that it can have.
        label: The name of the source in messages.
        validation, test, selection: Rows of a split, or their fraction of the rows used.
        rows: Rows to use in all; None: all.

    Raises:
        BadInput: if a count or fraction is out of range, or leaves fewer than two training rows.
    """
    total = sum(named)
    if rows is not None and not (type(rows) is int and 1 <= rows <= total):
        expected = f"1 … {total} (the rows of {label})"
        raise BadInput(option="--data.rows", found=repr(rows), expected=expected)
    sizes = {"validation": validation, "test": test, SELECTION: selection}
    used = total if rows is None else rows
    held_out = {name: _rows(name, size, used) for name, size in sizes.items()}
    sampled = sum(count for name, count in held_out.items() if not named.of(name))
    train = named.train - sampled if rows is None else rows - sum(held_out.values())
    counts = Counts(train, **held_out)
    if train < MINIMUM:
        selected = f", {counts.selection} for selection" if counts.selection else ""
        raise BadInput(
            file=label,
            found=f"{sum(counts)} row{'s' * (sum(counts) != 1)}",
            expected=f"at least {sum(counts[1:]) + MINIMUM}: {counts.validation} for validation"
            f"{selected}, {counts.test} for test and {MINIMUM} for training",
        )
    wanted = counts._replace(train=train + sampled)
    for split, count, most in zip(named._fields, wanted, named, strict=True):
        if most and count > most:
            expected = f"at most {most} (the source fixes its splits)"
            raise BadInput(file=label, found=f"{count} rows wanted for {split}", expected=expected)
    return counts


def _rows(name: str, size: int | float | None, used: int) -> int:
    """Returns a number of rows from a number or a fraction."""
    if size is None:
        return 0
    if type(size) is int and size >= 1:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(used * size))
    expected = "a whole number of rows of at least 1, or a fraction between 0 and 1"
    raise BadInput(option=f"--data.{name}", found=repr(size), expected=expected)


def assign(named: np.ndarray, counts: Counts, seed: int | None) -> np.ndarray:
    """Returns the code of each row's split, −1 if it is not used, as int8 with shape (N,).

    Arguments:
        named: The code of the split that the source names for each row, with shape (N,); 0 if it
            names none.
        counts: Rows of each split.
        seed: The seed of the permutation; None: the last row has rank 0.
    """
    order, codes = np.arange(len(named))[::-1], np.full(len(named), -1, np.int8)
    if seed is not None:
        order = np.argsort(np.random.Generator(np.random.PCG64(seed)).permutation(len(named)))
    pools = {code: order[named[order] == code] for code in np.unique(named).tolist()}
    for code in (2, 1, 3, 0):
        pool = pools.get(code, pools[0])
        codes[pool[: counts[code]]] = code
        if code not in pools:
            pools[0] = pool[counts[code] :]
    return codes


def describe(named: Counts, counts: Counts, seed: int | None, column: str | None) -> str:
    """Returns one line about the way in which the rows were assigned."""
    sampled = [name for name in counts.splits[1:] if not named.of(name)]
    order = "the last" if seed is None else f"random (PCG64, seed {seed})"
    if named.train == sum(named):
        return f"{', '.join(sampled)} rows are {order} of all rows"
    rows = ", ".join(f"{count} {name}" for name, count in named._asdict().items() if count)
    source = f"column {column} names" if column else "the order of the source's rows fixes"
    others = f"; {', '.join(sampled)} rows are {order} of the training rows" if sampled else ""
    return f"{source} {rows} rows{others}"
