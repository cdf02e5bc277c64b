"""Where rows come from: files of tables and arrays, folders of images, and named data sets."""

__all__ = ["Opened", "Reader", "Rows", "find_source", "open_source"]

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ebflow.errors import BadInput
from ebflow.tables.levels import Levels, is_numeral
from pipelines.data.formats import FORMATS, Part, as_text, lookup, parquet
from pipelines.data.layout import COLUMN, Layout, read_given, read_layout, same_layout
from pipelines.data.manifest import SELECTION, Counts, assign, split_counts
from pipelines.data.messages import Place
from pipelines.data.named import SOURCES, Source, image_folder

BATCH_BYTES = 16 << 20
SPLIT_ROWS = 1 << 20

NAMES = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2, SELECTION: 3}
"""The number of each split by what a column that names splits calls it."""

MOST = 256
"""Most levels of a column of categories."""

SPOILT = 0.1
"""Largest share of a column of text that is taken for numbers in which some are misspelt."""

CLASSES = 10_000
"""More classes than any data set is taken to have."""

LACKING = ", or data.missing: drop leaves such rows out, impute draws what they lack"

DRAWN = ": ebflow impute draws what is missing"
"""What is said behind what is expected in place of a missing entry, of data to train on, or to
score."""


@dataclass(frozen=True)
class Opened:
    """A source of which no column has been chosen.

    Arguments:
        name: Name of the data set.
        label: The source as the user named it, for messages.
        parts: Its files, in the order of their rows.
        source: The named source that it is, or a folder of images.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    source: Source | None = None

    @property
    def schemas(self) -> tuple[pa.Schema, ...]:
        """The schemas of its files."""
        return tuple(part.schema for part in self.parts)

    @property
    def positional(self) -> bool:
        """Whether its columns have no names of their own."""
        return any(part.positional for part in self.parts)

    def contexts(self, names: Sequence[str], levels: Levels) -> np.ndarray:
        """Returns the checked contexts of all rows, with shape (N, K).

        Raises:
            BadInput: If a column is missing or of another kind, or a value is no level.
        """
        found = [np.empty((0, len(names)))]
        for part in self.parts:
            given = read_given(part.schema, names, levels, file=part.label)
            found += [given.stored(*each) for each in part.batches(names, SPLIT_ROWS)]
        return np.concatenate(found)

    def reader(self, missing: str | None = None, **chosen: Any) -> "Reader":  # noqa: ANN401
        """Chooses columns; options and errors of ``open_source``, and of ``read_layout``.

        Reads the columns of categories whose levels are not told.
        """
        first, *others = self.parts
        layout = read_layout(first.schema, file=first.label, **chosen)
        for part in others:
            other = read_layout(part.schema, file=part.label, **chosen)
            same_layout(layout, other, first_file=first.label, file=part.label)
        if not any(part.rows for part in self.parts):
            raise BadInput(f"{self.label}: found 0 rows, expected at least 4 (to split them)")
        parts = self.parts
        if self.source is not None:
            digest = partial(self.source.sha256, layout.label)
            parts = tuple(part._replace(sha256=digest) for part in parts)
            if self.source.folders and layout.label:
                remark = f"classes 0, 1, … are the folders {', '.join(self.source.folders)}"
                layout = replace(layout, remarks=(*layout.remarks, remark))
        return Reader(self.name, self.label, parts, self.source, layout, missing).levelled()


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


@dataclass(frozen=True)
class Reader:
    """A source whose columns have been chosen and checked, not yet its values.

    Arguments:
        name, label, parts, source: As of ``Opened``.
        layout: What the columns mean, in all parts.
        missing: What is done with rows that lack an entry: ``drop``, ``impute`` or None, which
            refuses them.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    source: Source | None
    layout: Layout
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
        batches = self._between(self.layout.reads)
        return np.concatenate([_lacks(batch, self.layout, place) for batch, place in batches])

    @cached_property
    def split_codes(self) -> np.ndarray:
        """The number of the split that the source names for each row, with shape (N,), or 0.

        It is -1 of a row that is dropped. Reads all of the column that names splits, of a source
        that has one.
        """
        found, name = np.zeros(self.rows, np.int8), self.layout.split
        if name is not None:
            batches = self._between([name], size=SPLIT_ROWS)
            found = np.concatenate([_codes(batch, name, place) for batch, place in batches])
        elif self.source is not None:
            found = np.repeat(np.arange(4, dtype=np.int8), self.source.named)
        return np.where(self.lacking, np.int8(-1), found) if self.missing == "drop" else found

    @property
    def named(self) -> Counts:
        """Rows of the splits that the source names; all are training rows if it names none."""
        return Counts.of_codes(self.split_codes)

    def assigned(self, counts: Counts, seed: int | None) -> np.ndarray:
        """Returns the number of each row's split, with shape (N,), or -1 if it is left out.

        Rows of ``counts`` that lack an entry are left out of the test and selection splits: exact
        likelihoods are of complete rows.

        Raises:
            BadInput: If fewer than two rows of such a split are left.
        """
        found = assign(self.split_codes, counts, seed)
        for split in ("test", SELECTION):
            of_split = found == Counts._fields.index(split)
            left = int((of_split & ~self.lacking).sum())
            if left < min(2, counts.of(split)):
                raise BadInput(
                    f"{self.label}: found {left} of {counts.of(split)} {split} rows without a "
                    "missing entry, expected at least 2, whose likelihood is exact: name complete "
                    f"rows for {split} in a column {COLUMN}, or use more rows or fewer columns"
                )
            found[of_split & self.lacking] = -1
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
        sizes = {"validation": validation, "test": test, "selection": selection}
        default = {"validation": 0.1, "test": 0.1, "selection": None}
        if self.source is not None:
            default |= {"validation": self.source.validation, "test": self.source.test}
        for split, size in sizes.items():
            if named.of(split) and self.layout.split and size is not None:
                raise BadInput(
                    f"{split}: found {size!r}, expected none: column {self.layout.split} of "
                    f"{self.label} names {named.of(split)} {split} rows"
                )
            if size is None:
                sizes[split] = (self.layout.split and named.of(split)) or default[split]
        return split_counts(named, label=self.label, rows=rows, **sizes)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch: bounded in bytes even when it is turned into float64."""
        return max(1, min(65536, BATCH_BYTES // (8 * self.layout.width)))

    def levelled(self, splits: np.ndarray | None = None) -> "Reader":
        """Returns the source with levels of its columns of categories; reads these columns.

        Arguments:
            splits: Those of ``assigned``: the levels are those of training rows, of contexts too.
                None: levels of features that are not known yet are those of all rows.
        """
        layout = self.layout
        data, given = layout.data, layout.given
        if splits is not None or () in data.levels:
            data = data.with_levels(self._levels(data.categories, "columns", splits))
        if splits is not None:
            given = given.with_levels(self._levels(given.categories, "context", splits))
        return replace(self, layout=replace(layout, data=data, given=given))

    def levels(self, splits: np.ndarray) -> Levels:
        """Returns the levels of the columns of context among training rows, as ``levelled``."""
        return self.levelled(splits).layout.given.levels

    def _levels(
        self, names: Sequence[str], option: str, splits: np.ndarray | None
    ) -> dict[str, tuple[str, ...]]:
        batches = (batch for batch, _ in self._between(names, size=SPLIT_ROWS)) if names else ()
        training = None if splits is None else splits == 0
        try:
            found = _levels_of(names, batches, training, label=self.label, option=option)
        except _Crowded as error:
            raise self._misread(error.name) or error from None
        mixed = [name for name, levels in found.items() if len({*map(is_numeral, levels)}) > 1]
        for name in mixed if self.parts[0].kind == "CSV" else ():  # which has no types of its own
            if bad := self._misread(name):
                raise bad
        return found

    def _misread(self, name: str) -> BadInput | None:
        """Returns the line on the first value that is no number where nearly all others are."""
        found, counts = None, Counter()
        for batch, place in self._between([name], size=SPLIT_ROWS):
            values = as_text(batch.column(name)).to_pylist()
            right = [value is None or is_numeral(value) for value in values]
            counts.update(value is None or is_numeral(value.replace(",", "")) for value in values)
            if found is None and not all(right):
                row = right.index(False)
                found = place.bad(row, name, values[row], f"a number{_advice(values[row])}")
        return found if counts[False] <= SPOILT * counts.total() else None

    def batches(self, splits: np.ndarray | None = None) -> Iterator[Rows]:
        """Yields checked rows in order; missing entries are NaN, where they are allowed.

        Arguments:
            splits: Those of ``assigned``; rows that are left out are not checked.
        """
        layout, start = self.layout, 0
        given, label, lacking = layout.given, layout.label, None if self.missing else LACKING
        for batch, place in self._between(layout.reads):
            used = None if splits is None else splits[start : start + len(batch)] >= 0
            start, place = start + len(batch), place._replace(used=used)
            context = given.stored(batch, place) if given.names else None
            labels = None
            if label in given.names:
                numbers = context[:, given.names.index(label)]
                labels = np.nan_to_num(numbers, nan=-1, posinf=-1).astype(np.int64)
            elif label is not None:
                labels = _as_labels(batch, label, place)
            x = _as_matrix(batch, layout, place._replace(lacking=lacking))
            yield Rows(x, labels, context)

    def window(self, first: int, last: int, *, missing: bool = False) -> np.ndarray:
        """Returns the checked rows ``first`` … ``last`` − 1, in a matrix with shape (B, D).

        With ``missing``, a null or NaN of real data is taken, as NaN.
        """
        lacking = None if missing else DRAWN
        batches = self._between(self.layout.columns, first, last)
        pairs = ((batch, place._replace(lacking=lacking)) for batch, place in batches)
        return np.concatenate([_as_matrix(batch, self.layout, place) for batch, place in pairs])

    def contexts(self, first: int, last: int, levels: Levels) -> np.ndarray:
        """Returns the checked contexts of rows ``first`` … ``last`` − 1, with shape (B, K)."""
        given = replace(self.layout.given, levels=levels)
        batches = self._between(given.names, first, last)
        return np.concatenate([given.stored(*each) for each in batches])

    def _between(
        self,
        names: Sequence[str],
        first: int = 0,
        last: int | None = None,
        size: int | None = None,
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yields the batches of all rows, or of ``first`` … ``last`` − 1, and where they are."""
        start, size = 0, size or self.batch_rows
        for part in self.parts:
            if last is None:
                yield from part.batches(names, size)
            elif first < start + part.rows and start < last:
                yield from part.batches(
                    names, size, max(first - start, 0), min(last - start, part.rows)
                )
            start += part.rows

    def record(self) -> dict[str, Any]:
        """Returns what the manifest keeps of the source; reads every file for its SHA-256."""
        column = self.layout.columns[0] if self.layout.array else None
        files = [
            {"file": Path(part.label).name, "rows": part.rows, "sha256": part.sha256()}
            for part in self.parts
        ]
        resized = {"resize": self.source.resize} if self.source and self.source.resize else {}
        return {"name": self.name, "column": column, "files": files, **resized}

    @property
    def digest(self) -> str:
        """A SHA-256 of the content, the same wherever the files lie."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()


def open_source(
    source: str | Path,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    missing: str | None = None,
    context: Sequence[str] = (),
    *,
    timestamps: str | None = None,
    resize: int | None = None,
) -> Reader:
    """Opens a source and checks its schema: a named one, a file, a folder of Parquet or images.

    Files end in .parquet, .csv, .arrow, .feather, .npy or .npz. A folder with Parquet in it is a
    folder of Parquet, whatever else it holds. A name in ``SOURCES`` comes before a path (write
    ``./digits`` for that). Other arguments are those of ``prepare``; ``split`` is its
    ``split_column``.

    Raises:
        BadInput: If there is no such source, or its columns do not make a data set.
    """
    chosen = {"columns": columns, "label": label, "split": split, "context": context}
    return find_source(source, resize).reader(missing, timestamps=timestamps, **chosen)


def find_source(source: str | Path, resize: int | None = None) -> Opened:
    """Opens a source whose columns are still to be chosen; arguments as in ``open_source``."""
    if isinstance(source, str) and source in SOURCES:
        found = _rows(SOURCES[source], source, source)
    else:
        found = _at(source, resize)
    if resize is not None and not (found.source and found.source.resize):
        raise BadInput(
            f"data.resize: found {resize} for {found.label}, expected None: what is resized is a "
            "folder of images"
        )
    return found


def _at(source: str | Path, resize: int | None) -> Opened:
    """Opens a path."""
    head, slash, _ = str(source).partition("/")
    if slash and head.endswith(":") and urlsplit(head).scheme:
        raise BadInput(
            f"source: found a URL ({head}//…), expected a path: a file or folder of this machine"
        )
    path = Path(source)
    if path.is_dir() and not any(path.glob("*.parquet")):
        if (images := image_folder(path, resize)) is not None:
            return _rows(images, path.resolve().stem, str(path))
    if path.is_dir() or path.suffix in FORMATS:
        parts = (FORMATS.get(file.suffix, parquet)(file) for file in _list(path))
        return Opened(path.resolve().stem, str(path), tuple(parts))
    raise BadInput(
        f"source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
        f"a path that ends in {', '.join(FORMATS)}, or a folder of .parquet files or of .png or "
        ".jpg images; pandas converts other files: df.to_parquet(path)"
    )


def _rows(source: Source, name: str, label: str) -> Opened:
    contents = source.schema, source.rows, source.batches, source.sha256
    return Opened(name, label, (Part(label, *contents, "its kind"),), source)


def _list(path: Path) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder, expected data")
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").exists():
        raise BadInput(f"{path}: found a prepared data set, expected raw data to prepare")
    files = sorted(path.glob("[!._]*.parquet"))
    if not files:
        raise BadInput(f"{path}: found no file that ends in .parquet, .png or .jpg in this folder")
    return files


def _codes(batch: pa.RecordBatch, name: str, place: Place) -> np.ndarray:
    """Returns the numbers of the splits that a column names, as int8 with shape (B,).

    Raises:
        BadInput: At a null or another name; names the row.
    """
    column = batch.column(name)
    found = lookup(column, lambda names: [NAMES.get(n, -1) for n in names], -1).astype(np.int8)
    for row in np.flatnonzero(found < 0)[:1].tolist():
        raise place.bad(row, name, column[row].as_py(), f"one of {', '.join(NAMES)}")
    return found


class _Crowded(BadInput):
    """A column has more levels than one of categories may have."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _advice(value: str) -> str:
    if is_numeral(value.replace(",", "")):
        return " with a decimal point and no other separator"
    return (
        ", or an empty field, with which data.missing deals (of categories make a Parquet file, "
        "where text is text)"
    )


