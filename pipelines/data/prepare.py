"""From a source to a prepared folder: checked, split, written in shards, in one streamed pass.

Memory is bounded by a batch, a shard of each split and a Parquet page of each column, plus one
byte a row for its split and, while the splits are drawn, 24 bytes a row for the permutation.
"""

__all__ = ["ShardWriter", "examine", "prepare"]

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.errors import BadInput
from ebflow.files import replaced, sha256
from ebflow.tables.levels import COARSEST, expanded, titles, width
from pipelines.data.layout import Columns as Chosen
from pipelines.data.layout import Layout
from pipelines.data.manifest import (
    FEW,
    Columns,
    Context,
    Counts,
    Manifest,
    Shard,
    rule,
    shard_schema,
)
from pipelines.data.sources import Reader, Rows, open_source
from pipelines.data.statistics import Distinct, Moments

SHARD_BYTES = 32 << 20


def prepare(
    source: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    validation: int | float | None = None,
    test: int | float | None = None,
    selection: int | float | None = None,
    rows: int | None = None,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split_column: str | None = None,
    context: Sequence[str] = (),
    held_out: Literal["random", "last"] = "random",
    missing: Literal["drop", "impute"] | None = None,
    timestamps: Literal["seconds", "days"] | None = None,
    resize: int | None = None,
    shard_rows: int = 65536,
) -> Manifest:
    """Writes a source into a folder of Parquet shards with a manifest.

    Arguments:
        source: A named source, a ``.parquet`` file, or a folder of them or of images.
        output: Folder to make; it must be new or empty.
        seed: Seed of the permutation that decides the splits, or which rows of splits that the
            source names are used.
        validation: Rows of the validation split, or their fraction; None takes those that the
            source names, or its default, which is 10 % for Parquet.
        test: The same for the test split.
        selection: Rows of a split that neither training, validation nor test sees, or their
            fraction; None: there is no such split.
        rows: Rows to use in all; None uses every row.
        columns: Columns to use; None takes the one fixed-size list, or all.
        label: The column of classes 0 … C − 1, kept beside the data; None: none is kept.
        split_column: The column that names the split of each row: ``train``, ``validation``,
            ``test`` or ``selection``; None: the one called ``split``, if it holds text.
        context: The columns that rows are given, numbers or categories, kept beside the data;
            ``label`` is that of classes.
        held_out: Whether rows of splits that the source does not name are random ones, or the
            last: test rows, and before them validation rows.
        missing: What is done with rows that lack an entry, null or NaN: ``drop`` leaves them out;
            ``impute`` keeps them in the training and validation splits, whose entries are drawn,
            and leaves them out of others; None refuses them.
        timestamps: The unit in which columns of timestamps or dates are read as numbers, from
            1970 on; None refuses them.
        resize: Side to which the images of a folder are scaled and cut; None: they are of one
            size.
        shard_rows: Most rows of a shard; fewer if they would pass 32 MiB.

    Raises:
        BadInput: At the first thing wrong with the data or the options; nothing is written.
    """
    _check_natural("seed", seed, 0)
    _check_natural("shard_rows", shard_rows, 1)
    more = {"context": context, "timestamps": timestamps, "resize": resize}
    reader = open_source(source, columns, label, split_column, missing, **more)
    counts = reader.counts(validation=validation, test=test, selection=selection, rows=rows)
    _check_free(output := Path(output))
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(replaced(output))
        except OSError as error:
            raise BadInput(f"{output}: cannot be made ({error.strerror})") from None
        manifest = _write(reader, folder, counts, seed, held_out == "last", shard_rows)
        manifest.save(folder)
    return manifest


def examine(reader: Reader, counts: Counts, order: int | None, dtype: str = "float64") -> None:
    """Reads all rows and raises what ``prepare`` would; writes nothing.

    It refuses columns, too, of which ``dtype`` plainly cannot tell values apart, as a fit would.

    Arguments:
        reader: The source.
        counts: Rows of each split.
        order: The seed of the permutation that decides the splits; None: the last are held out.
        dtype: The type that they are to be used in.

    Raises:
        BadInput: At the first thing wrong with a value or a column.
    """
    splits = reader.assigned(counts, order)
    _Training(reader.levelled(splits)).read(splits, ()).expect_resolved(dtype)


