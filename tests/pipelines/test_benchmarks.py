"""Benchmarks: the authors' files as Parquet files; faults of fetching and reading them."""

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ebflow.errors import BadInput
from pipelines.data import benchmarks, originals
from pipelines.data.benchmarks import BENCHMARKS, fetch
from pipelines.data.dataset import Dataset
from pipelines.data.named import SOURCES
from tests.prepared import prepare

from .data.pictures import pixels, save


def levels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(file, array):
    """Writes an array as MNIST's authors do."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


def write(file, *columns):
    """Writes records of bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(np.hstack(columns).astype(np.uint8).tobytes())


class Torchvision:
    """Stands in for torchvision's data sets: "downloads" few images in the same layout."""

    def __init__(self):
        self.utils = SimpleNamespace(download_and_extract_archive=self.cifar10)
        self.downloads = []

    def MNIST(self, folder, download):
        self.downloads.append("mnist")
        for k, (part, count) in enumerate((("train", 60), ("t10k", 20))):
            raw = folder / "MNIST" / "raw"
            write_idx(raw / f"{part}-images-idx3-ubyte", levels(count, 28, 28, seed=k))
            write_idx(raw / f"{part}-labels-idx1-ubyte", levels(count, seed=k) % 10)

    def cifar10(self, url, folder, md5):
        self.downloads.append("cifar10")
        for k, name in enumerate(originals.CIFAR10):
            write(benchmarks.Path(folder) / name, levels(10, 1) % 10, levels(10, 3072, seed=k))

    def STL10(self, folder, download):
        self.downloads.append("stl10")
        for part, count in (("train", 5), ("test", 8)):
            binary = folder / "stl10_binary"
            write(binary / f"{part}_X.bin", levels(count, 3 * 96 * 96))
            write(binary / f"{part}_y.bin", 1 + np.arange(count)[:, None] % 5)

    def CelebA(self, folder, download):
        self.downloads.append("celeba")
        lines = []
        for k in range(9):
            save(folder / "celeba/img_align_celeba" / f"{k}.jpg", pixels(k, 218, 178))
            lines.append(f"{k}.jpg {k // 3}")
        (folder / "celeba/list_eval_partition.txt").write_text("\n".join(lines))


@pytest.fixture(autouse=True)
def vision(tmp_path, monkeypatch):
    """A folder in place of the user's, small counts, and a torchvision."""
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "files"))
    monkeypatch.setattr(originals, "HELD_OUT", 20)
    monkeypatch.setattr(originals, "FACES", {"0": 3, "1": 2, "2": 1})
    monkeypatch.setattr(benchmarks, "CHUNK", 7)
    vision = Torchvision()
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=vision))
    return vision


def images(folder, split):
    """Returns prepared images with shape (n, C, H, W)."""
    return Dataset(folder).split(split).tensor()


def test_mnist(tmp_path):
    assert fetch("mnist") == tmp_path / "files" / "mnist.parquet"
    manifest = prepare("mnist", tmp_path / "out", label="label")
    assert manifest.counts == {"train": 40, "validation": 20, "test": 20}
    assert (manifest.shape, manifest.levels, manifest.classes) == ((1, 28, 28), 256, 10)
    train, test = levels(60, 28, 28, seed=0), levels(20, 28, 28, seed=1)
    for name, part in (("train", train[:40]), ("validation", train[40:]), ("test", test)):
        np.testing.assert_array_equal(images(tmp_path / "out", name), part.reshape(-1, 784))


def test_cifar_has_the_images_and_the_last_label(tmp_path):
    fetch("cifar10")
    table = pq.read_table(tmp_path / "files" / "cifar10.parquet")
    assert table["split"].to_pylist() == ["train"] * 30 + ["validation"] * 20 + ["test"] * 10
    np.testing.assert_array_equal(table["image"][57].as_py(), levels(10, 3072, seed=5)[7])
    assert table["label"].to_pylist()[50:] == (levels(10, 1) % 10)[:, 0].tolist()


