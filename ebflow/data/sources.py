"""Where data comes from: named sources, the user's Parquet, or a folder of images.

To add a named source, write a function that yields its rows as matrices, and enter it in
``SOURCES``.
"""

__all__ = ["SOURCES", "Reader", "Source", "describe", "fingerprint", "open_source"]

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from ..files import sha256
from . import images
from .manifest import Counts, split_counts
from .table import (
    Layout,
    as_labels,
    as_matrix,
    read_columns,
    read_footer,
    read_layout,
    same_layout,
)

LABEL = "label"
"""The column of classes of a named source."""

BATCH_BYTES = 16 << 20


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


@dataclass(frozen=True)
class Part:
    """One file, or a table in memory.

    Arguments:
        label: Its name in messages.
        rows: Its rows, by its footer.
        open: Returns the record batches of the given columns, of at most that many rows.
        sha256: Returns the SHA-256 of its content.
    """

    label: str
    rows: int
    open: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
    sha256: Callable[[], str]


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

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yields checked matrices with shape (B, D), in the order of the rows.

        Each comes with its classes of shape (B,), None without.
        """
        for part in self.parts:
            yield from self._part(part)

    def record(self) -> dict[str, Any]:
        """Returns what the manifest keeps of the source; reads every file for its SHA-256."""
        column = self.layout.columns[0] if self.layout.array else None
        files = [
            {"file": Path(part.label).name, "rows": part.rows, "sha256": part.sha256()}
            for part in self.parts
        ]
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


def open_source(
    source: str | Path, columns: Sequence[str] | None = None, label: str | None = None
) -> Reader:
    """Opens a named source, a ``.parquet`` file, a folder of them or of images; checks its schema.

    A folder with Parquet in it is a folder of Parquet, whatever else it holds.

    Arguments:
        source: A name in ``SOURCES`` or a path; names come first (write ``./digits`` for a path).
        columns: The columns to use; None takes the one fixed-size list, or all.
        label: The column of classes, ``label`` of a named source; None: none is read.

    Raises:
        BadInput: If there is no such source, or its columns do not make a data set.
    """
    if isinstance(source, str) and source in SOURCES:
        return _open_rows(SOURCES[source], source, source, columns, label)
    if _is_url(str(source)):
        raise BadInput(
            f"source: found a URL ({str(source).partition('/')[0]}//…), expected a path: a file "
            "or folder of this machine"
        )
    path = Path(source)
    if path.is_dir() and not any(path.glob("*.parquet")) and (files := images.find_images(path)):
        folder = _image_folder(path, files)
        return _open_rows(folder, path.resolve().stem, str(path), columns, label)
    if path.is_dir() or path.suffix == ".parquet":
        return _open_parquet(path, columns, label)
    raise BadInput(
        f"source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
        "a path that ends in .parquet, or a folder of such files or of .png or .jpg images"
    )


def fingerprint(
    source: str | Path, columns: Sequence[str] | None = None, label: str | None = None
) -> str:
    """Returns a SHA-256 of a source's content, the same wherever its files lie."""
    record = open_source(source, columns, label).record()
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


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


def _open_rows(
    source: Source, name: str, label: str, columns: Sequence[str] | None, classes: str | None
) -> Reader:
    layout = read_layout(source.schema, file=label, columns=columns, label=classes)
    part = Part(label, source.rows, source.batches, partial(source.sha256, classes))
    return Reader(name, label, (part,), layout, source.validation, source.test, source.fixed)


def _open_parquet(path: Path, columns: Sequence[str] | None, classes: str | None) -> Reader:
    """Opens a ``.parquet`` file or a folder of them; reads only the footers."""
    found = [_open_file(file, columns, classes) for file in _list(path)]
    (first, layout), *rest = found
    for part, other in rest:
        same_layout(layout, other, first_file=first.label, file=part.label)
    if not any(part.rows for part, _ in found):
        raise BadInput(f"{path}: found 0 rows, expected at least 4 (to split them)")
    return Reader(path.resolve().stem, str(path), tuple(part for part, _ in found), layout)


def _open_file(
    path: Path, columns: Sequence[str] | None, classes: str | None
) -> tuple[Part, Layout]:
    schema, rows = read_footer(path)
    layout = read_layout(schema, file=str(path), columns=columns, label=classes)
    part = Part(str(path), rows, partial(read_columns, path), partial(sha256, path))
    return part, layout


def _image_folder(folder: Path, files: Sequence[Path]) -> Source:
    """Returns images of one size and mode as a source; reads only the first."""
    shape = images.planes(images.decode(files[0])).shape
    return Source(
        read=partial(images.folder_rows, files, shape),
        rows=len(files),
        shape=shape,
        levels=256,
        description="images of a folder",
        provenance=str(folder),
        files=lambda: files,
    )


