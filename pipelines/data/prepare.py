"""From a source to a prepared folder: checked, split and written in shards, in one pass.

Memory is bounded by a batch, a shard of each split and a Parquet page of each column. Each row
takes one more byte for its split and, while the splits are sampled, 24 for the permutation.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.errors import BadInput
from ebflow.files import replaced, sha256
from pipelines.config import DataConfig
from pipelines.config.source import counted, opened
from pipelines.data.manifest import Context, Manifest, Shard, Statistics, shard_schema
from pipelines.data.reader import Reader, Rows
from pipelines.data.splits import Counts, describe

if TYPE_CHECKING:
    from pipelines.engine.stages import Source
    from pipelines.tracking.run import StageRun

SHARD_BYTES = 32 << 20  # Bytes of the rows of a shard at most


def prepare(
    config: DataConfig, source: "Source", *, run: "StageRun", shard_rows: int = 65536
) -> None:
    """Writes the source's rows, checked and split, in Parquet shards with a manifest.

    Arguments:
        config: The source and its splits.
        source: Its content when the run started.
        run: The MLflow run.
        shard_rows: Rows of a shard at most; fewer if they would take more than 32 MiB.

    Raises:
        BadInput: at the first thing that is wrong with the data or the options, or if the data
            have changed since the run computed their digest; then nothing is written.
    """
    run.log_params(config.model_dump())
    reader = opened(config)
    counts, order = counted(reader, config), _order(config)
    splits, training = reader.assigned(counts, order), _Training(reader)
    classes, width = reader.layout.label is not None, reader.context_width
    schema = shard_schema(reader.width, reader.dtype, classes=classes, context=width)
    with replaced(run.output) as folder:
        writers = [ShardWriter(folder, split, schema, shard_rows) for split in counts.splits]
        training.read(splits, writers)
        shards = tuple(shard for writer in writers for shard in writer.close())
        assignment = describe(reader.named_counts, counts, order, reader.layout.split)
        manifest = _manifest(training, splits, counts, shards, config.seed, assignment)
        manifest.save(folder)
        if reader.digest != source.digest:
            raise BadInput(
                f"{config.source}: found other data than when the run started, expected the same "
                "until they are prepared: repeat the command"
            )
    run.log_input(manifest, "prepared")
    run.log_metrics({f"rows/{split}": count for split, count in manifest.counts.items()})
    run.log_artifacts(run.output / "manifest.json")


def check_data(config: DataConfig) -> None:
    """Reads all rows and raises the errors of ``prepare``; writes nothing."""
    reader = opened(config)
    splits = reader.assigned(counted(reader, config), _order(config))
    _Training(reader).read(splits)


def _order(config: DataConfig) -> int | None:
    """Returns the seed of the splits; None: the last rows are held out."""
    return None if config.held_out == "last" else config.seed


class ShardWriter:
    """A writer of the shards of one split.

    Arguments:
        folder: The folder of the shards.
        split: The name of the split, with which the files' names start.
        schema: The schema of the shards.
        shard_rows: Rows of a shard at most; fewer if they would take more than 32 MiB.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, shard_rows: int) -> None:
        self.folder, self.split, self.schema = folder, split, schema
        lists = (f.type for f in schema if pa.types.is_fixed_size_list(f.type))
        row_bytes = sum(kind.list_size * kind.value_type.bit_width // 8 for kind in lists)
        self.shard_rows = min(shard_rows, max(1, SHARD_BYTES // row_bytes))
        self.pending: list[tuple[np.ndarray, ...]] = []
        self.shards: list[Shard] = []
        self.waiting = 0

    def append(self, columns: Iterable[np.ndarray]) -> None:
        """Adds rows, by the columns of the schema, with shape (B,) or (B, K)."""
        columns = tuple(columns)
        while len(columns[0]):
            room = self.shard_rows - self.waiting
            self.pending.append(tuple(column[:room] for column in columns))
            self.waiting += len(columns[0][:room])
            columns = tuple(column[room:] for column in columns)
            if self.waiting == self.shard_rows:
                self._write()

    def close(self) -> list[Shard]:
        """Writes the pending rows and returns the shards."""
        if self.waiting:
            self._write()
        return self.shards

    def _write(self) -> None:
        """Writes the pending rows as one row group."""
        arrays = (np.concatenate(pieces) for pieces in zip(*self.pending, strict=True))
        columns = [
            pa.FixedSizeListArray.from_arrays(pa.array(a.reshape(-1)), type=f.type)
            if a.ndim > 1
            else pa.array(a)
            for a, f in zip(arrays, self.schema, strict=True)
        ]
        path = self.folder / f"{self.split}-{len(self.shards):05d}.parquet"
        pq.write_table(
            pa.table(columns, schema=self.schema),
            path,
            compression="zstd",
            use_dictionary=self.schema.field("x").type.value_type == pa.uint8(),
            write_page_checksum=True,
        )
        written = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self.shards.append(Shard(split=self.split, rows=len(columns[0]), **written))
        self.pending, self.waiting = [], 0


class Moments:
    """Mean, standard deviation, minimum and maximum of each column, without NaN.

    Batches are merged by the pairwise update of their means and sums of squared deviations.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al.,
        1979)
    """

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = (np.zeros(width, t) for t in (int, float, float))
        self.min, self.max = np.full(width, np.inf), np.full(width, -np.inf)

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch with shape (B, D); sums that overflow become infinite or NaN."""
        if not len(batch):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._merge(batch.astype(np.float64))
        self.min = np.fmin(self.min, np.fmin.reduce(batch, axis=0))
        self.max = np.fmax(self.max, np.fmax.reduce(batch, axis=0))

    def _merge(self, x: np.ndarray) -> None:
        count = (~np.isnan(x)).sum(axis=0)
        sums = np.add.reduce if (count == len(x)).all() else np.nansum
        mean = sums(x, axis=0) / np.maximum(count, 1)
        shift, total = mean - self.mean, np.maximum(self.count + count, 1)
        self.squares += sums(np.square(x - mean), axis=0)
        self.squares += np.square(shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = self.count + count

    def summary(self) -> dict[str, tuple[float, ...]]:
        """Returns ``mean``, ``std``, ``min`` and ``max``; ``std`` divides by n."""
        std = np.sqrt(self.squares / np.maximum(1, self.count))
        values = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return {key: tuple(value.tolist()) for key, value in values.items()}


class _Training:
    """Statistics of a source's training rows."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.rows = reader, 0
        self.moments = Moments(reader.width)
        self.classes: Counter[int] = Counter()
        self.context = Moments(reader.context_width)

    def read(self, splits: np.ndarray, writers: Sequence[ShardWriter] = ()) -> None:
        """Reads all rows, gives each writer those of its split, and checks the training rows."""
        first = 0
        for rows in self.reader.batches(splits):
            numbers = np.arange(first, first + len(rows.x))
            codes, first = splits[numbers], first + len(rows.x)
            for code, writer in enumerate(writers):
                x, labels, context = rows.take(codes == code)
                columns = (x, numbers[codes == code], labels, context)
                writer.append(column for column in columns if column is not None)
            self._update(rows.take(codes == 0))
        self._check()

    def _update(self, rows: Rows) -> None:
        self.rows += len(rows.x)
        self.moments.update(rows.x)
        if rows.labels is not None:
            self.classes.update(rows.labels.tolist())
        if rows.context is not None:
            self.context.update(rows.context)

    def _check(self) -> None:
        moments, layout = self.moments, self.reader.layout
        for k, name in enumerate(self.reader.features):
            low, high = f"{moments.min[k]!s}", f"{moments.max[k]!s}"
            if not moments.count[k]:
                raise self._bad(name, "no value", "some: choose others by columns")
            if not np.isfinite(moments.squares[k]):
                span = f"values from {low} to {high}"
                raise self._bad(name, span, "a finite variance: rescale it")
            if low == high and layout.lists is None:
                advice = "values that vary: choose others by columns"
                raise self._bad(name, f"the constant {low}", advice)
        for k in np.flatnonzero(~np.isfinite(self.context.squares)):
            raise self._bad(f"{k} of the context", "large values", "a finite variance: rescale it")
        if layout.label is not None:
            last = max(self.classes)
            if not last:
                raise self._bad(layout.label, "one class", "two or more")
            for k in sorted(set(range(last)) - set(self.classes))[:1]:
                raise self._bad(layout.label, f"no row of class {k}", f"all classes 0 … {last}")

    def _bad(self, name: str, found: str, expected: str) -> BadInput:
        found = f"{found} in all {self.rows} training rows"
        return BadInput(file=self.reader.label, column=name, found=found, expected=expected)

    def context_record(self) -> Context | None:
        """Returns the manifest's description of the contexts."""
        columns, layout = self.reader.schemas.context, self.reader.layout
        found = self.context.summary()
        label = layout.label if layout.label in layout.context else None
        return columns and Context(
            columns=columns, mean=found["mean"], std=found["std"], label=label
        )


def _manifest(
    training: _Training,
    splits: np.ndarray,
    counts: Counts,
    shards: tuple[Shard, ...],
    seed: int,
    assignment: str,
) -> Manifest:
    reader, used = training.reader, Counts.of_codes(splits)
    incomplete = Counts.of_codes(splits[reader.incomplete])._asdict()
    return Manifest(
        name=reader.name,
        source=reader.record,
        shape=reader.shape,
        dtype=reader.dtype,
        levels=reader.levels,
        columns=reader.columns,
        counts={split: used.of(split) for split in counts.splits},
        shards=shards,
        statistics=Statistics(**training.moments.summary()),
        seed=seed,
        assignment=assignment,
        incomplete={split: count for split, count in incomplete.items() if count},
        warnings=(*reader.warnings, *_missing_notes(reader)),
        classes=len(training.classes) or None,
        context=training.context_record(),
    )


def _missing_notes(reader: Reader) -> list[str]:
    """Returns a sentence about rows with missing values, if there are any."""
    lacking = int(reader.incomplete.sum())
    effect = " and are dropped"
    if reader.missing == "impute":
        imputed = ", which are imputed in training and validation rows"
        effect = f"{imputed}; such test and selection rows are dropped"
    return [f"{lacking} of {reader.rows} rows have missing values{effect}"] if lacking else []