def _levels_of(
    names: Sequence[str],
    batches: Iterable[pa.RecordBatch],
    training: np.ndarray | None = None,
    *,
    label: str,
    option: str,
) -> dict[str, tuple[str, ...]]:
    """Returns the levels of columns by their names: in the order of text, or of numbers.

    Arguments:
        names: The columns.
        batches: Record batches of them.
        training: Which of all rows count, with shape (N,); None: all.
        label: Name of the source for messages.
        option: The option that chooses such columns.

    Raises:
        BadInput: If a column has no level, one alone, or more than ``MOST``.
    """
    seen, start = {name: set() for name in names}, 0
    for batch in batches:
        if training is not None:
            start, part = start + len(batch), training[start : start + len(batch)]
            batch = batch.filter(pa.array(part))
        for name, known in seen.items():
            known.update(pc.unique(as_text(batch.column(name))).drop_null().to_pylist())
            if len(known) > MOST:
                raise _Crowded(
                    name,
                    f"{label}, column {name}: found more than {MOST} levels "
                    f"({min(known)[:40]!r}, …), expected fewer, as of categories: choose others "
                    f"by {option}, or merge levels",
                )
    for name, known in seen.items():
        if len(known) < 2:
            found = f"the level {min(known)[:40]!r} alone" if known else "no value"
            rows = "rows" if training is None else "training rows"
            raise BadInput(
                f"{label}, column {name}: found {found} in the {rows}, expected two levels or "
                f"more: choose others by {option}"
            )
    return {name: _ordered(known) for name, known in seen.items()}


