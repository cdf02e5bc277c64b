"""From a source to a prepared folder: checked, split, written in shards, in one streamed pass.

Memory is bounded by a batch, a row group of each split and a Parquet page of each column, plus
one byte a row for its split and, while the splits are drawn, 24 bytes a row for the permutation.
"""

__all__ = ["prepare"]

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ebflow.data.layout import Layout
from ebflow.data.moments import Distinct, Moments
from ebflow.data.reader import Reader
from ebflow.data.schema import Manifest
from ebflow.data.sources import open_source
from ebflow.data.splits import ASSIGNMENT, OWN_ASSIGNMENT, Counts, assign
from ebflow.data.writer import ShardWriter, staged
from ebflow.errors import BadInput

FEW = 10


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
    shard_rows: int = 65536,
) -> Manifest:
    """Writes a source into a folder of Parquet shards with a manifest.

    Arguments:
        source: A named source, a ``.parquet`` file, or a folder of them or of images.
        output: Folder to make; it must be new or empty.
        seed: Seed of the permutation that decides the splits, or which rows of fixed splits are
            used.
        validation: Rows of the validation split, or their fraction; None takes the source's
            default, which is 10 % for Parquet.
        test: The same for the test split.
        selection: Rows of a split that neither training, validation nor test sees, or their
            fraction; None: there is no such split.
        rows: Rows to use in all, drawn at random; None uses every row.
        columns: Columns to use; None takes the one fixed-size list, or all.
        label: The column of classes 0 … C − 1, kept beside the data; None: none is kept.
        shard_rows: Most rows of a shard.

    Raises:
        BadInput: At the first thing wrong with the data or the options; nothing is written.
    """
    _check_natural("data.seed", seed, 0)
    _check_natural("shard_rows", shard_rows, 1)
    reader = open_source(source, columns, label)
    counts = reader.counts(validation=validation, test=test, selection=selection, rows=rows)
    with staged(Path(output)) as folder:
        manifest = _write(reader, folder, counts, seed, shard_rows)
        manifest.save(folder)
    return manifest


def _write(reader: Reader, folder: Path, counts: Counts, seed: int, shard_rows: int) -> Manifest:
    layout = reader.layout
    moments, distinct = Moments(layout.width), Distinct(layout.width, FEW)
    classes = Counter()
    with ExitStack() as stack:
        writers = [_writer(folder, split, layout, shard_rows) for split in counts.splits]
        for writer in writers:
            stack.callback(writer.abort)
        for x, beside, code in _routed(reader, assign(reader.rows, counts, seed, reader.own)):
            for split, writer in enumerate(writers):
                writer.append(x[code == split], *(column[code == split] for column in beside))
            if layout.label is not None:
                classes.update(beside[1][code == 0].tolist())
            moments.update(x[code == 0])
            if layout.levels is None:
                distinct.update(x[code == 0])
        _check_spread(reader, moments)
        _check_classes(reader, classes)
        shards = tuple(shard for writer in writers for shard in writer.close())
    return Manifest(
        name=reader.name,
        source=reader.record(),
        shape=layout.shape,
        dtype=layout.dtype,
        levels=layout.levels,
        columns=layout.names,
        counts={split: counts.of(split) for split in counts.splits},
        shards=shards,
        statistics=moments.summary(),
        seed=seed,
        assignment=OWN_ASSIGNMENT if reader.fixed else ASSIGNMENT,
        warnings=layout.warnings + _few_warnings(layout, distinct, counts.train),
        classes=len(classes) or None,
    )


def _routed(
    reader: Reader, splits: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]]:
    """Yields matrices, what stands beside them (row numbers, classes), and splits by number."""
    first = 0
    for x, labels in reader.labelled():
        rows = np.arange(first, first + len(x))
        yield x, (rows,) if labels is None else (rows, labels), splits[rows]
        first += len(x)


def _check_classes(reader: Reader, classes: Counter) -> None:
    """Raises BadInput unless the training rows have two or more classes, and all below the last.

    A class of other splits alone is found where their labels are read.
    """
    if reader.layout.label is None:
        return
    where = f"{reader.label}, column {reader.layout.label}"
    missing = [k for k in range(max(classes)) if k not in classes]
    if missing:
        raise BadInput(
            f"{where}: found no training row of class {missing[0]}, expected some of every class "
            f"0 … {max(classes)}"
        )
    if len(classes) < 2:
        raise BadInput(f"{where}: found one class, expected two or more")


def _writer(folder: Path, split: str, layout: Layout, shard_rows: int) -> ShardWriter:
    beside = ("row",) if layout.label is None else ("row", "label")
    metadata = {"split": split, "shape": json.dumps(layout.shape)}
    if layout.levels is not None:
        metadata["levels"] = json.dumps(layout.levels)
    return ShardWriter(folder, split, layout.width, layout.dtype, shard_rows, metadata, beside)


def _check_spread(reader: Reader, moments: Moments) -> None:
    for feature in np.flatnonzero(~np.isfinite(moments.squares))[:1]:
        raise BadInput(
            f"{reader.label}, {reader.layout.feature(feature)}: found values from "
            f"{moments.min[feature]!s} to {moments.max[feature]!s}, expected a finite variance: "
            "rescale it"
        )
    if reader.layout.array:
        return
    for feature in np.flatnonzero(moments.min == moments.max)[:1]:
        raise BadInput(
            f"{reader.label}, {reader.layout.feature(feature)}: found the constant "
            f"{moments.min[feature]!s} in all {moments.count} training rows, expected values that "
            "vary: choose columns with --data.columns"
        )


def _few_warnings(layout: Layout, distinct: Distinct, rows: int) -> tuple[str, ...]:
    if layout.levels is not None:
        return ()
    few = {f: n for f, n in distinct.counts().items() if 2 * n <= rows}
    reason = "no density: likelihoods of a continuous model are unbounded there"
    if layout.array and few:
        return (f"{len(few)} of {layout.width} features have at most {FEW} values, so {reason}",)
    return tuple(
        f"{layout.feature(f)} has only {n} distinct values in {rows} training rows, so {reason}"
        for f, n in few.items()
    )


def _check_natural(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise BadInput(f"{name}: found {value!r}, expected a whole number of at least {least}")
