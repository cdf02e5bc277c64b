"""A source that is not Parquet: rows that a function reads, of a known number and shape."""

__all__ = ["Source", "open_rows"]

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from ebflow.data.layout import read_layout
from ebflow.data.reader import Part, Reader
from ebflow.data.schema import file_sha256
from ebflow.errors import BadInput

LABEL = "label"
"""The column of classes of a named source."""


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

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @property
    def schema(self) -> pa.Schema:
        """One fixed-size list of levels, or D columns of reals; ``label`` if it has classes."""
        if self.levels is None:
            return pa.schema([(f"x{j + 1}", pa.float64()) for j in range(self.width)])
        metadata = {"shape": json.dumps(self.shape), "levels": json.dumps(self.levels)}
        own = [] if self.labels is None else [(LABEL, pa.int64())]
        return pa.schema([("image", pa.list_(pa.uint8(), self.width)), *own], metadata=metadata)

    def batches(self, names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yields the columns of these names in batches of at most ``size`` rows."""
        labels, first = self.labels() if LABEL in names else None, 0
        for rows in self.read():
            for k in range(0, len(rows), size):
                batch = self._record(rows[k : k + size])
                if labels is not None:
                    column = pa.array(labels[first : first + len(batch)], pa.int64())
                    batch = batch.append_column(LABEL, column)
                first += len(batch)
                yield batch.select(list(names))

    def sha256(self, label: str | None = None) -> str:
        """Returns a SHA-256 of the content, that of the column ``label`` included."""
        if label is None:
            return self._sha256()
        labels = np.ascontiguousarray(self.labels(), dtype="int64")
        return hashlib.sha256(self._sha256().encode() + labels.tobytes()).hexdigest()

    def _sha256(self) -> str:
        """Returns a SHA-256 of the files, or else of the rows; not of where they lie."""
        if self.files is not None:
            return _digest(self.files())
        total = hashlib.sha256(json.dumps([self.shape, self.levels]).encode())
        for rows in self.read():
            total.update(np.ascontiguousarray(rows, dtype=self._dtype))
        return total.hexdigest()

    @property
    def _dtype(self) -> str:
        return "float64" if self.levels is None else "uint8"

    def _record(self, rows: np.ndarray) -> pa.RecordBatch:
        x = np.ascontiguousarray(rows, dtype=self._dtype).reshape(len(rows), self.width)
        if self.levels is None:
            return pa.record_batch(list(x.T.copy()), schema=self.schema)
        values = pa.array(x.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, self.width)
        return pa.record_batch([column], names=["image"])


def open_rows(
    source: Source,
    name: str,
    columns: Sequence[str] | None = None,
    *,
    label: str | None = None,
    classes: str | None = None,
) -> Reader:
    """Opens a source under a name.

    Arguments:
        source: The source.
        name: Its name.
        columns: The columns to use; None: all that can be used.
        label: What messages call it; None: the name.
        classes: The column of classes; None: none is read.

    Raises:
        BadInput: If ``columns`` do not make a data set.
    """
    label = label or name
    layout = read_layout(source.schema, file=label, columns=columns, label=classes)
    digest = partial(source.sha256, classes)
    part = Part(label, source.rows, layout, source.batches, digest)
    return Reader(name, label, (part,), layout, source.validation, source.test, source.fixed)


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        try:
            total.update(bytes.fromhex(file_sha256(file)))
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    return total.hexdigest()
