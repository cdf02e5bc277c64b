"""An open source: checked columns, and matrices streamed from its files one batch at a time."""

__all__ = ["Part", "Reader"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ebflow.data.checks import as_labels, as_matrix
from ebflow.data.layout import Layout
from ebflow.data.splits import Counts, split_counts
from ebflow.errors import BadInput

BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class Part:
    """One file, or a table in memory.

    Arguments:
        label: Its name in messages.
        rows: Its rows, by its footer.
        layout: What its columns mean.
        open: Returns the record batches of the given columns, of at most that many rows.
        sha256: Returns the SHA-256 of its content.
    """

    label: str
    rows: int
    layout: Layout
    open: Callable[[tuple[str, ...], int], Iterator[pa.RecordBatch]]
    sha256: Callable[[], str]

    def record(self) -> dict[str, Any]:
        """Returns what the manifest keeps of this part."""
        return {"file": Path(self.label).name, "rows": self.rows, "sha256": self.sha256()}


@dataclass(frozen=True)
class Reader:
    """A source whose columns have been checked, not yet its values.

    Arguments:
        name: Name of the data set.
        label: The source as the user named it, for messages.
        parts: Its files, in the order of their rows.
        layout: What the columns mean, in all parts.
        validation: Default size of the validation split: rows, or a fraction.
        test: Default size of the test split.
        fixed: Whether the last rows are those of the test split, and the ones before them those
            of the validation split; else the seed decides.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    layout: Layout
    validation: int | float = 0.1
    test: int | float = 0.1
    fixed: bool = False

    @property
    def rows(self) -> int:
        """Rows of all parts, by their footers."""
        return sum(part.rows for part in self.parts)

    @property
    def own(self) -> Counts | None:
        """Rows of the splits that the source fixes, None if it leaves them to the seed."""
        if not self.fixed:
            return None
        return Counts(self.rows - self.validation - self.test, self.validation, self.test)

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
            BadInput: If a size is out of range, or leaves fewer than two training rows.
        """
        return split_counts(
            self.rows,
            label=self.label,
            validation=self.validation if validation is None else validation,
            test=self.test if test is None else test,
            selection=selection,
            rows=rows,
            own=self.own,
        )

    @property
    def batch_rows(self) -> int:
        """Rows of a batch: bounded in bytes even when it is turned into float64."""
        return max(1, min(65536, BATCH_BYTES // (8 * self.layout.width)))

    def batches(self) -> Iterator[np.ndarray]:
        """Yields checked matrices with shape (B, D), in the order of the rows."""
        return (x for x, _ in self.labelled())

    def labelled(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yields the same matrices, each with its classes of shape (B,); None without."""
        for part in self.parts:
            yield from self._part(part)

    def record(self) -> dict[str, Any]:
        """Returns what the manifest keeps of the source; reads every file for its SHA-256."""
        column = self.layout.columns[0] if self.layout.array else None
        files = [part.record() for part in self.parts]
        return {"name": self.name, "column": column, "files": files}

    def _part(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        first, label = 0, self.layout.label
        for batch in part.open(self.layout.reads, self.batch_rows):
            where = {"file": part.label, "first": first}
            x = as_matrix(batch, self.layout, **where)
            yield x, None if label is None else as_labels(batch, label, **where)
            first += len(batch)
        if first != part.rows:
            raise BadInput(f"{part.label}: found {first} rows, expected {part.rows} (its footer)")