class ShardWriter:
    """Appends rows to the shards of one split, each of which is one row group.

    Arguments:
        folder: Where the shards go.
        split: Name of the split, the first part of each file's name.
        width: Number of features D.
        dtype: dtype of the rows.
        shard_rows: Most rows of a shard; fewer if they would pass 32 MiB.
        metadata: Schema metadata of each shard.
        beside: Names of the integer columns beside ``x``.
        given: Numbers of a context, in a last column; 0: there is none.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        width: int,
        dtype: str,
        shard_rows: int,
        metadata: dict[str, str],
        beside: tuple[str, ...] = ("row",),
        given: int = 0,
    ) -> None:
        self.schema = shard_schema(width, dtype, beside, metadata, given)
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype)
        row_bytes = width * self.dtype.itemsize + 8 * given
        self.shard_rows = min(shard_rows, max(1, SHARD_BYTES // row_bytes))
        self.pending: list[tuple[np.ndarray, ...]] = []
        self.waiting = 0
        self.shards: list[Shard] = []

    def append(self, x: np.ndarray, *beside: np.ndarray) -> None:
        """Adds rows with shape (B, D), and what stands beside them, with shape (B,) or (B, K)."""
        while len(x):
            room = self.shard_rows - self.waiting
            self.pending.append(tuple(column[:room] for column in (x, *beside)))
            self.waiting += len(x[:room])
            x, *beside = (column[room:] for column in (x, *beside))
            if self.waiting == self.shard_rows:
                self._write()

    def close(self) -> list[Shard]:
        """Writes what is pending and returns the shards."""
        if self.waiting:
            self._write()
        return self.shards

    def _write(self) -> None:
        arrays = (np.concatenate(pieces) for pieces in zip(*self.pending, strict=True))
        columns = [_column(a, f.type) for a, f in zip(arrays, self.schema, strict=True)]
        path = self.folder / f"{self.split}-{len(self.shards):05d}.parquet"
        pq.write_table(
            pa.table(columns, schema=self.schema),
            path,
            compression="zstd",
            use_dictionary=self.dtype == "uint8",
            write_page_checksum=True,
        )
        written = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self.shards.append(Shard(split=self.split, rows=len(columns[0]), **written))
        self.pending, self.waiting = [], 0


def _column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
    return pa.array(values)


class _Training:
    """What is gathered from a source's training rows: statistics, rare values, classes."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.layout, self.rows = reader, reader.layout, 0
        self.moments = Moments(self.layout.width)
        self.distinct = Distinct(self.layout.width if self.layout.levels is None else 0, FEW)
        self.classes: Counter[int] = Counter()
        self.given = Moments(width(self.layout.given.levels))

    def read(self, splits: np.ndarray, writers: Sequence["ShardWriter"]) -> "_Training":
        """Reads all rows, gives each writer those of its split, and checks the training rows."""
        first = 0
        for rows in self.reader.batches(splits):
            numbers = np.arange(first, first + len(rows.x))
            code, first = splits[numbers], first + len(rows.x)
            columns = [c for c in (rows.x, numbers, *rows[1:]) if c is not None]
            for number, writer in enumerate(writers):
                writer.append(*(column[code == number] for column in columns))
            self._update(Rows(*(None if c is None else c[code == 0] for c in rows)))
        self._check()
        return self

    def _update(self, rows: Rows) -> None:
        self.rows += len(rows.x)
        self.moments.update(rows.x)
        self.distinct.update(rows.x)
        if rows.labels is not None:
            self.classes.update(rows.labels.tolist())
        if rows.context is not None:
            self.given.update(expanded(rows.context, self.layout.given.levels))

    def _check(self) -> None:
        """Raises BadInput if a feature or context cannot be modelled, or classes are missing."""
        found, given, layout = self.moments, self.given, self.layout
        least, most, among = found.min, found.max, f"in all {self.rows} training rows"
        self._refuse(
            found.count == 0,
            lambda k: f"found no value {among}, expected some: choose others by columns",
        )
        self._refuse(
            ~np.isfinite(found.squares),
            lambda k: (
                f"found values from {least[k]!s} to {most[k]!s}, expected a finite variance: "
                "rescale it"
            ),
        )
        self._refuse(
            (least == most) & (not layout.array),
            lambda k: (
                f"found the constant {least[k]!s} {among}, expected values that vary: choose "
                "others by columns"
            ),
        )
        self._refuse(
            ~np.isfinite(given.squares) | (given.min == given.max),
            lambda k: (
                f"found values from {given.min[k]!s} to {given.max[k]!s} {among}, expected "
                "a context of finite variance above 0: choose others by context"
            ),
            titles(layout.given.names, layout.given.levels),
        )
        if layout.label is not None:
            self._check_classes()

    def expect_resolved(self, dtype: str) -> None:
        """Raises BadInput where a type is too coarse for all that a feature's values span."""
        if self.layout.levels is not None:
            return
        least, most = self.moments.min.astype(float), self.moments.max.astype(float)
        nearest = np.where((least > 0) | (most < 0), np.minimum(abs(least), abs(most)), 0)
        coarse = np.finfo(dtype).eps * nearest > COARSEST * (most - least)
        bad = coarse & (least < most)
        for k in np.flatnonzero(bad)[:1].tolist():
            raise BadInput(
                f"dtype: found {dtype}, which cannot resolve column {self.layout.features[k]} "
                f"(all of its training values lie in [{least[k]:.6g}, {most[k]:.6g}]), expected "
                "a finer type, or values nearer to 0: subtract an offset"
            )

    def _refuse(
        self, bad: np.ndarray, describe: Callable[[int], str], names: Sequence[str] | None = None
    ) -> None:
        for k in np.flatnonzero(bad)[:1].tolist():
            name = (names or self.layout.features)[k]
            raise BadInput(f"{self.reader.label}, column {name}: {describe(k)}")

    def _check_classes(self) -> None:
        """A class of other splits alone is found where their labels are read."""
        where, last = f"{self.reader.label}, column {self.layout.label}", max(self.classes)
        if missing := [k for k in range(last) if k not in self.classes]:
            raise BadInput(
                f"{where}: found no training row of class {missing[0]}, expected some of every "
                f"class 0 … {last}"
            )
        if not last:
            raise BadInput(f"{where}: found one class, expected two or more")

    def few(self) -> tuple[int, ...]:
        """Returns the features with few values, but for those of categories."""
        layout = self.layout
        known = (None,) * layout.width if layout.array else layout.data.levels
        return tuple(
            feature
            for feature, count in self.distinct.counts().items()
            if 2 * count <= self.rows and known[feature] is None
        )

    def context(self) -> Context | None:
        """Returns what the manifest keeps of the columns of context."""
        given, found = self.layout.given, self.given.summary()
        if not given.names:
            return None
        label = self.layout.label if self.layout.label in given.names else None
        known = {**_named(given), "levels": given.levels, "label": label}
        return Context(**known, mean=found.mean, std=found.std)