def _list(path: Path) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder, expected Parquet data")
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").exists():
        raise BadInput(f"{path}: found a prepared data set, expected raw data to prepare")
    files = sorted(path.glob("[!._]*.parquet"))
    if not files:
        raise BadInput(f"{path}: found no file that ends in .parquet, .png or .jpg in this folder")
    return files


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        try:
            total.update(bytes.fromhex(sha256(file)))
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    return total.hexdigest()


def _is_url(place: str) -> bool:
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)


def _digits() -> Iterator[np.ndarray]:
    from sklearn.datasets import load_digits

    yield load_digits().images


def _digit_classes() -> np.ndarray:
    from sklearn.datasets import load_digits

    return load_digits().target


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
EXPERIMENT = "sizes and splits as in EBFlow (Chao et al., 2023)"


def _drawn(name: str, width: int, description: str, provenance: str = EBFLOW) -> Source:
    return Source(
        read=partial(_toy, name),
        rows=TOY,
        shape=(width,),
        levels=None,
        description=description,
        provenance=provenance,
        validation=HELD,
        test=HELD,
    )


def _images(
    read: Callable[[], Iterator[np.ndarray]],
    rows: int,
    shape: tuple[int, ...],
    held: int,
    description: str,
    provenance: str,
    *,
    files: Callable[[], Sequence[Path]] | None = None,
    labels: Callable[[], np.ndarray] | None = None,
) -> Source:
    """Returns images of 256 levels whose last ``held`` rows are the test split, and so on."""
    return Source(
        read, rows, shape, 256, description, provenance, held, held, True, files, labels
    )  # fmt: skip


def _patches(size: int, *, grey: bool = False) -> Source:
    return _images(
        partial(images.natural_patches, size, grey=grey),
        images.PATCHES.train + images.PATCHES.validation + images.PATCHES.test,
        (1 if grey else 3, size, size),
        images.PATCHES.test,
        f"patches of photographs, {'grey' if grey else 'RGB'}",
        "two photographs bundled with scikit-learn (CC BY 2.0), split by place",
    )


SOURCES: dict[str, Source] = {
    "digits": Source(
        read=_digits,
        rows=1797,
        shape=(8, 8),
        levels=17,
        description="handwritten digits, grey levels 0 … 16",
        provenance="test part of UCI Optical Recognition of Handwritten Digits (Alpaydin and "
        "Kaynak, 1998), bundled with scikit-learn",
        validation=250,
        test=250,
        labels=_digit_classes,
    ),
    "sine": _drawn("sine", 2, "points along a noisy sine wave"),
    "swirl": _drawn("swirl", 2, "points on an arm of a spiral"),
    "checkerboard": _drawn("checkerboard", 2, "points on eight squares of a board"),
    "multimodal10": _drawn("multimodal10", 10, "512 modes at doubling distances"),
    "eight-gaussians": _drawn(
        "ring", 2, "a mixture of eight Gaussians on a circle", "drawn here with a fixed seed"
    ),
    "natural-patches": _patches(32),
    "natural-patches-16": _patches(16),
    "natural-patches-8": _patches(8, grey=True),
    "mnist": _images(
        partial(images.binary, images.MNIST),
        70_000,
        (1, 28, 28),
        10_000,
        "handwritten digits, grey",
        f"MNIST (LeCun, Cortes and Burges, 1998), to be fetched; {EXPERIMENT}",
        files=partial(images.paths, images.MNIST),
        labels=partial(images.classes, images.MNIST_CLASSES),
    ),
    "cifar10": _images(
        partial(images.binary, images.CIFAR10),
        60_000,
        (3, 32, 32),
        10_000,
        "photographs of ten kinds of things, RGB",
        f"CIFAR-10 (Krizhevsky, 2009), binary version, to be fetched; {EXPERIMENT}",
        files=partial(images.paths, images.CIFAR10),
        labels=partial(images.classes, images.CIFAR10),
    ),
    "cifar100": _images(
        partial(images.binary, images.CIFAR100),
        60_000,
        (3, 32, 32),
        10_000,
        "photographs of a hundred kinds of things, RGB",
        "CIFAR-100 (Krizhevsky, 2009), binary version, to be fetched; the last 10,000 training "
        "images are for validation",
        files=partial(images.paths, images.CIFAR100),
        labels=partial(images.classes, images.CIFAR100),
    ),
    "stl10": _images(
        partial(images.stl10, images.STL10),
        13_000,
        (3, 64, 64),
        4_000,
        "photographs of ten kinds of things, RGB, scaled from 96×96",
        "labelled part of STL-10 (Coates, Ng and Lee, 2011), to be fetched; its test images are "
        "halved into validation and test",
        files=partial(images.paths, images.STL10),
    ),
    "celeba": _images(
        partial(images.celeba, images.CELEBA),
        7_000,
        (3, 64, 64),
        1_000,
        "faces, RGB, scaled and cut from 178×218",
        "the first 5,000, 1,000 and 1,000 images of the parts for training, validation and "
        "testing of CelebA (Liu, Luo, Wang and Tang, 2015), to be fetched",
        files=images.CELEBA.files,
    ),
}
