"""``ebflow data list|fetch``: the named data sets, and benchmarks of images as Parquet files.

Splits are those of EBFlow's experiments: the last 10,000 training images of MNIST and CIFAR are
for validation. Of STL-10 and CelebA, EBFlow validates and tests on training images; here these
are images of the authors' other parts. Images of another size are scaled by Pillow's antialiased
bilinear filter.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow.parquet as pq
import tyro
from rich.table import Table

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table
from pipelines.data.files import FORMATS
from pipelines.data.images import planes
from pipelines.data.named import SOURCES, benchmark_file
from pipelines.reporting.terminal import terminal
from pipelines.store.files import drafted

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 64
"""The side of a scaled image."""

HELD_OUT = 10_000
"""Training images of MNIST and CIFAR that are for validation."""

CHUNK = 1000
"""Images of a row group."""

Part = tuple[str, np.ndarray, list[int]]
"""The name of a split, images with shape (n, C, H, W), and their classes."""


@dataclass(frozen=True)
class List:
    """Lists the named data sets."""


def named(words: Sequence[str]) -> int:
    """Lists the named data sets."""
    tyro.cli(List, prog="ebflow data list", args=words)
    table = Table("name", "rows", "shape", "what", "from where")
    for name, source in SOURCES.items():
        shape = "×".join(map(str, source.shape))
        table.add_row(name, str(source.rows), shape, source.description, source.provenance)
    console = terminal()
    console.print(table)
    ends = ", ".join(FORMATS)
    console.print(f"or the path of a file ({ends}), or of a folder of .parquet files or of images")
    return 0


@dataclass(frozen=True)
class Fetch:
    """Downloads a benchmark's files into the folder EBFLOW_DATA (~/.cache/ebflow/data)."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """mnist, cifar10, cifar100, stl10 or celeba"""


def fetch(words: Sequence[str]) -> int:
    """Downloads a data set and says where it lies."""
    path = fetched(tyro.cli(Fetch, prog="ebflow data fetch", args=words).name)
    print(f"fetched into {path}")
    return 0


def fetched(name: str) -> Path:
    """Downloads a benchmark and returns its file; torchvision's own files lie beside it.

    Raises:
        BadInput: if torchvision is not installed, or the download fails.
    """
    if name not in BENCHMARKS:
        expected = f"one of {', '.join(BENCHMARKS)}"
        raise BadInput(found=f"data set {name!r}", expected=expected)
    try:
        from torchvision import datasets
    except ImportError:
        hint = "pip install 'ebflow[vision]'"
        raise BadInput(file=name, found="no torchvision, which fetches it", hint=hint) from None
    path = benchmark_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with drafted(path) as draft:
            _write(draft, BENCHMARKS[name](datasets, path.parent))
    except (OSError, RuntimeError, ImportError) as error:
        raise BadInput(f"cannot be fetched ({str(error)[:300]})", file=name) from None
    return path


def _write(path: Path, parts: Iterator[Part]) -> None:
    """Writes images with their classes and the names of their splits."""
    with ExitStack() as stack:
        writer = None
        for split, images, labels in parts:
            for k in range(0, len(images), CHUNK):
                x, some = images[k : k + CHUNK], labels[k : k + CHUNK]
                table = array_table(x, 256, label=some, split=[split] * len(x))
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)


def _parts(
    train: tuple[np.ndarray, list[int]], test: tuple[np.ndarray, list[int]]
) -> Iterator[Part]:
    """Yields the splits of training and test images, the last training images for validation."""
    images, labels = train
    yield "train", images[:-HELD_OUT], labels[:-HELD_OUT]
    yield "validation", images[-HELD_OUT:], labels[-HELD_OUT:]
    yield "test", *test


def _mnist(datasets: ModuleType, folder: Path) -> Iterator[Part]:
    sets = (datasets.MNIST(folder, train=train, download=True) for train in (True, False))
    return _parts(*((one.data.numpy()[:, None], one.targets.tolist()) for one in sets))


def _cifar(
    archive: str, md5: str, files: Sequence[str], label: int, datasets: ModuleType, folder: Path
) -> Iterator[Part]:
    """Reads CIFAR's binary version, because torchvision would unpickle the other one.

    A record holds ``label`` bytes of classes, of which the last one is used, and the image.
    """
    url = f"https://www.cs.toronto.edu/~kriz/{archive}.tar.gz"
    datasets.utils.download_and_extract_archive(url, str(folder), md5=md5)
    records = [np.fromfile(folder / file, np.uint8).reshape(-1, label + 3072) for file in files]
    pairs = (
        (x[:, label:].reshape(-1, 3, 32, 32), x[:, label - 1].tolist())
        for x in (np.concatenate(records[:-1]), records[-1])
    )
    return _parts(*pairs)


def _stl10(datasets: ModuleType, folder: Path) -> Iterator[Part]:
    for part, splits in (("train", ("train",)), ("test", ("validation", "test"))):
        images = datasets.STL10(folder, split=part, download=True)
        rows = len(images) // len(splits)
        for k, split in enumerate(splits):
            pairs = [images[row] for row in range(k * rows, (k + 1) * rows)]
            yield split, np.stack([_scaled(image) for image, _ in pairs]), [c for _, c in pairs]


def _celeba(datasets: ModuleType, folder: Path) -> Iterator[Part]:
    """Yields the first images of each part; their class is always 0."""
    parts = (("train", "train", 5), ("valid", "validation", 1), ("test", "test", 1))
    for part, split, chunks in parts:
        images = datasets.CelebA(folder, split=part, download=True)
        for k in range(chunks):
            rows = range(k * CHUNK, (k + 1) * CHUNK)
            yield split, np.stack([_scaled(images[row][0]) for row in rows]), [0] * CHUNK


def _scaled(image: "Image") -> np.ndarray:
    """Returns an image with its shorter side scaled to 64, cut to 64×64 in the middle."""
    from PIL.Image import Resampling

    width, height = (side * SIDE // min(image.size) for side in image.size)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    image = image.resize((width, height), Resampling.BILINEAR)
    return planes(image.crop((left, top, left + SIDE, top + SIDE)))


BENCHMARKS: dict[str, Callable[[ModuleType, Path], Iterator[Part]]] = {
    "mnist": _mnist,
    "cifar10": partial(
        _cifar,
        "cifar-10-binary",
        "c32a1d4ab5d03f1284b67883e8d87530",
        [
            f"cifar-10-batches-bin/{part}.bin"
            for part in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
        ],
        1,
    ),
    "cifar100": partial(
        _cifar,
        "cifar-100-binary",
        "03b5dce01913d631647c71ecec9e9cb8",
        ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
        2,
    ),
    "stl10": _stl10,
    "celeba": _celeba,
}
"""The functions that download benchmarks and yield their images, by torchvision's module."""