def _write(
    reader: Reader, folder: Path, counts: Counts, seed: int, last: bool, shard_rows: int
) -> Manifest:
    order = None if last else seed
    splits = reader.assigned(counts, order)
    levelled = reader.levelled(splits)
    layout = levelled.layout
    writers = [_writer(folder, split, layout, shard_rows) for split in counts.splits]
    training = _Training(levelled).read(splits, writers)
    requested, counts = counts, Counts.of_codes(splits)
    lacking = Counts.of_codes(splits[reader.lacking])
    kept = {split: n for split, n in lacking._asdict().items() if n}
    data = layout.data
    described = {**_named(data), "timestamps": data.timestamps, "categories": data.levels}
    return Manifest(
        name=reader.name,
        source=reader.record(),
        shape=layout.shape,
        dtype=layout.dtype,
        levels=layout.levels,
        columns=None if layout.array else Columns(**described),
        counts={split: counts.of(split) for split in counts.splits},
        shards=tuple(shard for writer in writers for shard in writer.close()),
        statistics=training.moments.summary(),
        seed=seed,
        assignment=rule(reader.named, requested, order, layout.split),
        incomplete=kept,
        warnings=(*layout.warnings, *_missing_remarks(reader, requested, counts, kept)),
        few=training.few(),
        classes=len(training.classes) or None,
        context=training.context(),
    )


def _named(columns: Chosen) -> dict[str, Any]:
    types = tuple(map(str, columns.types))
    return {"names": columns.names, "types": types, "units": columns.units}


def _missing_remarks(
    reader: Reader, requested: Counts, counts: Counts, kept: dict[str, int]
) -> tuple[str, ...]:
    """Returns what to tell of rows that lack entries, if there are any."""
    if not reader.lacking.any():
        return ()
    if reader.missing == "drop":
        return (f"{int(reader.lacking.sum())} of {reader.rows} rows lack an entry, left out",)
    drawn = ", ".join(f"{n} of {counts.of(split)} {split} rows" for split, n in kept.items())
    out = ", ".join(
        f"{requested.of(split) - counts.of(split)} of {requested.of(split)} {split} rows"
        for split in requested.splits
        if requested.of(split) > counts.of(split)
    )
    remarks = (
        f"{drawn} lack entries, which are drawn: the likelihood of such rows is that of completed "
        "ones",
        f"{out} lack entries, left out: their likelihood is that of complete rows",
    )
    return tuple(line for line, some in zip(remarks, (drawn, out), strict=True) if some)


def _writer(folder: Path, split: str, layout: Layout, shard_rows: int) -> ShardWriter:
    metadata = {"split": split, "shape": json.dumps(layout.shape)}
    if layout.levels is not None:
        metadata["levels"] = json.dumps(layout.levels)
    beside = ("row",) if layout.label is None else ("row", "label")
    sizes = (layout.width, layout.dtype, shard_rows)
    return ShardWriter(folder, split, *sizes, metadata, beside, len(layout.given.names))


def _check_natural(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise BadInput(f"{name}: found {value!r}, expected a whole number of at least {least}")


def _check_free(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise BadInput(f"{output}: exists already, expected a new or empty folder")
