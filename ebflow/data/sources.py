"""Where data comes from: named data sets, the user's Parquet, or a folder of images.

To add a named source, write a function that yields its rows as matrices, and enter it in
``SOURCES``.
"""

__all__ = ["SOURCES", "Source", "describe", "fingerprint", "open_source"]

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from ebflow.data import benchmarks
from ebflow.data.files import open_path
from ebflow.data.images import find_images, image_folder
from ebflow.data.patches import COUNTS, natural_patches
from ebflow.data.reader import Reader
from ebflow.data.source import Source, open_rows
from ebflow.errors import BadInput


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
        return open_rows(SOURCES[source], source, columns, classes=label)
    if _is_url(str(source)):
        raise BadInput(f"data.source: found a URL ({str(source).partition('/')[0]}//…), expected "
                       "a path: a file or folder of this machine")  # fmt: skip
    path = Path(source)
    if path.is_dir() and not any(path.glob("*.parquet")) and (files := find_images(path)):
        images = image_folder(path, files)
        return open_rows(images, path.resolve().stem, columns, label=str(path), classes=label)
    if path.is_dir() or path.suffix == ".parquet":
        return open_path(path, columns, label)
    raise BadInput(
        f"data.source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
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

    from ebflow.data.toy import SAMPLERS
    from ebflow.randomness import generator

    yield SAMPLERS[name](TOY, generator=generator(0, "toy", name), dtype=torch.float64).numpy()


def _eight_gaussians() -> Iterator[np.ndarray]:
    import torch

    from ebflow.data.toy import ring
    from ebflow.randomness import generator

    yield ring(dtype=torch.float64).sample(TOY, generator=generator(0, "toy", "ring")).numpy()


TOY, HELD = 70_000, 10_000
"""Samples of a toy density, and those of them for validation and for testing."""

EBFLOW = "drawn here with a fixed seed by the formula of EBFlow (Chao et al., 2023)"
EXPERIMENT = "sizes and splits as in EBFlow (Chao et al., 2023)"


def _drawn(name: str, width: int, description: str) -> Source:
    return Source(
        read=partial(_toy, name),
        rows=TOY,
        shape=(width,),
        levels=None,
        description=description,
        provenance=EBFLOW,
        validation=HELD,
        test=HELD,
    )


def _patches(size: int, *, grey: bool, description: str) -> Source:
    return Source(
        read=partial(natural_patches, size, grey=grey),
        rows=COUNTS.train + COUNTS.validation + COUNTS.test,
        shape=(1 if grey else 3, size, size),
        levels=256,
        description=description,
        provenance="two photographs bundled with scikit-learn (CC BY 2.0), split by place",
        validation=COUNTS.validation,
        test=COUNTS.test,
        fixed=True,
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
    "eight-gaussians": Source(
        read=_eight_gaussians,
        rows=TOY,
        shape=(2,),
        levels=None,
        description="a mixture of eight Gaussians on a circle",
        provenance="drawn here with a fixed seed",
        validation=HELD,
        test=HELD,
    ),
    "natural-patches": _patches(32, grey=False, description="patches of photographs, RGB"),
    "natural-patches-16": _patches(16, grey=False, description="patches of photographs, RGB"),
    "natural-patches-8": _patches(8, grey=True, description="patches of photographs, grey"),
    "mnist": Source(
        read=partial(benchmarks.binary, benchmarks.MNIST),
        rows=70_000,
        shape=(1, 28, 28),
        levels=256,
        description="handwritten digits, grey",
        provenance=f"MNIST (LeCun, Cortes and Burges, 1998), to be fetched; {EXPERIMENT}",
        validation=10_000,
        test=10_000,
        fixed=True,
        files=partial(benchmarks.paths, benchmarks.MNIST),
        labels=partial(benchmarks.classes, benchmarks.MNIST_CLASSES),
    ),
    "cifar10": Source(
        read=partial(benchmarks.binary, benchmarks.CIFAR10),
        rows=60_000,
        shape=(3, 32, 32),
        levels=256,
        description="photographs of ten kinds of things, RGB",
        provenance=f"CIFAR-10 (Krizhevsky, 2009), binary version, to be fetched; {EXPERIMENT}",
        validation=10_000,
        test=10_000,
        fixed=True,
        files=partial(benchmarks.paths, benchmarks.CIFAR10),
        labels=partial(benchmarks.classes, benchmarks.CIFAR10),
    ),
    "cifar100": Source(
        read=partial(benchmarks.binary, benchmarks.CIFAR100),
        rows=60_000,
        shape=(3, 32, 32),
        levels=256,
        description="photographs of a hundred kinds of things, RGB",
        provenance="CIFAR-100 (Krizhevsky, 2009), binary version, to be fetched; the last 10,000 "
        "training images are for validation",
        validation=10_000,
        test=10_000,
        fixed=True,
        files=partial(benchmarks.paths, benchmarks.CIFAR100),
        labels=partial(benchmarks.classes, benchmarks.CIFAR100),
    ),
    "stl10": Source(
        read=partial(benchmarks.stl10, benchmarks.STL10),
        rows=13_000,
        shape=(3, 64, 64),
        levels=256,
        description="photographs of ten kinds of things, RGB, scaled from 96×96",
        provenance="labelled part of STL-10 (Coates, Ng and Lee, 2011), to be fetched; its test "
        "images are halved into validation and test",
        validation=4_000,
        test=4_000,
        fixed=True,
        files=partial(benchmarks.paths, benchmarks.STL10),
    ),
    "celeba": Source(
        read=partial(benchmarks.celeba, benchmarks.CELEBA),
        rows=7_000,
        shape=(3, 64, 64),
        levels=256,
        description="faces, RGB, scaled and cut from 178×218",
        provenance="the first 5,000, 1,000 and 1,000 images of the parts for training, validation "
        "and testing of CelebA (Liu, Luo, Wang and Tang, 2015), to be fetched",
        validation=1_000,
        test=1_000,
        fixed=True,
        files=benchmarks.CELEBA.files,
    ),
}
