"""Named data sets: toy distributions, data that scikit-learn bundles, and benchmarks.

To add one, write a function that returns its table, and enter it in ``SOURCES``. A column
``split`` fixes its splits. The benchmarks are files that ``ebflow data fetch`` writes.
"""

__all__ = ["SOURCES", "NamedSource", "benchmark_file"]

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table, as_array
from pipelines.data.files import Part, parquet
from pipelines.data.patches import PATCHES, natural_patches


class NamedSource(NamedTuple):
    """A named data set.

    Arguments:
        table: Returns its rows; None: a file has them.
        rows: The number of rows.
        shape: The shape of a row.
        description: A few words about the rows.
        provenance: Its authors.
        validation: The default size of the validation split: rows, or a fraction.
        test: The default size of the test split.
    """

    table: Callable[[], pa.Table] | None
    rows: int
    shape: tuple[int, ...]
    description: str
    provenance: str
    validation: int | float = 0.1
    test: int | float = 0.1

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

        def read(names: list[str], size: int, start: int) -> tuple[int, Any]:
            return start, iter(table.slice(start).select(names).to_batches(size))

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


def _bundled(file: str, **layout: Any) -> np.ndarray:  # noqa: ANN401
    """Returns the numbers of a file of scikit-learn, without its import, which takes a second."""
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / file, **layout)


def _digits() -> pa.Table:
    rows = _bundled("digits.csv.gz", delimiter=",").astype(np.uint8)
    return array_table(rows[:, :-1].reshape(-1, 8, 8), 17, label=rows[:, -1].astype(np.int64))


def _table(names: tuple[str, ...], file: str, **layout: Any) -> pa.Table:  # noqa: ANN401
    return pa.table([as_array(column) for column in _bundled(file, **layout).T], names)


def _toy(name: str) -> pa.Table:
    import torch

    from ebflow.randomness import generator
    from ebflow.toy import SAMPLERS

    random = generator(0, "toy", name)
    x = SAMPLERS[name](TOY, generator=random, dtype=torch.float64)
    return array_table(x.numpy(), one_list=False)


TOY, HELD_OUT = 70_000, 10_000
"""Samples of a toy distribution, and those of them for validation and for testing."""

EBFLOW = "sampled here with a fixed seed by the formula of EBFlow (Chao et al., 2023)"


def _sampled(name: str, description: str) -> NamedSource:
    return NamedSource(partial(_toy, name), TOY, (2,), description, EBFLOW, HELD_OUT, HELD_OUT)


def _photographs(size: int) -> NamedSource:
    def table() -> pa.Table:
        splits = np.repeat(["train", "validation", "test"], PATCHES[:3])
        return array_table(natural_patches(size), 256, split=splits)

    authors = "two photographs bundled with scikit-learn (CC BY 2.0), split by place"
    about = "patches of photographs, RGB"
    return NamedSource(table, sum(PATCHES), (3, size, size), about, authors)


def _of_columns(
    columns: tuple[str, ...], rows: int, description: str, authors: str, file: str,
    layout: Mapping[str, Any],
) -> NamedSource:  # fmt: skip
    table = partial(_table, columns, file, **layout)
    sizes = rows * 15 // 100, rows // 4
    provenance = f"{authors}, bundled with scikit-learn"
    return NamedSource(table, rows, (len(columns),), description, provenance, *sizes)


NUCLEUS = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
           "concave_points", "symmetry", "fractal_dimension")  # fmt: skip

WINE = ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols",
        "flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue",
        "od280_od315", "proline")  # fmt: skip

HEADER = {"delimiter": ",", "skiprows": 1}
"""The layout of files whose first line has sizes and names of classes."""

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
    "breast-cancer": _of_columns(
        tuple(f"{kind}_{name}" for kind in ("mean", "error", "worst") for name in NUCLEUS),
        569,
        "shapes of cell nuclei in pictures of breast masses",
        "Breast Cancer Wisconsin, diagnostic (Wolberg, Mangasarian, Street and Street, 1995)",
        "breast_cancer.csv",
        {**HEADER, "usecols": range(30)},
    ),
    "wine": _of_columns(
        WINE,
        178,
        "chemical analyses of wines",
        "Wine (Aeberhard and Forina, 1991)",
        "wine_data.csv",
        {**HEADER, "usecols": range(13)},
    ),
    "diabetes": _of_columns(
        ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
        442,
        "measurements of patients with diabetes",
        "Least Angle Regression (Efron, Hastie, Johnstone and Tibshirani, 2004)",
        "diabetes_data_raw.csv.gz",
        {},
    ),
    "natural-patches": _photographs(32),
    "natural-patches-16": _photographs(16),
    "mnist": NamedSource(
        None, 70_000, (1, 28, 28), "handwritten digits, grey", "MNIST (LeCun et al., 1998)"
    ),
    "cifar10": NamedSource(None, 60_000, (3, 32, 32), "photographs, 10 classes, RGB", KRIZHEVSKY),
}