def _ordered(levels: set[str]) -> tuple[str, ...]:
    whole = all(level.removeprefix("-").isdecimal() for level in levels)
    return tuple(sorted(levels, key=int if whole else None))


def _as_matrix(batch: pa.RecordBatch, layout: Layout, place: Place) -> np.ndarray:
    """Returns the features of a batch, with shape (B, D), after checking every value.

    Raises:
        BadInput: At a null, NaN, infinite or too large value, or one that is no level; names the
            row and column.
    """
    if not layout.array:
        return layout.data.stored(batch, place, layout.dtype)
    lists, name, grey = batch.column(layout.columns[0]), layout.columns[0], layout.levels
    for row in np.flatnonzero(lists.is_null())[:1].tolist():
        raise place.bad(row, name, None, f"a list of {layout.width}")
    found = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), layout.width)
    if bad := place.first_bad(found, grey):
        row, k, lacking = bad
        expected = "a finite number" if grey is None else f"0 … {grey - 1}"
        raise place.bad(row, f"{name}[{k}]", lists[row].as_py()[k], expected + lacking)
    return found


def _as_labels(batch: pa.RecordBatch, name: str, place: Place) -> np.ndarray:
    """Returns the classes in a column of a batch, with shape (B,), after checking every value.

    Raises:
        BadInput: At a null, or a number that is not 0 … 9999; names the row.
    """
    column = batch.column(name)
    labels = column.to_numpy(zero_copy_only=False)
    bad = ~((labels >= 0) & (labels < CLASSES))
    for row in np.flatnonzero(bad)[:1].tolist():
        raise place.bad(row, name, column[row].as_py(), f"a class 0 … {CLASSES - 1}")
    return labels.astype(np.int64)


def _lacks(batch: pa.RecordBatch, layout: Layout, place: Place) -> np.ndarray:
    """Returns which rows of a batch lack a feature or a context, null or NaN; shape (B,)."""
    names, found = layout.given.names, np.zeros(len(batch), bool)
    if layout.array:
        found |= np.isnan(_as_matrix(batch, layout, place._replace(lacking=None))).any(1)
    else:
        names = (*layout.columns, *names)
    for name in names:
        missing = pc.is_null(batch.column(name), nan_is_null=True)
        found |= missing.to_numpy(zero_copy_only=False)
    return found
