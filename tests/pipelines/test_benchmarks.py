"""Benchmarks: torchvision's data sets as Parquet files; faults of fetching them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ebflow.errors import BadInput
from pipelines.data import benchmarks
from pipelines.data.benchmarks import fetch
from pipelines.data.dataset import Dataset
from tests.prepared import prepare


def levels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Torchvision:
    """Stands in for torchvision's data sets, with few images."""

    def __init__(self):
        self.utils = SimpleNamespace(download_and_extract_archive=self.cifar)
        self.images = levels(80, 28, 28)

    def MNIST(self, folder, train, download):
        part = self.images[:60] if train else self.images[60:]
        labels = torch.arange(len(part)) % 10
        return SimpleNamespace(data=torch.from_numpy(part), targets=labels)

    def cifar(self, url, folder, md5):
        for k, name in enumerate([*(f"data_batch_{j}" for j in range(1, 6)), "test_batch"]):
            path = Path(folder) / "cifar-10-batches-bin" / f"{name}.bin"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(np.hstack([levels(10, 1) % 10, levels(10, 3072, seed=k)]).tobytes())


@pytest.fixture(autouse=True)
def vision(tmp_path, monkeypatch):
    """A folder in place of the user's, small counts, and a torchvision."""
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "files"))
    monkeypatch.setattr(benchmarks, "HELD_OUT", 20)
    monkeypatch.setattr(benchmarks, "CHUNK", 7)
    vision = Torchvision()
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=vision))
    return vision


def test_mnist(vision, tmp_path):
    assert fetch("mnist") == tmp_path / "files" / "mnist.parquet"
    manifest = prepare("mnist", tmp_path / "out", label="label")
    assert manifest.counts == {"train": 40, "validation": 20, "test": 20}
    assert (manifest.shape, manifest.levels, manifest.classes) == ((1, 28, 28), 256, 10)
    for name, part in (
        ("train", slice(40)),
        ("validation", slice(40, 60)),
        ("test", slice(60, 80)),
    ):
        split = Dataset(tmp_path / "out").split(name)
        np.testing.assert_array_equal(split.tensor(), vision.images[part].reshape(-1, 784))


def test_cifar_has_the_images_and_the_last_label(tmp_path):
    fetch("cifar10")
    table = pq.read_table(tmp_path / "files" / "cifar10.parquet")
    assert table["split"].to_pylist() == ["train"] * 30 + ["validation"] * 20 + ["test"] * 10
    np.testing.assert_array_equal(table["image"][57].as_py(), levels(10, 3072, seed=5)[7])
    assert table["label"].to_pylist()[50:] == (levels(10, 1) % 10)[:, 0].tolist()


def test_fetching_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(BadInput, match=r"mnist: found no torchvision.*pip install 'ebflow\[vis"):
        fetch("mnist")


def test_a_failed_download_is_one_line_and_leaves_no_file(vision, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("Error downloading:\nrefused")

    monkeypatch.setattr(Torchvision, "MNIST", fail)
    with pytest.raises(BadInput, match=r"mnist: cannot be fetched \(Error downloading: refused\)"):
        fetch("mnist")
    assert [*(tmp_path / "files").iterdir()] == []
