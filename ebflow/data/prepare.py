"""From a source to a prepared folder: checked, split, written in shards, in one streamed pass.

Memory is bounded by a batch, a row group of each split and a Parquet page of each column, plus
one byte a row for its split and, while the splits are drawn, 24 bytes a row for the permutation.
"""

__all__ = ["Distinct", "Moments", "ShardWriter", "prepare"]

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadInput
from ..files import move, sha256
from .manifest import ASSIGNMENT, OWN_ASSIGNMENT, Counts, Manifest, Shard, assign
from .sources import Reader, open_source
from .table import Layout

FEW = 10
GROUP_BYTES = 4 << 20
SHARD_BYTES = 64 << 20


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
    _check_natural("seed", seed, 0)
    _check_natural("shard_rows", shard_rows, 1)
    reader = open_source(source, columns, label)
    counts = reader.counts(validation=validation, test=test, selection=selection, rows=rows)
    with _staged(Path(output)) as folder:
        manifest = _write(reader, folder, counts, seed, shard_rows)
        manifest.save(folder)
    return manifest


class ShardWriter:
    """Appends rows to the shards of one split.

    Arguments:
        folder: Where the shards go.
        split: Name of the split, the first part of each file's name.
        width: Number of features D.
        dtype: dtype of the rows.
        shard_rows: Most rows of a shard; fewer if they would pass 64 MiB.
        metadata: Schema metadata of each shard.
        beside: Names of the integer columns beside ``x``.
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
    ) -> None:
        value = pa.field("element", pa.from_numpy_dtype(dtype), nullable=False)
        types = {"x": pa.list_(value, width), **dict.fromkeys(beside, pa.int64())}
        fields = [pa.field(name, type, nullable=False) for name, type in types.items()]
        size = width * np.dtype(dtype).itemsize
        self.schema = pa.schema(fields, metadata=metadata)
        self.folder, self.split, self.dtype = folder, split, dtype
        self.shard_rows = min(shard_rows, max(1, SHARD_BYTES // size))
        self.group_rows = min(self.shard_rows, max(1, GROUP_BYTES // size))
        self.pending: list[tuple[np.ndarray, ...]] = []
        self.waiting = self.written = 0
        self.file: pq.ParquetWriter | None = None
        self.shards: list[Shard] = []

    def append(self, x: np.ndarray, *beside: np.ndarray) -> None:
        """Adds rows with shape (B, D), and what stands beside them, each with shape (B,)."""
        while len(x):
            room = min(self.group_rows, self.shard_rows - self.written) - self.waiting
            self.pending.append((x[:room], *(column[:room] for column in beside)))
            self.waiting += len(x[:room])
            if len(x) >= room:
                self._flush()
            x, beside = x[room:], tuple(column[room:] for column in beside)

    def close(self) -> list[Shard]:
        """Writes what is pending and returns the shards."""
        self._flush()
        self._finish()
        return self.shards

    def abort(self) -> None:
        """Closes the open file, which the caller is about to remove."""
        if self.file is not None:
            self.file.close()

    def _flush(self) -> None:
        if not self.waiting:
            return
        x, *beside = (np.concatenate(arrays) for arrays in zip(*self.pending, strict=True))
        self._open().write_batch(self._record(x, beside), row_group_size=len(x))
        self.written += len(x)
        self.pending, self.waiting = [], 0
        if self.written == self.shard_rows:
            self._finish()

    def _record(self, x: np.ndarray, beside: Sequence[np.ndarray]) -> pa.RecordBatch:
        values = pa.array(x.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, type=self.schema.field("x").type)
        return pa.record_batch([column, *map(pa.array, beside)], schema=self.schema)

    def _open(self) -> pq.ParquetWriter:
        if self.file is None:
            self.file = pq.ParquetWriter(
                self._path(),
                self.schema,
                compression="zstd",
                use_dictionary=self.dtype == "uint8",
                write_page_checksum=True,
            )
        return self.file

    def _path(self) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):05d}.parquet"

    def _finish(self) -> None:
        if self.file is None:
            return
        self.file.close()
        path = self._path()
        size = path.stat().st_size
        self.shards.append(Shard(self.split, path.name, self.written, size, sha256(path)))
        self.file, self.written = None, 0


class Moments:
    """Mean, standard deviation, minimum and maximum of each feature.

    Batches are merged by the pairwise update of their means and sums of squared deviations.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al.,
        1979)

    Arguments:
        width: Number of features D.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)
        self.min = np.full(width, np.inf)
        self.max = np.full(width, -np.inf)

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D); sums that overflow become infinite or NaN."""
        if not len(batch):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._merge(batch.astype(np.float64))
        self.min = np.minimum(self.min, batch.min(axis=0))
        self.max = np.maximum(self.max, batch.max(axis=0))

    def _merge(self, x: np.ndarray) -> None:
        mean = x.mean(axis=0)
        shift = mean - self.mean
        total = self.count + len(x)
        self.squares += np.square(x - mean).sum(axis=0)
        self.squares += np.square(shift) * (self.count * len(x) / total)
        self.mean += shift * (len(x) / total)
        self.count = total

    def summary(self) -> dict[str, list[float]]:
        """Returns lists of D numbers; the standard deviation divides by n."""
        std = np.sqrt(self.squares / max(1, self.count))
        values = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return {key: value.tolist() for key, value in values.items()}


class Distinct:
    """Counts the distinct values of each feature, up to a limit.

    Memory and time go only into features that still have few: the rest are dropped.

    Arguments:
        width: Number of features D.
        limit: Features with more distinct values than this are dropped.
    """

    def __init__(self, width: int, limit: int) -> None:
        self.limit = limit
        self.values = {feature: np.empty(0) for feature in range(width)}

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D)."""
        for feature in self._few(batch):
            seen = np.unique(np.concatenate([self.values[feature], batch[:, feature]]))
            self.values[feature] = seen
        self.values = {f: seen for f, seen in self.values.items() if len(seen) <= self.limit}

    def counts(self) -> dict[int, int]:
        """Returns the number of distinct values of each feature that has at most ``limit``."""
        return {feature: len(seen) for feature, seen in self.values.items()}

    def _few(self, batch: np.ndarray) -> list[int]:
        head = np.sort(batch[: 16 * self.limit], axis=0)
        many = (head[1:] != head[:-1]).sum(axis=0) >= self.limit
        self.values = {f: seen for f, seen in self.values.items() if not many[f]}
        return list(self.values)


