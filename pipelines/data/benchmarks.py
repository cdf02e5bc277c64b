"""Benchmarks of images, written as Parquet files from the files that their authors distribute.

Those files lie in the folder of the benchmarks as torchvision lays them out. Files that are there
already are used as they are, so that a machine without network or torchvision can have them too;
torchvision downloads the others.

Splits are those of EBFlow's experiments if they have a test set of their own: the last 10,000
training images of MNIST and CIFAR-10 are for validation. EBFlow trains, validates and tests on the
same 5,000 images of STL-10 and of CelebA. Here it trains on those images, and other images, which
the authors of the data set aside, are for validation and testing.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pyarrow.parquet as pq

from ebflow.errors import BadInput
from pipelines.data import originals
from pipelines.data.arrays import array_table
from pipelines.data.named import benchmark_file
from pipelines.data.originals import Images
from pipelines.store.files import drafted

CHUNK = 1000  # Images of a row group
SPLITS = ("train", "validation", "test")

CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"


class Benchmark(NamedTuple):
    """A data set that torchvision downloads."""

    files: tuple[str, ...]  #: The authors' files, in the folder of benchmarks
    #: Downloads the files into a folder by ``torchvision.datasets``
    download: Callable[[ModuleType, Path], object]
    #: Reads the images of each split, in the order of ``SPLITS``, from the folder
    read: Callable[[Path], Iterable[Images]]


def fetch(name: str) -> Path:
    """Returns the file of a benchmark, after a download if the authors' files are not there.

    Raises:
        BadInput: if torchvision is needed and not installed, the download fails, or one of the
            authors' files is corrupt.
    """
    benchmark, path = BENCHMARKS[name], benchmark_file(name)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / file).exists() for file in benchmark.files):
        _download(name, benchmark, folder)
    with drafted(path) as draft:
        _write(draft, benchmark.read(folder))
    return path


def _download(name: str, benchmark: Benchmark, folder: Path) -> None:
    try:
        from torchvision import datasets
    except ImportError:
        hint = f"pip install 'ebflow[vision]', or put {', '.join(benchmark.files)} into {folder}"
        raise BadInput(file=name, found="no torchvision, which fetches it", hint=hint) from None
    try:
        benchmark.download(datasets, folder)
    except (OSError, RuntimeError, ImportError) as error:
        raise BadInput(f"cannot be fetched ({str(error)[:300]})", file=name) from None


def _write(path: Path, splits: Iterable[Images]) -> None:
    """Writes images with their classes, if they have any, and the names of their splits."""
    with ExitStack() as stack:
        writer = None
        for split, (images, labels) in zip(SPLITS, splits, strict=True):
            for k in range(0, len(images), CHUNK):
                x = images[k : k + CHUNK]
                classes = None if labels is None else labels[k : k + CHUNK]
                table = array_table(x, 256, label=classes, split=[split] * len(x))
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)


def _fetch_cifar10(datasets: ModuleType, folder: Path) -> None:
    """Downloads CIFAR-10's binary version, because torchvision would unpickle the other one."""
    datasets.utils.download_and_extract_archive(CIFAR10, str(folder), md5=CIFAR10_MD5)


BENCHMARKS = {
    "mnist": Benchmark(
        originals.MNIST,
        lambda datasets, folder: datasets.MNIST(folder, download=True),
        originals.mnist,
    ),
    "cifar10": Benchmark(originals.CIFAR10, _fetch_cifar10, originals.cifar10),
    "stl10": Benchmark(
        originals.STL10,
        lambda datasets, folder: datasets.STL10(folder, download=True),
        originals.stl10,
    ),
    "celeba": Benchmark(
        originals.CELEBA,
        lambda datasets, folder: datasets.CelebA(folder, download=True),
        originals.celeba,
    ),
}
