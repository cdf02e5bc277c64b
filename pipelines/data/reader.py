"""Checked rows of a source: data, classes and contexts, batch by batch.

One pass over all rows detects ``ebflow.tables.Columns``, which describe a table. A column of a
table is one number, a category the code of its level. Contexts are described in the same way;
their categories are one-hot.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ebflow.errors import BadInput
from ebflow.tables import Columns
from pipelines.data.files import Part
from pipelines.data.layout import Layout
from pipelines.data.messages import Place, as_bad_input, listed
from pipelines.data.schema import Schemas, context_frame, detect
from pipelines.data.splits import CODES, SELECTION, Counts, assign, split_counts

BATCH_BYTES = 16 << 20  # Bytes of a batch in float64 at most
CLASSES = 10_000  # Classes of a data set at most

# Types of columns whose numbers float32 holds exactly.
NARROW = ("bool", "int8", "uint8", "int16", "uint16", "halffloat", "float")

# The ends of messages about missing values: of contexts, of data to train on.
DROP = ", or data.missing: drop leaves such rows out"
IMPUTE = ", impute samples missing values"


class Rows(NamedTuple):
    """Checked rows."""

    x: np.ndarray  #: The data, with shape (B, D)
    labels: np.ndarray | None  #: The classes, with shape (B,); None: there are none
    context: np.ndarray | None  #: The contexts, with shape (B, C); None: there are none

    def take(self, chosen: np.ndarray) -> "Rows":
        """Returns the chosen rows."""
        return Rows(*(None if column is None else column[chosen] for column in self))


@dataclass(frozen=True)
class Reader:
    """A source whose columns have been chosen."""

    name: str  #: The name of the data set
    label: str  #: The name of the source in messages
    parts: tuple[Part, ...]  #: Its files, in the order of their rows
    layout: Layout  #: The roles of its columns
    #: The policy for rows with missing values: ``drop``, ``impute`` or None, an error
    missing: str | None = None
    #: The descriptions of its columns, if a flow has them; None: they are detected
    flow_schemas: Schemas | None = None
    #: The default sizes of the validation and test splits: rows, or fractions
    sizes: tuple[int | float, int | float] = (0.1, 0.1)
    new_levels: bool = False  #: True if columns of data may have unknown levels

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def schemas(self) -> Schemas:
        """The descriptions of the columns; reads all rows of a table once in a process.

        Raises:
            BadInput: if no column varies, or a type is not supported.
        """
        if self.flow_schemas is not None:
            return self.flow_schemas
        layout = self.layout
        key = (*(p.version for p in self.parts), layout.columns, layout.context, layout.label)
        if key not in _DETECTED:
            _DETECTED[key] = detect(layout, self._batches, label=self.label)
        return _DETECTED[key]

    @property
    def columns(self) -> Columns | None:
        """The description of the columns of a table; None: the data are fixed-size lists."""
        return self.schemas.data

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row's data."""
        return self.layout.lists.shape if self.layout.lists else (self.columns.width,)

    @property
    def width(self) -> int:
        """The number D of a row's data."""
        return math.prod(self.shape)

    @property
    def levels(self) -> int | None:
        """The number of levels of integer data; None: the data are continuous."""
        return self.layout.lists.levels if self.layout.lists else None

    @property
    def dtype(self) -> str:
        """The type of the data: ``uint8``, ``float32`` or ``float64``."""
        if self.layout.lists:
            return self.layout.lists.dtype
        narrow = (c.kind == "category" or c.dtype in NARROW for c in self.columns.modelled)
        return "float32" if all(narrow) else "float64"

    @property
    def features(self) -> list[str]:
        """The names of the data: of columns, or of the places in a list, as ``image[0]``."""
        if self.layout.lists:
            return [f"{self.layout.columns[0]}[{k}]" for k in range(self.width)]
        return self.columns.features

    @property
    def context_width(self) -> int:
        """The number C of the elements of a context."""
        return len(self.schemas.context.elements) if self.layout.context else 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about columns that are dropped or changed."""
        columns = [c for each in self.schemas if each is not None for c in each]
        notes = [f"column {c.name}: {c.describe()}" for c in columns if c.dropped or c.rare]
        return (*self.layout.remarks, *notes)

    @property
    def complete(self) -> bool:
        """True if no value is missing, as far as the types and the descriptions show."""
        if self.flow_schemas is not None or (self.columns is None and self.levels is None):
            return False
        return not any(c.missing for each in self.schemas if each is not None for c in each)

    @cached_property
    def incomplete(self) -> np.ndarray:
        """Marks the rows with missing values, with shape (N,); reads all rows if there may be."""
        if self.missing is None or self.complete:
            return np.zeros(self.rows, bool)
        return np.concatenate([self._lacks(*each) for each in self._batches(self.layout.reads)])

    @cached_property
    def split_codes(self) -> np.ndarray:
        """The code of the split that the source names for each row, with shape (N,), or 0.

        It is −1 for a row that is dropped. Reads all rows of the column that names splits.
        """
        codes, name = np.zeros(self.rows, np.int8), self.layout.split
        if name is not None:
            batches = self._batches([name])
            codes = np.concatenate([_codes(batch.column(name), name, at) for batch, at in batches])
        return np.where(self.incomplete, np.int8(-1), codes) if self.missing == "drop" else codes

    @property
    def named_counts(self) -> Counts:
        """Rows of the splits that the source names; without such names all are training rows."""
        return Counts.of_codes(self.split_codes)

    def counts(
        self,
        *,
        validation: int | float | None = None,
        test: int | float | None = None,
        selection: int | float | None = None,
        rows: int | None = None,
    ) -> Counts:
        """Returns the rows of each split; None: the source's default, and no selection split.

        Raises:
            BadInput: if a size is out of range, or leaves fewer than two training rows.
        """
        named, column = self.named_counts, self.layout.split
        if not named.train:
            found = "no training row"
            raise BadInput(file=self.label, column=column, found=found, expected="some")
        sizes = {"validation": validation, "test": test, SELECTION: selection}
        for (split, size), default in zip(sizes.items(), (*self.sizes, None), strict=True):
            if size is None:
                sizes[split] = named.of(split) or default
        return split_counts(named, label=self.label, rows=rows, **sizes)

    def assigned(self, counts: Counts, seed: int | None) -> np.ndarray:
        """Returns the code of each row's split, with shape (N,), −1 if it is not used.

        Rows of the test and selection splits that have missing values are not used: exact
        likelihoods need complete rows.

        Raises:
            BadInput: if such a split has fewer than two complete rows.
        """
        codes = assign(self.split_codes, counts, seed)
        for split in ("test", SELECTION):
            of_split = codes == CODES[split]
            left = int((of_split & ~self.incomplete).sum())
            if left < min(2, counts.of(split)):
                raise BadInput(
                    file=self.label,
                    found=f"{left} of {counts.of(split)} {split} rows without a missing value",
                    expected="at least 2, whose likelihood is exact",
                    hint=f"Name complete rows for {split} in a column split, or use more rows or "
                    "fewer columns",
                )
            codes[of_split & self.incomplete] = -1
        return codes

    def batches(self, splits: np.ndarray | None = None) -> Iterator[Rows]:
        """Yields all rows in order; missing values are NaN, if the policy allows them.

        Arguments:
            splits: The codes of ``assigned``; rows that are not used are not checked.
        """
        start = 0
        for batch, place in self._batches(self.layout.reads):
            used = None if splits is None else splits[start : start + len(batch)] >= 0
            yield self._checked(batch, place, missing=self.missing is not None, used=used)
            start += len(batch)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The manifest's description of the source; reads all files once for their SHA-256."""
        files = [
            {"file": Path(part.label).name, "rows": part.rows, "sha256": part.sha256()}
            for part in self.parts
        ]
        column = self.layout.columns[0] if self.layout.lists else None
        return {"name": self.name, "column": column, "files": files}

    @property
    def digest(self) -> str:
        """A SHA-256 of content, default splits and remarks, which name classes; not of a place."""
        hashes = [file["sha256"] for file in self.record["files"]]
        decisive = [self.sizes, hashes, self.layout.remarks]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yields all rows in batches, and their places."""
        width = math.prod(self.layout.lists.shape) if self.layout.lists else len(names)
        size = max(1, min(65536, BATCH_BYTES // (8 * width)))
        for part in self.parts:
            yield from part.batches(names, size)

    def _checked(
        self, batch: pa.RecordBatch, place: Place, *, missing: bool, used: np.ndarray | None = None
    ) -> Rows:
        """Returns the rows of a batch after checking every value."""
        layout, (data, contexts) = self.layout, self.schemas
        context, labels = None, None
        if contexts is not None:
            remedy = "" if self.flow_schemas else DROP
            codes = encoded(
                contexts, context_frame(batch, layout), place, used=used, remedy=remedy
            )
            context = contexts.one_hot(codes)
        if layout.label in layout.context:
            labels = codes[:, contexts.features.index(layout.label)]
            labels = np.nan_to_num(labels, nan=-1).astype(np.int64)
        elif layout.label is not None:
            labels = _labels(batch.column(layout.label), layout.label, place)
        if data is None:
            return Rows(self._lists(batch, place, missing, used), labels, context)
        options = {"missing": missing, "used": used, "remedy": DROP + IMPUTE}
        x = encoded(data, batch, place, new_levels=self.new_levels, **options)
        return Rows(x.astype(self.dtype, copy=False), labels, context)

    def _lists(
        self, batch: pa.RecordBatch, place: Place, missing: bool, used: np.ndarray | None
    ) -> np.ndarray:
        """Returns the fixed-size lists of a batch, with shape (B, D), after checking them."""
        name, levels, width = self.layout.columns[0], self.levels, self.width
        lists = batch.column(name)
        for row in np.flatnonzero(lists.is_null())[:1].tolist():
            raise place.bad(row, name, None, f"a list of {width}")
        x = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), width)
        bad = _not_finite(x, missing=missing) if levels is None else ~(x < levels)
        for row, k in _first_used(bad, used):
            expected = f"0 … {levels - 1}" if levels else "a finite number"
            expected += DROP + IMPUTE if levels is None and np.isnan(x[row, k]) else ""
            raise place.bad(row, f"{name}[{k}]", lists[row].as_py()[k], expected)
        return x

    def _lacks(self, batch: pa.RecordBatch, place: Place) -> np.ndarray:
        """Marks the rows of a batch that have missing values, with shape (B,)."""
        nobody = np.zeros(len(batch), bool)
        x, _, context = self._checked(batch, place, missing=True, used=nobody)
        lacking = np.isnan(x).any(1) if x.dtype.kind == "f" else nobody
        return lacking if context is None else lacking | np.isnan(context).any(1)


# Descriptions of the columns of files that this process has read.
_DETECTED: dict[tuple[object, ...], Schemas] = {}


def _codes(column: pa.Array, name: str, place: Place) -> np.ndarray:
    """Returns the codes of splits that a column names, as int8 with shape (B,)."""
    text = column.cast(pa.string()).dictionary_encode()
    table = np.array([*(CODES.get(n, -1) for n in text.dictionary.to_pylist()), -1], np.int8)
    codes = table[text.indices.fill_null(-1).to_numpy()]
    for row in np.flatnonzero(codes < 0)[:1].tolist():
        raise place.bad(row, name, column[row].as_py(), f"one of {', '.join(CODES)}")
    return codes


def _labels(column: pa.Array, name: str, place: Place) -> np.ndarray:
    """Returns classes, with shape (B,), after checking every value."""
    labels = pc.fill_null(column.cast(pa.int64(), safe=False), -1).to_numpy()
    for row in np.flatnonzero((labels < 0) | (labels >= CLASSES))[:1].tolist():
        raise place.bad(row, name, column[row].as_py(), f"a class 0 … {CLASSES - 1}")
    return labels


def encoded(
    columns: Columns,
    frame: pa.RecordBatch | pa.Table,
    place: Place,
    *,
    missing: bool = False,
    new_levels: bool = False,
    used: np.ndarray | None = None,
    remedy: str = "",
) -> np.ndarray:
    """Returns the numbers of a frame's columns, with shape (B, D), after checking them.

    Arguments:
        columns: The descriptions of the columns.
        frame: The rows.
        place: Their place.
        missing: True if missing values are allowed; they are NaN.
        new_levels: True if unknown levels are allowed; they have the code K.
        used: The rows that are checked, with shape (B,); None: all.
        remedy: The end of a message about a missing value.

    Raises:
        BadInput: at a value that is missing, not finite or not a known level.
    """
    with as_bad_input():
        x = columns.encode(frame, what=place.file, first=place.first)
    known = [c.kind == "category" and not new_levels for c in columns.modelled]
    sizes = [c.size if k else np.inf for c, k in zip(columns.modelled, known, strict=True)]
    for row, k in _first_used(_not_finite(x, missing=missing) | (x >= sizes), used):
        column = columns.modelled[k]
        expected = "a finite number"
        if column.kind == "category":
            expected = f"a known level: {listed([*map(str, column.levels)], 8)}"
        value = frame.column(column.name)[row].as_py()
        raise place.bad(row, column.name, value, expected + remedy * bool(np.isnan(x[row, k])))
    return x


def _not_finite(x: np.ndarray, *, missing: bool) -> np.ndarray:
    """Marks the numbers that are infinite, or NaN unless values may be missing."""
    return np.isinf(x) if missing else ~np.isfinite(x)


def _first_used(bad: np.ndarray, used: np.ndarray | None) -> Iterator[tuple[int, int]]:
    """Yields the row and the column of the first bad value, if any, in the rows that are used."""
    if used is not None:
        bad = bad & used[:, None]
    if bad.any():
        yield divmod(int(np.argmax(bad)), bad.shape[1])
