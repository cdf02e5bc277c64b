"""Where data comes from: named sources, the user's files, or a folder of images.

To add a named source, write a function that yields its rows as matrices, and enter it in
``SOURCES``.
"""

__all__ = ["SOURCES", "Opened", "Reader", "Rows", "Source", "describe", "find_source",
           "open_source"]  # fmt: skip

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from ..files import sha256
from . import images
from .context import Levels
from .formats import FORMATS
from .given import as_given, check_kinds, lacks, levels_of, read_given
from .splits import COLUMN, SELECTION, Counts, assign, codes, rule, split_counts
from .table import (
    DRAWN,
    LABEL,
    LACKING,
    Layout,
    as_labels,
    as_matrix,
    read_layout,
    same_layout,
)

BATCH_BYTES = 16 << 20
SPLIT_ROWS = 1 << 20


@dataclass(frozen=True)
class Source:
    """A data set.

    Arguments:
        read: Yields its rows in order, as matrices of any number of rows; the rows of a large
            one a few at a time, or memory-mapped.
        rows: Number of examples.
        shape: Shape of an example; D is its product.
        levels: Number of levels of uint8 data; None: float64 columns x1 … xD.
        description: What an example is.
        provenance: Who made it, and where the bytes come from.
        validation: Default size of the validation split: rows, or a fraction.
        test: Default size of the test split.
        fixed: Whether the source fixes its splits: the last ``test`` rows are for testing, the
            ``validation`` rows before them for validation, all others for training.
        files: Returns the files that hold it; None: none do, and its rows are its content.
        labels: Returns the classes of all rows, in order; None: it has none.
        names: The columns of reals; empty: x1 … xD.
        folders: The sub-folders that are the classes of images, in the order of their numbers.
        side: The width of a folder's images, None of other sources.
        resized: Whether they are scaled to it.
    """

    read: Callable[[], Iterator[np.ndarray]]
    rows: int
    shape: tuple[int, ...]
    levels: int | None
    description: str
    provenance: str
    validation: int | float = 0.1
    test: int | float = 0.1
    fixed: bool = False
    files: Callable[[], Sequence[Path]] | None = None
    labels: Callable[[], np.ndarray] | None = None
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    side: int | None = None
    resized: bool = False

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        """dtype of the rows."""
        return "float64" if self.levels is None else "uint8"

    @property
    def named(self) -> Counts:
        """Rows of the splits that the source fixes; all are training rows if it fixes none."""
        held = (self.validation, self.test) if self.fixed else (0, 0)
        return Counts(self.rows - sum(held), *held)

    @property
    def schema(self) -> pa.Schema:
        """One fixed-size list of levels, or D columns of reals; ``label`` if it has classes."""
        if self.levels is None:
            names = self.names or [f"x{j + 1}" for j in range(self.width)]
            return pa.schema([(name, pa.float64()) for name in names])
        metadata = {"shape": json.dumps(self.shape), "levels": json.dumps(self.levels)}
        beside = [] if self.labels is None else [(LABEL, pa.int64())]
        return pa.schema([("image", pa.list_(pa.uint8(), self.width)), *beside], metadata=metadata)

    def batches(self, names: Sequence[str], size: int, start: int) -> Iterator[pa.RecordBatch]:
        """Yields columns from row ``start`` on, in batches of at most ``size`` rows."""
        labels, first = self.labels() if LABEL in names else None, 0
        for rows in self.read():
            skipped = min(max(0, start - first), len(rows))
            first += skipped
            for k in range(skipped, len(rows), size):
                columns = self._columns(rows[k : k + size])
                count = len(rows[k : k + size])
                if labels is not None:
                    columns[LABEL] = pa.array(labels[first : first + count], pa.int64())
                first += count
                yield pa.record_batch({name: columns[name] for name in names})

    def sha256(self, label: str | None = None) -> str:
        """Returns a SHA-256 of the files, or else of the rows; not of where they lie.

        That of the column ``label`` is included.
        """
        if self.files is None:
            total = hashlib.sha256(json.dumps([self.shape, self.levels]).encode())
            for rows in self.read():
                total.update(np.ascontiguousarray(rows, dtype=self.dtype))
        else:
            total = hashlib.sha256(b"".join(map(_digest, self.files())))
        if label is None:
            return total.hexdigest()
        labels = np.ascontiguousarray(self.labels(), dtype="int64")
        return hashlib.sha256(total.hexdigest().encode() + labels.tobytes()).hexdigest()

    def _columns(self, rows: np.ndarray) -> dict[str, pa.Array]:
        x = np.ascontiguousarray(rows, dtype=self.dtype).reshape(len(rows), self.width)
        if self.levels is None:
            return dict(zip(self.schema.names, map(pa.array, x.T.copy()), strict=True))
        return {"image": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), self.width)}


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
            for batch, _ in _placed(part, names, SPLIT_ROWS):
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
            yield from _placed(part, self.layout.reads, self.batch_rows)

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
                yield from _placed(part, names, self.batch_rows, begin, end)

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
        for batch, where in _placed(part, [name], SPLIT_ROWS):
            yield codes(batch.column(name), name=name, **where)