def test_stl10_is_scaled_and_its_test_images_are_halved(tmp_path):
    fetch("stl10")
    manifest = prepare("stl10", tmp_path / "out", label="label")
    assert manifest.counts == {"train": 5, "validation": 4, "test": 4}
    assert manifest.shape == (3, 64, 64) == SOURCES["stl10"].shape
    # The files have one column of pixels after the other.
    raw = levels(8, 3 * 96 * 96)[4].reshape(3, 96, 96)
    picture = Image.fromarray(raw.transpose(2, 1, 0)).resize((64, 64), Image.BILINEAR)
    first = np.asarray(picture).transpose(2, 0, 1).flatten()
    np.testing.assert_array_equal(images(tmp_path / "out", "test")[0], first)
    labels = Dataset(tmp_path / "out").split("train").labels()
    assert labels.tolist() == [0, 1, 2, 3, 4]


def test_celeba_has_the_first_faces_of_each_part_cut_around_their_middle(tmp_path):
    fetch("celeba")
    manifest = prepare("celeba", tmp_path / "out")
    assert manifest.counts == {"train": 3, "validation": 2, "test": 1}
    assert manifest.shape == (3, 64, 64) == SOURCES["celeba"].shape
    file = tmp_path / "files/celeba/img_align_celeba/6.jpg"
    whole = Image.open(file).resize((64, 78), Image.BILINEAR)
    middle = np.asarray(whole)[7:71].transpose(2, 0, 1).flatten()
    np.testing.assert_array_equal(images(tmp_path / "out", "test")[0], middle)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_files_that_are_there_need_neither_network_nor_torchvision(name, vision, monkeypatch):
    first = fetch(name).read_bytes()
    assert vision.downloads == [name] and len(first) > 1000
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert fetch(name).read_bytes() == first


@pytest.mark.parametrize("name", BENCHMARKS)
def test_fetching_without_torchvision(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    expected = (
        rf"{name}: found no torchvision.*pip install 'ebflow\[vis.*{BENCHMARKS[name].files[0]}"
    )
    with pytest.raises(BadInput, match=expected):
        fetch(name)


def test_a_failed_download_is_one_line_and_leaves_no_file(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("Error downloading:\nrefused")

    monkeypatch.setattr(Torchvision, "MNIST", fail)
    with pytest.raises(BadInput, match=r"mnist: cannot be fetched \(Error downloading: refused\)"):
        fetch("mnist")
    assert [*(tmp_path / "files").iterdir()] == []


CORRUPT = {
    "another type": ("mnist", originals.MNIST[0], b"PK\3\4aaaaaaaa", "starts with 50 4b 03"),
    "an empty file": ("mnist", originals.MNIST[0], b"", "starts with nothing"),
    "too short": ("mnist", originals.MNIST[1], struct.pack(">HBBI", 0, 8, 1, 9) + b"12345678",
        "found 8 numbers, expected 9"),
    "half a record": ("cifar10", originals.CIFAR10[2], b"1" * 3074,
        "found 3074 bytes, expected a multiple of 3073"),
    "no record": ("stl10", originals.STL10[0], b"", "found 0 bytes"),
    "no part": ("celeba", originals.CELEBA[0], b"0.jpg 0\n1.jpg 7\n",
        "row 2: found '1.jpg 7', expected a name and 0, 1 or 2"),
    "a path": ("celeba", originals.CELEBA[0], b"../0.jpg 0\n", "row 1: found '../0.jpg 0'"),
    "few names": ("celeba", originals.CELEBA[0], b"0.jpg 0\n",
        "found 1 names of part 0, expected at least 3"),
    "no image": ("celeba", "celeba/img_align_celeba/1.jpg", b"GIF89a", "corrupt, or no JPEG file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CORRUPT)
def test_corrupt_files_are_named(fault, tmp_path):
    name, file, content, message = CORRUPT[fault]
    path = fetch(name)
    path.unlink()
    (tmp_path / "files" / file).write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        fetch(name)
    assert str(caught.value).startswith(str(tmp_path / "files" / file))
    assert not path.exists()


def test_a_grey_photograph_is_refused(tmp_path):
    fetch("celeba")
    file = tmp_path / "files/celeba/img_align_celeba/0.jpg"
    save(file, pixels(0, 218, 178, channels=1))
    with pytest.raises(BadInput, match="found mode L, expected RGB"):
        fetch("celeba")
