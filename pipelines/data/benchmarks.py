"""Benchmarks of images, downloaded by torchvision and written as Parquet files.

Splits are those of EBFlow's experiments: the last 10,000 training images are for validation.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table
from pipelines.data.named import benchmark_file
from pipelines.store.files import drafted

HELD_OUT = 10_000  # Training images that are for validation
CHUNK = 1000  # Images of a row group

CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

Images = tuple[np.ndarray, list[int]]  # Images with shape (n, C, H, W), and their classes


def fetch(name: str) -> Path:
    """Downloads a benchmark and returns its file; torchvision's own files lie beside it.

    Raises:
        BadInput: if torchvision is not installed, or the download fails.
    """
    try:
        from torchvision import datasets
    except ImportError:
        hint = "pip install 'ebflow[vision]'"
        raise BadInput(file=name, found="no torchvision, which fetches it", hint=hint) from None
    path = benchmark_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with drafted(path) as draft:
            _write(draft, *BENCHMARKS[name](datasets, path.parent))
    except (OSError, RuntimeError, ImportError) as error:
        raise BadInput(f"cannot be fetched ({str(error)[:300]})", file=name) from None
    return path


def _write(path: Path, train: Images, test: Images) -> None:
    """Writes images with their classes and the names of their splits."""
    images, labels = train
    splits = {
        "train": (images[:-HELD_OUT], labels[:-HELD_OUT]),
        "validation": (images[-HELD_OUT:], labels[-HELD_OUT:]),
        "test": test,
    }
    with ExitStack() as stack:
        writer = None
        for split, (images, labels) in splits.items():
            for k in range(0, len(images), CHUNK):
                x, some = images[k : k + CHUNK], labels[k : k + CHUNK]
                table = array_table(x, 256, label=some, split=[split] * len(x))
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)


def _mnist(datasets: ModuleType, folder: Path) -> Iterator[Images]:
    for train in (True, False):
        images = datasets.MNIST(folder, train=train, download=True)
        yield images.data.numpy()[:, None], images.targets.tolist()


def _cifar10(datasets: ModuleType, folder: Path) -> Iterator[Images]:
    """Reads CIFAR-10's binary version, because torchvision would unpickle the other one."""
    datasets.utils.download_and_extract_archive(CIFAR10, str(folder), md5=CIFAR10_MD5)
    for names in ([f"data_batch_{k}" for k in range(1, 6)], ["test_batch"]):
        files = [folder / "cifar-10-batches-bin" / f"{name}.bin" for name in names]
        records = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        records = records.reshape(-1, 1 + 3 * 32 * 32)  # a class and an image
        yield records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].tolist()


# Functions that download a benchmark and yield its training images, then its test images.
BENCHMARKS: dict[str, Callable[[ModuleType, Path], Iterator[Images]]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
}