def _placed(
    part: Part, names: Sequence[str], size: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
    """Yields a part's batches and where they are; raises BadInput unless it has its rows.

    They are all of its rows, or those from ``first`` on and before ``last``.
    """
    for batch in part.open(names, size, first):
        batch = batch if last is None else batch.slice(0, last - first)
        yield batch, {"file": part.label, "first": first}
        first += len(batch)
        if first == last:
            return
    if first != part.rows:
        raise BadInput(f"{part.label}: found {first} rows, expected {part.rows} (its footer)")


class Opened(NamedTuple):
    """A source of which no column has been chosen.

    Arguments:
        name: Name of the data set.
        label: The source as the user named it, for messages.
        parts: Its files, in the order of their rows.
        schemas: Their schemas.
        positional: Whether its columns have no names of their own.
        source: The named source that it is, or a folder of images.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    schemas: tuple[pa.Schema, ...]
    positional: bool = False
    source: Source | None = None

    def contexts(self, names: Sequence[str], levels: Levels) -> np.ndarray:
        """Returns the checked contexts of all rows, with shape (N, K).

        Raises:
            BadInput: If a column is missing or of another kind, or a value is no level.
        """
        found = []
        for part, schema in zip(self.parts, self.schemas, strict=True):
            given = read_given(schema, names, file=part.label)
            check_kinds(given, levels, label=part.label)
            for batch, where in _placed(part, names, SPLIT_ROWS):
                found.append(as_given(batch, given, levels, **where))
        return np.concatenate([np.empty((0, len(names))), *found])

    def reader(self, missing: str | None = None, **chosen: Any) -> Reader:  # noqa: ANN401
        """Chooses columns; options and errors of ``open_source``."""
        pairs = list(zip(self.parts, self.schemas, strict=True))
        layouts = [read_layout(schema, file=part.label, **chosen) for part, schema in pairs]
        for part, layout in zip(self.parts, layouts, strict=True):
            same_layout(layouts[0], layout, first_file=self.parts[0].label, file=part.label)
        if not any(part.rows for part in self.parts):
            raise BadInput(f"{self.label}: found 0 rows, expected at least 4 (to split them)")
        parts = self.parts
        if self.source is not None:
            digest = partial(self.source.sha256, layouts[0].label)
            parts = tuple(part._replace(sha256=digest) for part in parts)
        layout = layouts[0]
        if self.source is not None and self.source.folders and layout.label:
            told = f"classes 0, 1, … are the folders {', '.join(self.source.folders)}"
            layout = replace(layout, warnings=(*layout.warnings, told))
        return Reader(self.name, self.label, parts, layout, self.source, missing)


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
    folder of Parquet, whatever else it holds.

    Arguments:
        source: A name in ``SOURCES`` or a path; names come first (write ``./digits`` for a path).
        columns: The columns to use; None takes the one fixed-size list, or all.
        label: The column of classes, ``label`` of a named source; None: none is read.
        split: The column that names the split of each row; None: ``split``, if it holds text.
        missing: What is done with rows that lack an entry, ``drop`` or ``impute``; None: they are
            refused.
        context: The columns that are given; ``label`` is that of classes.
        timestamps: The unit in which timestamps are read as numbers; None: they are refused.
        resize: Side to which the images of a folder are scaled and cut; None: they are of one
            size.

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
    if resize is not None and not (found.source and found.source.resized):
        raise BadInput(
            f"data.resize: found {resize} for {found.label}, expected None: what is resized is a "
            "folder of images"
        )
    return found


def _at(source: str | Path, resize: int | None) -> Opened:
    """Opens a path.

    Images are those of a folder, or of its sub-folders, which are their classes.
    """
    if _is_url(str(source)):
        raise BadInput(
            f"source: found a URL ({str(source).partition('/')[0]}//…), expected a path: a file "
            "or folder of this machine"
        )
    path = Path(source)
    if path.is_dir() and not any(path.glob("*.parquet")):
        files = images.find_images(path)
        classes = {} if files else images.find_classes(path)
        if files or classes:
            folder = _image_folder(path, files, classes, resize)
            return _rows(folder, path.resolve().stem, str(path))
    if path.is_dir() or path.suffix in FORMATS:
        return _files(path)
    raise BadInput(
        f"source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
        f"a path that ends in {', '.join(FORMATS)}, or a folder of .parquet files or of .png or "
        ".jpg images; pandas converts other files: df.to_parquet(path)"
    )


def describe() -> list[dict[str, str]]:
    """Returns name, rows, shape, description and provenance of every named source, as text."""
    return [
        {
            "name": name,
            "rows": str(source.rows),
            "shape": "×".join(map(str, source.shape)),
            "description": source.description,
            "provenance": source.provenance,
        }
        for name, source in SOURCES.items()
    ]


def _rows(source: Source, name: str, label: str) -> Opened:
    part = Part(label, source.rows, source.batches, source.sha256)
    return Opened(name, label, (part,), (source.schema,), source=source)


def _files(path: Path) -> Opened:
    """Opens a file or a folder of Parquet; reads only what tells their columns and rows."""
    found = {file: FORMATS.get(file.suffix, FORMATS[".parquet"])(file) for file in _list(path)}
    parts = tuple(
        Part(str(file), one.rows, one.open, partial(sha256, file)) for file, one in found.items()
    )
    schemas = tuple(one.schema for one in found.values())
    positional = any(one.positional for one in found.values())
    return Opened(path.resolve().stem, str(path), parts, schemas, positional)


def _image_folder(
    folder: Path, files: Sequence[Path], classes: Mapping[str, Sequence[Path]], side: int | None
) -> Source:
    """Returns images as a source, those of classes in the order of these; reads only the first."""
    files = files or [file for found in classes.values() for file in found]
    one = images.decode if side is None else partial(images.scaled, side=side)
    shape = images.planes(one(files[0])).shape
    read = partial(images.folder_rows, files, shape, resize=side is not None)
    about = "images of a folder", str(folder)
    sizes = [len(found) for found in classes.values()]
    labels = partial(np.repeat, np.arange(len(sizes)), sizes) if sizes else None
    options = {
        "files": lambda: files,
        "labels": labels,
        "side": shape[2],
        "resized": side is not None,
        "folders": tuple(classes),
    }
    return Source(read, len(files), shape, 256, *about, **options)


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


def _digest(file: Path) -> bytes:
    try:
        return bytes.fromhex(sha256(file))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None


def _is_url(place: str) -> bool:
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)


def _digits(part: str) -> Any:  # noqa: ANN401
    from sklearn.datasets import load_digits

    return load_digits()[part]


def _table(load: str) -> np.ndarray:
    from sklearn import datasets

    options = {"scaled": False} if load == "load_diabetes" else {}
    return getattr(datasets, load)(**options).data


def _toy(name: str) -> Iterator[np.ndarray]:
    import torch

    from ..randomness import generator
    from .toy import SAMPLERS, ring

    law = ring(dtype=torch.float64)
    samplers = {"ring": lambda n, generator, dtype: law.sample(n, generator=generator), **SAMPLERS}
    draws = generator(0, "toy", name)
    yield samplers[name](TOY, generator=draws, dtype=torch.float64).numpy()


TOY, HELD = 70_000, 10_000
"""Samples of a toy density, and those of them for validation and for testing."""

EBFLOW = "drawn here with a fixed seed by the formula of EBFlow (Chao et al., 2023)"


def _drawn(name: str, width: int, description: str, provenance: str = EBFLOW) -> Source:
    about = description, provenance
    return Source(partial(_toy, name), TOY, (width,), None, *about, HELD, HELD)


def _fixed(
    read: Callable[[], Iterator[np.ndarray]],
    shape: tuple[int, ...],
    counts: Counts,
    description: str,
    provenance: str,
    files: Callable[[], Sequence[Path]] | None = None,
    labels: Callable[[], np.ndarray] | None = None,
) -> Source:
    """Returns images of 256 levels in the order of their splits."""
    about, held = (description, provenance), (counts.validation, counts.test)
    return Source(read, sum(counts), shape, 256, *about, *held, True, files, labels)


def _patches(size: int, *, grey: bool = False) -> Source:
    return _fixed(
        partial(images.natural_patches, size, grey=grey),
        (1 if grey else 3, size, size),
        images.PATCHES,
        f"patches of photographs, {'grey' if grey else 'RGB'}",
        "two photographs bundled with scikit-learn (CC BY 2.0), split by place",
    )


def _binary(
    records: Sequence[images.Records],
    shape: tuple[int, ...],
    train: int,
    description: str,
    provenance: str,
    classes: Sequence[images.Records],
) -> Source:
    return _fixed(
        partial(images.binary, records),
        shape,
        Counts(train, HELD, HELD),
        description,
        f"{provenance}, to be fetched; the last 10,000 training images are for validation",
        partial(images.paths, records),
        partial(images.classes, classes),
    )


NUCLEUS = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
           "concave_points", "symmetry", "fractal_dimension")  # fmt: skip

TABLES = {
    "load_breast_cancer": (
        569,
        tuple(f"{kind}_{name}" for kind in ("mean", "error", "worst") for name in NUCLEUS),
        "shapes of cell nuclei in pictures of breast masses",
        "Breast Cancer Wisconsin, diagnostic (Wolberg, Mangasarian, Street and Street, 1995)",
    ),
    "load_wine": (
        178,
        ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols",
         "flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue",
         "od280_od315", "proline"),
        "chemical analyses of wines",
        "Wine (Aeberhard and Forina, 1991)",
    ),
    "load_diabetes": (
        442,
        ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
        "measurements of patients with diabetes",
        "Least Angle Regression (Efron, Hastie, Johnstone and Tibshirani, 2004)",
    ),
}  # fmt: skip
"""scikit-learn's tables by how they are loaded: rows, columns, what they are, who made them."""


SOURCES: dict[str, Source] = {
    "digits": Source(
        read=lambda: iter([_digits("images")]),
        rows=1797,
        shape=(8, 8),
        levels=17,
        description="handwritten digits, grey levels 0 … 16",
        provenance="test part of UCI Optical Recognition of Handwritten Digits (Alpaydin and "
        "Kaynak, 1998), bundled with scikit-learn",
        validation=250,
        test=250,
        labels=partial(_digits, "target"),
    ),
    "sine": _drawn("sine", 2, "points along a noisy sine wave"),
    "swirl": _drawn("swirl", 2, "points on an arm of a spiral"),
    "checkerboard": _drawn("checkerboard", 2, "points on eight squares of a board"),
    "multimodal10": _drawn("multimodal10", 10, "512 modes at doubling distances"),
    "eight-gaussians": _drawn(
        "ring", 2, "a mixture of eight Gaussians on a circle", "drawn here with a fixed seed"
    ),
    **{
        load.removeprefix("load_").replace("_", "-"): Source(
            read=lambda load=load: iter([_table(load)]),
            rows=rows,
            shape=(len(names),),
            levels=None,
            description=description,
            provenance=f"{provenance}, bundled with scikit-learn",
            validation=rows * 15 // 100,
            test=rows // 4,
            names=names,
        )
        for load, (rows, names, description, provenance) in TABLES.items()
    },
    "natural-patches": _patches(32),
    "natural-patches-16": _patches(16),
    "natural-patches-8": _patches(8, grey=True),
    "mnist": _binary(
        images.MNIST,
        (1, 28, 28),
        50_000,
        "handwritten digits, grey",
        "MNIST (LeCun, Cortes and Burges, 1998)",
        images.MNIST_CLASSES,
    ),
    "cifar10": _binary(
        images.CIFAR10,
        (3, 32, 32),
        40_000,
        "photographs of ten kinds of things, RGB",
        "CIFAR-10 (Krizhevsky, 2009), binary version",
        images.CIFAR10,
    ),
    "cifar100": _binary(
        images.CIFAR100,
        (3, 32, 32),
        40_000,
        "photographs of a hundred kinds of things, RGB",
        "CIFAR-100 (Krizhevsky, 2009), binary version",
        images.CIFAR100,
    ),
    "stl10": _fixed(
        partial(images.stl10, images.STL10),
        (3, 64, 64),
        Counts(5_000, 4_000, 4_000),
        "photographs of ten kinds of things, RGB, scaled from 96×96",
        "labelled part of STL-10 (Coates, Ng and Lee, 2011), to be fetched; its test images are "
        "halved into validation and test",
        partial(images.paths, images.STL10),
    ),
    "celeba": _fixed(
        partial(images.celeba, images.CELEBA),
        (3, 64, 64),
        images.CELEBA.counts,
        "faces, RGB, scaled and cut from 178×218",
        "the first 5,000, 1,000 and 1,000 images of the parts for training, validation and "
        "testing of CelebA (Liu, Luo, Wang and Tang, 2015), to be fetched",
        images.CELEBA.files,
    ),
}
