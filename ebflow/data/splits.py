"""Which split a row belongs to: a function of the seed, the row number and the counts.

A seeded permutation gives each of the N rows a rank. Ranks from 0 are the test split, the next
ones the validation split, the next ones the selection split, if there is one, the next ones the
training split; rows beyond are left out. So the test split stays as it is when the other counts
change, and a smaller training split is part of a larger one.

A source may fix its splits: its rows are then those for training, those for validation and those
for testing, in this order, and of each the ones with the lowest ranks are used; the selection
split is taken from the training rows, behind those that are used.
"""

__all__ = ["ASSIGNMENT", "OWN_ASSIGNMENT", "Counts", "assign", "split_counts"]

from dataclasses import dataclass

import numpy as np

from ..errors import BadInput
from .manifest import SELECTION, SPLITS

ASSIGNMENT = (
    "rank = numpy PCG64(seed) permutation of the row numbers; by rank: test, validation, "
    "selection, train"
)
OWN_ASSIGNMENT = (
    "the source's own rows for train, validation and test, in this order; of each the first by "
    "rank = numpy PCG64(seed) permutation of the row numbers"
)
MINIMUM = 2


@dataclass(frozen=True)
class Counts:
    """Rows of each split."""

    train: int
    validation: int
    test: int
    selection: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; the selection split is one only if it has rows."""
        return (*SPLITS, SELECTION) if self.selection else SPLITS

    def of(self, split: str) -> int:
        """Returns the rows of the split of that name."""
        return getattr(self, split)


def split_counts(
    total: int,
    *,
    label: str,
    validation: int | float,
    test: int | float,
    selection: int | float | None = None,
    rows: int | None = None,
    own: Counts | None = None,
) -> Counts:
    """Turns counts or fractions into rows of each split.

    Arguments:
        total: Rows of the source.
        label: Name of the source for messages.
        validation: Rows of the validation split, or their fraction of the rows used.
        test: The same for the test split.
        selection: The same for the selection split; None: there is none.
        rows: Rows to use in all; None uses every row.
        own: Rows of the splits that the source fixes: the most of each.

    Raises:
        BadInput: If a count or fraction is out of range, or leaves fewer than two training rows.
    """
    if rows is not None and not (_whole(rows) and 1 <= rows <= total):
        raise BadInput(f"rows: found {rows!r}, expected 1 … {total} (the rows of {label})")
    used = total if rows is None else rows
    held_validation = _held("validation", validation, used)
    held_test = _held("test", test, used)
    held_selection = 0 if selection is None else _held("selection", selection, used)
    if own is not None and rows is None:
        used = own.train + held_validation + held_test
    held = held_validation + held_test + held_selection
    train = used - held
    if train < MINIMUM:
        selected = f", {held_selection} for selection" if held_selection else ""
        raise BadInput(
            f"{label}: found {used} row{'s' * (used != 1)}, expected at least "
            f"{held + MINIMUM}: {held_validation} for validation{selected}, "
            f"{held_test} for test and {MINIMUM} for training"
        )
    counts = Counts(train, held_validation, held_test, held_selection)
    if own is not None:
        _check_own(label, counts, own)
    return counts


def assign(total: int, counts: Counts, seed: int, own: Counts | None = None) -> np.ndarray:
    """Returns each row's index into ``counts.splits``, or -1 if left out, as int8, (total,)."""
    rank = np.random.Generator(np.random.PCG64(seed)).permutation(total)
    if own is not None:
        return _assign_own(rank, counts, own)
    order = ("test", "validation", SELECTION, "train")
    bounds = np.cumsum([counts.of(split) for split in order])
    codes = np.array([*map((*SPLITS, SELECTION).index, order), -1], dtype=np.int8)
    return codes[np.searchsorted(bounds, rank, side="right")]


def _assign_own(rank: np.ndarray, counts: Counts, own: Counts) -> np.ndarray:
    codes, first = np.full(len(rank), -1, dtype=np.int8), 0
    for code, split in enumerate(SPLITS):
        rows = first + np.argsort(rank[first : first + own.of(split)])
        codes[rows[: counts.of(split)]] = code
        if split == "train":
            codes[rows[counts.train : counts.train + counts.selection]] = len(SPLITS)
        first += own.of(split)
    return codes


def _check_own(label: str, counts: Counts, own: Counts) -> None:
    wanted = {split: counts.of(split) for split in SPLITS}
    wanted["train"] += counts.selection
    for split, rows in wanted.items():
        if rows > own.of(split):
            raise BadInput(
                f"{label}: found {rows} rows wanted for {split}, expected at most "
                f"{own.of(split)} (the source fixes its splits)"
            )


def _held(name: str, size: int | float, used: int) -> int:
    if _whole(size) and size >= 1:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(used * size))
    raise BadInput(
        f"{name}: found {size!r}, expected a whole number of rows of at least 1, "
        "or a fraction between 0 and 1"
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