class _Training:
    """What is gathered from the training rows: statistics, features of few values, classes."""

    def __init__(self, reader: Reader) -> None:
        self.layout, self.label = reader.layout, reader.label
        self.moments = Moments(self.layout.width)
        self.distinct = Distinct(self.layout.width, FEW)
        self.classes: Counter[int] = Counter()

    def update(self, x: np.ndarray, labels: Sequence[np.ndarray]) -> None:
        """Adds a batch, with shape (B, D), and its classes if it has any."""
        self.moments.update(x)
        if self.layout.levels is None:
            self.distinct.update(x)
        for column in labels:
            self.classes.update(column.tolist())

    def check(self) -> None:
        """Raises BadInput if a feature cannot be modelled, or classes are missing."""
        for feature in np.flatnonzero(~np.isfinite(self.moments.squares))[:1]:
            raise BadInput(
                f"{self.label}, {self.layout.feature(feature)}: found values from "
                f"{self.moments.min[feature]!s} to {self.moments.max[feature]!s}, expected a "
                "finite variance: rescale it"
            )
        if not self.layout.array:
            self._check_constant()
        if self.layout.label is not None:
            self._check_classes()

    def warnings(self) -> tuple[str, ...]:
        """Returns what to tell of features with few values."""
        if self.layout.levels is not None:
            return ()
        rows, width = self.moments.count, self.layout.width
        few = {f: n for f, n in self.distinct.counts().items() if 2 * n <= rows}
        reason = "no density: likelihoods of a continuous model are unbounded there"
        if self.layout.array and few:
            return (f"{len(few)} of {width} features have at most {FEW} values, so {reason}",)
        return tuple(
            f"{self.layout.feature(f)} has only {n} distinct values in {rows} training rows, so "
            f"{reason}"
            for f, n in few.items()
        )

    def _check_constant(self) -> None:
        for feature in np.flatnonzero(self.moments.min == self.moments.max)[:1]:
            raise BadInput(
                f"{self.label}, {self.layout.feature(feature)}: found the constant "
                f"{self.moments.min[feature]!s} in all {self.moments.count} training rows, "
                "expected values that vary: choose others by columns"
            )

    def _check_classes(self) -> None:
        """A class of other splits alone is found where their labels are read."""
        where, last = f"{self.label}, column {self.layout.label}", max(self.classes)
        if missing := [k for k in range(last) if k not in self.classes]:
            raise BadInput(
                f"{where}: found no training row of class {missing[0]}, expected some of every "
                f"class 0 … {last}"
            )
        if not last:
            raise BadInput(f"{where}: found one class, expected two or more")


def _write(reader: Reader, folder: Path, counts: Counts, seed: int, shard_rows: int) -> Manifest:
    layout, training = reader.layout, _Training(reader)
    with ExitStack() as stack:
        writers = [_writer(folder, split, layout, shard_rows) for split in counts.splits]
        for writer in writers:
            stack.callback(writer.abort)
        for code, x, *beside in _routed(reader, assign(reader.rows, counts, seed, reader.own)):
            for split, writer in enumerate(writers):
                writer.append(*(column[code == split] for column in (x, *beside)))
            training.update(x[code == 0], [labels[code == 0] for labels in beside[1:]])
        training.check()
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
        statistics=training.moments.summary(),
        seed=seed,
        assignment=OWN_ASSIGNMENT if reader.fixed else ASSIGNMENT,
        warnings=layout.warnings + training.warnings(),
        classes=len(training.classes) or None,
    )


def _routed(reader: Reader, splits: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields splits by number, features, row numbers and, if there are any, classes."""
    first = 0
    for x, labels in reader.batches():
        rows = np.arange(first, first + len(x))
        yield splits[rows], x, rows, *(() if labels is None else (labels,))
        first += len(x)


def _writer(folder: Path, split: str, layout: Layout, shard_rows: int) -> ShardWriter:
    beside = ("row",) if layout.label is None else ("row", "label")
    metadata = {"split": split, "shape": json.dumps(layout.shape)}
    if layout.levels is not None:
        metadata["levels"] = json.dumps(layout.levels)
    return ShardWriter(folder, split, layout.width, layout.dtype, shard_rows, metadata, beside)


def _check_natural(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise BadInput(f"{name}: found {value!r}, expected a whole number of at least {least}")


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """Gives a temporary folder beside ``output`` and renames it at the end.

    On any error the temporary folder, and parents made for it, are removed.

    Raises:
        BadInput: If ``output`` exists and is not an empty folder, or cannot be made.
    """
    _check_free(output)
    made = [parent for parent in output.parents if not parent.exists()]
    temporary = output.parent / f".{output.name}.{secrets.token_hex(4)}"
    try:
        with _making(output):
            temporary.mkdir(parents=True)
        yield temporary
        with _making(output):
            move(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise


@contextmanager
def _making(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"{output}: cannot be made ({error.strerror})") from None


def _check_free(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise BadInput(f"{output}: exists already, expected a new or empty folder")
