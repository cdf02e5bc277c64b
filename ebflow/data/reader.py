"""A source whose columns have been chosen: its rows, checked, in batches and in order."""

__all__ = ["SPLIT_ROWS", "Part", "Reader", "Rows", "placed"]

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from . import Levels
from .given import as_given, lacks, levels_of
from .layout import Layout
from .named import Source
from .parquet import damage
from .splits import COLUMN, SELECTION, Counts, assign, codes, rule, split_counts
from .values import DRAWN, LACKING, as_labels, as_matrix

BATCH_BYTES = 16 << 20
SPLIT_ROWS = 1 << 20


class Rows(NamedTuple):
    """Checked rows of a source.

    Arguments:
        x: Their features, with shape (B, D).
        labels: Their classes, with shape (B,); None of data without.
        context: What they are given, with shape (B, K); None of data without.
    """

    x: np.ndarray
    labels: np.ndarray | None
    context: np.ndarray | None


class Part(NamedTuple):
    """One file, or the rows of a named source.

    Arguments:
        label: Its name in messages.
        rows: Its rows, by its footer.
        open: Returns the record batches of the given columns, of at most that many rows, from
            that row on.
        sha256: Returns the SHA-256 of its content.
    """

    label: str
    rows: int
    open: Callable[[Sequence[str], int, int], Iterator[pa.RecordBatch]]
    sha256: Callable[[], str]


