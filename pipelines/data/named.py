"""Named data sets, and the images of a folder, as sources of rows.

To add a data set, write a function that yields its rows as matrices, and enter it in ``SOURCES``.
Where files hold it, ``images`` reads them.
"""

__all__ = ["SOURCES", "Source", "image_folder"]

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.data import images
from pipelines.data.formats import LABEL, array_batches, arrays_schema
from pipelines.data.manifest import Counts


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
        resize: The side to which images of a folder are scaled; None: they are not.
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
    resize: int | None = None

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
        whole = self.levels is not None
        found = arrays_schema(self.shape, self.dtype, self.levels, one_list=whole)
        if self.names:
            found = pa.schema([(name, pa.float64()) for name in self.names])
        return found if self.labels is None else found.append(pa.field(LABEL, pa.int64()))

    def batches(
        self, names: Sequence[str], size: int, start: int
    ) -> tuple[int, Iterator[pa.RecordBatch]]:
        """Reads all rows; see ``formats.Read``."""
        labels = self.labels() if LABEL in names else None
        return 0, array_batches(self.read(), self.schema, self.dtype, names, size, labels)

    def sha256(self, label: str | None = None) -> str:
        """Returns a SHA-256 of the files, or else of the rows; not of where they lie.

        That of the column ``label`` is included.
        """
        if self.files is None:
            total = hashlib.sha256(json.dumps([self.shape, self.levels]).encode())
            for rows in self.read():
                total.update(np.ascontiguousarray(rows, dtype=self.dtype))
        else:
            files = self.files()
            try:
                total = hashlib.sha256(b"".join(bytes.fromhex(sha256(file)) for file in files))
            except OSError as error:
                raise BadInput(f"{error.filename}: cannot be read ({error.strerror})") from None
        if label is None:
            return total.hexdigest()
        labels = np.ascontiguousarray(self.labels(), dtype="int64")
        return hashlib.sha256(total.hexdigest().encode() + labels.tobytes()).hexdigest()


def image_folder(folder: Path, side: int | None) -> Source | None:
    """Returns a folder's images as a source; reads only the first. None: there are none.

    They are in the order of their names. In sub-folders they are of classes, these in the order of
    their names. What a file's name or metadata say, its orientation for instance, is not used.

    Arguments:
        folder: The folder.
        side: The side to which they are scaled and cut; None: all are of one size.

    Raises:
        BadInput: If an image cannot be read, here or later, or is of another size.
    """
    files, classes = images.images(folder), {}
    if not files:
        inner = (path for path in folder.iterdir() if path.is_dir())
        named = (path for path in sorted(inner) if path.name[0] not in "._")
        classes = {path.name: some for path in named if (some := images.images(path))}
        files = [file for some in classes.values() for file in some]
    if not files:
        return None
    first = images.decode(files[0]) if side is None else images.scaled(files[0], side=side)
    shape = images.planes(first).shape
    sizes = [len(some) for some in classes.values()]
    return Source(
        partial(images.folder_rows, files, shape, resize=side is not None),
        len(files),
        shape,
        256,
        "images of a folder",
        str(folder),
        files=lambda: files,
        labels=partial(np.repeat, np.arange(len(sizes)), sizes) if sizes else None,
        folders=tuple(classes),
        resize=side,
    )


def _bundled(file: str, **layout: Any) -> np.ndarray:  # noqa: ANN401
    """Returns the numbers of a file that scikit-learn bundles: importing that takes a second."""
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / file, **layout)


def _digits() -> np.ndarray:
    """Returns the levels of all images and behind them their class, with shape (1797, 65)."""
    return _bundled("digits.csv.gz", delimiter=",")


def _toy(name: str) -> Iterator[np.ndarray]:
    import torch

    from ebflow.randomness import generator
    from ebflow.toy import SAMPLERS, ring

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
    *about: str,
    **more: Callable[[], Any],
) -> Source:
    """Returns images of 256 levels in the order of their splits."""
    held = counts.validation, counts.test
    return Source(read, sum(counts), shape, 256, *about, *held, fixed=True, **more)


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
    kinds: Sequence[images.Records],
) -> Source:
    return _fixed(
        partial(images.binary, records),
        shape,
        Counts(train, HELD, HELD),
        description,
        f"{provenance}, to be fetched; the last 10,000 training images are for validation",
        files=partial(images.paths, records),
        labels=partial(images.classes, kinds),
    )


NUCLEUS = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
           "concave_points", "symmetry", "fractal_dimension")  # fmt: skip

TABLE = {"delimiter": ",", "skiprows": 1}
"""Of its tables with a first line that tells sizes and classes; the class is the last column."""

TABLES = {
    "breast-cancer": (
        partial(_bundled, "breast_cancer.csv", **TABLE, usecols=range(30)),
        569,
        tuple(f"{kind}_{name}" for kind in ("mean", "error", "worst") for name in NUCLEUS),
        "shapes of cell nuclei in pictures of breast masses",
        "Breast Cancer Wisconsin, diagnostic (Wolberg, Mangasarian, Street and Street, 1995)",
    ),
    "wine": (
        partial(_bundled, "wine_data.csv", **TABLE, usecols=range(13)),
        178,
        ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols",
         "flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue",
         "od280_od315", "proline"),
        "chemical analyses of wines",
        "Wine (Aeberhard and Forina, 1991)",
    ),
    "diabetes": (
        partial(_bundled, "diabetes_data_raw.csv.gz"),
        442,
        ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
        "measurements of patients with diabetes",
        "Least Angle Regression (Efron, Hastie, Johnstone and Tibshirani, 2004)",
    ),
}  # fmt: skip
"""Tables that scikit-learn bundles: how they are read, rows, columns, what they are, by whom."""


SOURCES: dict[str, Source] = {
    "digits": Source(
        read=lambda: iter([_digits()[:, :-1].reshape(-1, 8, 8)]),
        rows=1797,
        shape=(8, 8),
        levels=17,
        description="handwritten digits, grey levels 0 … 16",
        provenance="test part of UCI Optical Recognition of Handwritten Digits (Alpaydin and "
        "Kaynak, 1998), bundled with scikit-learn",
        validation=250,
        test=250,
        labels=lambda: _digits()[:, -1],
    ),
    "sine": _drawn("sine", 2, "points along a noisy sine wave"),
    "swirl": _drawn("swirl", 2, "points on an arm of a spiral"),
    "checkerboard": _drawn("checkerboard", 2, "points on eight squares of a board"),
    "multimodal10": _drawn("multimodal10", 10, "512 modes at doubling distances"),
    "eight-gaussians": _drawn(
        "ring", 2, "a mixture of eight Gaussians on a circle", "drawn here with a fixed seed"
    ),
    **{
        table: Source(
            read=lambda load=load: iter([load()]),
            rows=rows,
            shape=(len(names),),
            levels=None,
            description=description,
            provenance=f"{provenance}, bundled with scikit-learn",
            validation=rows * 15 // 100,
            test=rows // 4,
            names=names,
        )
        for table, (load, rows, names, description, provenance) in TABLES.items()
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
        files=partial(images.paths, images.STL10),
    ),
    "celeba": _fixed(
        partial(images.celeba, images.CELEBA),
        (3, 64, 64),
        images.CELEBA.counts,
        "faces, RGB, scaled and cut from 178×218",
        "the first 5,000, 1,000 and 1,000 images of the parts for training, validation and "
        "testing of CelebA (Liu, Luo, Wang and Tang, 2015), to be fetched",
        files=images.CELEBA.files,
    ),
}
