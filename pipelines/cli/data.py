"""``ebflow data list|fetch``: the named data sets, and benchmarks of images as Parquet files.

Splits are those of EBFlow's experiments: the last 10,000 training images are for validation.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import tyro
from rich.table import Table

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table
from pipelines.data.files import FORMATS
from pipelines.data.named import SOURCES, benchmark_file
from pipelines.reporting.terminal import terminal
from pipelines.store.files import drafted

HELD_OUT = 10_000
"""Training images that are for validation."""

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
    """mnist, cifar10 or cifar100"""


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
}
"""The functions that download benchmarks and yield their images, by torchvision's module."""