@dataclass(frozen=True)
class Reader:
    """A source whose columns have been checked, not yet its values.

    Arguments:
        name: Name of the data set.
        label: The source as the user named it, for messages.
        parts: Its files, in the order of their rows.
        layout: What the columns mean, in all parts.
        source: The named source that it is, None of Parquet.
        missing: What is done with rows that lack an entry: ``drop``, ``impute`` or None, which
            refuses them.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    layout: Layout
    source: Source | None = None
    missing: str | None = None

    @property
    def rows(self) -> int:
        """Rows of all parts, by their footers."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def lacking(self) -> np.ndarray:
        """Which rows lack an entry, with shape (N,); reads all rows where that is allowed."""
        if self.missing is None:
            return np.zeros(self.rows, bool)
        given = self.layout.given
        return np.concatenate(
            [
                np.isnan(self._features(batch, where)).any(1) | lacks(batch, given)
                for batch, where in self._whole()
            ]
        )

    @cached_property
    def split_codes(self) -> np.ndarray:
        """The number of the split that the source names for each row, with shape (N,), or 0.

        It is -1 of a row that is dropped. Reads all of the column that names splits, of a source
        that has one.
        """
        found = self._named_codes()
        return np.where(self.lacking, np.int8(-1), found) if self.missing == "drop" else found

    def _named_codes(self) -> np.ndarray:
        if self.layout.split is not None:
            return np.concatenate([found for part in self.parts for found in self._codes(part)])
        if self.source is not None:
            return np.repeat(np.arange(4, dtype=np.int8), self.source.named)
        return np.zeros(self.rows, np.int8)

    @property
    def named(self) -> Counts:
        """Rows of the splits that the source names; all are training rows if it names none."""
        return Counts(*np.bincount(self.split_codes + 1, minlength=5)[1:].tolist())

    def assigned(self, counts: Counts, seed: int | None) -> np.ndarray:
        """Returns the number of each row's split, with shape (N,), or -1 if it is left out.

        Rows of ``counts`` that lack an entry are left out of the test and selection splits: exact
        likelihoods are of complete rows.

        Raises:
            BadInput: If fewer than two rows of such a split are left.
        """
        found = assign(self.split_codes, counts, seed)
        for split in ("test", SELECTION):
            mine = found == Counts._fields.index(split)
            left = int((mine & ~self.lacking).sum())
            if left < min(2, counts.of(split)):
                raise BadInput(
                    f"{self.label}: found {left} of {counts.of(split)} {split} rows without a "
                    "missing entry, expected at least 2, whose likelihood is exact: name complete "
                    f"rows for {split} in a column {COLUMN}, or use more rows or fewer columns"
                )
            found[mine & self.lacking] = -1
        return found

    def counts(
        self,
        *,
        validation: int | float | None = None,
        test: int | float | None = None,
        selection: int | float | None = None,
        rows: int | None = None,
    ) -> Counts:
        """Returns the rows of each split; None: the source's default, none for selection.

        Raises:
            BadInput: If a size is out of range, leaves fewer than two training rows, or is of a
                split that a column names.
        """
        named = self.named
        if not named.train:
            raise BadInput(
                f"{self.label}, column {self.layout.split}: found no training row, expected some"
            )
        asked = {"validation": validation, "test": test, "selection": selection}
        default = {"validation": 0.1, "test": 0.1, "selection": None}
        if self.source is not None:
            default |= {"validation": self.source.validation, "test": self.source.test}
        for split, size in asked.items():
            if named.of(split) and self.layout.split and size is not None:
                raise BadInput(
                    f"{split}: found {size!r}, expected none: column {self.layout.split} of "
                    f"{self.label} names {named.of(split)} {split} rows"
                )
            if size is None:
                asked[split] = (self.layout.split and named.of(split)) or default[split]
        return split_counts(named, label=self.label, rows=rows, **asked)

    def rule(self, counts: Counts, seed: int | None) -> str:
        """Returns in a line how the rows get their splits."""
        return rule(self.named, counts, seed, self.layout.split)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch: bounded in bytes even when it is turned into float64."""
        return max(1, min(65536, BATCH_BYTES // (8 * self.layout.width)))

    def levels(self, splits: np.ndarray) -> Levels:
        """Returns the levels of the columns of context, as ``levels_of``; reads them all.

        Arguments:
            splits: Those of ``assigned``.
        """
        return levels_of(self.layout.given, self._categories(splits == 0), label=self.label)

    def _categories(self, training: np.ndarray) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        start, names = 0, self.layout.given.categories
        for part in self.parts if names else ():
            for batch, _ in placed(part, names, SPLIT_ROWS):
                yield batch, training[start : start + len(batch)]
                start += len(batch)

    def batches(self, splits: np.ndarray | None = None, levels: Levels = ()) -> Iterator[Rows]:
        """Yields checked rows in order; missing entries are NaN, where they are allowed.

        Arguments:
            splits: Those of ``assigned``; of rows that are left out no context is checked.
            levels: The levels of the columns of context, if there are any.
        """
        given, label, start = self.layout.given, self.layout.label, 0
        for batch, where in self._whole():
            used = None if splits is None else splits[start : start + len(batch)] >= 0
            context, labels, start = None, None, start + len(batch)
            if given.names:
                context = as_given(batch, given, levels, used=used, **where)
            if label in given.names:
                labels = context[:, given.names.index(label)].astype(np.int64)
            elif label is not None:
                labels = as_labels(batch, label, **where)
            yield Rows(self._features(batch, where), labels, context)

    def _whole(self) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
        for part in self.parts:
            yield from placed(part, self.layout.reads, self.batch_rows)

    def _features(self, batch: pa.RecordBatch, where: dict[str, Any]) -> np.ndarray:
        lacking = None if self.missing else LACKING
        return as_matrix(batch, self.layout, lacking=lacking, **where)

    def window(self, first: int, last: int, *, missing: bool = False) -> np.ndarray:
        """Returns the checked rows ``first`` … ``last`` − 1, in a matrix with shape (B, D).

        Arguments:
            first: The first row's number.
            last: That of the row behind the last.
            missing: Whether a null or NaN of real data is taken, as NaN.
        """
        lacking, found = None if missing else DRAWN, []
        for batch, where in self._between(first, last, self.layout.columns):
            found.append(as_matrix(batch, self.layout, lacking=lacking, **where))
        return np.concatenate(found)

    def contexts(self, first: int, last: int, levels: Levels) -> np.ndarray:
        """Returns the checked contexts of rows ``first`` … ``last`` − 1, with shape (B, K).

        Arguments:
            first: The first row's number.
            last: That of the row behind the last.
            levels: The levels of the columns of context.
        """
        given = self.layout.given
        batches = self._between(first, last, given.names)
        return np.concatenate([as_given(b, given, levels, **where) for b, where in batches])

    def _between(
        self, first: int, last: int, names: Sequence[str]
    ) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
        start = 0
        for part in self.parts:
            begin, end = max(first - start, 0), min(last - start, part.rows)
            start += part.rows
            if begin < end:
                yield from placed(part, names, self.batch_rows, begin, end)

    def record(self) -> dict[str, Any]:
        """Returns what the manifest keeps of the source; reads every file for its SHA-256."""
        column = self.layout.columns[0] if self.layout.array else None
        files = [
            {"file": Path(part.label).name, "rows": part.rows, "sha256": part.sha256()}
            for part in self.parts
        ]
        side = None if self.source is None else self.source.side
        resized = {} if side is None or not self.source.resized else {"resize": side}
        return {"name": self.name, "column": column, "files": files, **resized}

    @property
    def digest(self) -> str:
        """A SHA-256 of the content, the same wherever the files lie."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def _codes(self, part: Part) -> Iterator[np.ndarray]:
        name = self.layout.split
        for batch, where in placed(part, [name], SPLIT_ROWS):
            yield codes(batch.column(name), name=name, **where)


def placed(
    part: Part, names: Sequence[str], size: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
    """Yields a part's batches and where they are; raises BadInput unless it has its rows.

    They are all of its rows, or those from ``first`` on and before ``last``.
    """
    for batch in part.open(names, size, first):
        with damage(Path(part.label)):
            batch.validate(full=True)  # text is UTF-8
        batch = batch if last is None else batch.slice(0, last - first)
        yield batch, {"file": part.label, "first": first}
        first += len(batch)
        if first == last:
            return
    if first != part.rows:
        raise BadInput(f"{part.label}: found {first} rows, expected {part.rows} (its footer)")
