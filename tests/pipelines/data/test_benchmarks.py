"""Benchmarks in their true formats, with few images; and real faults of fetching them."""

import hashlib
import pickle
import struct
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ebflow.errors import BadInput
from pipelines.cli.data import fetched
from pipelines.data import images as benchmarks
from pipelines.data.images import CelebA, Records, idx
from pipelines.data.manifest import SPLITS, Counts
from pipelines.data.named import SOURCES
from pipelines.data.prepare import prepare
from pipelines.data.sources import open_source

from .parquet import fingerprint
from .pictures import save
from .test_prepare import stored


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A folder for the files in place of the user's."""
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "files"))
    return tmp_path / "files"


def levels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def enter(monkeypatch, name, rows, held, read, files):
    """Enters a small version of a benchmark."""
    small = replace(SOURCES[name], rows=rows, validation=held, test=held, read=read, files=files)
    monkeypatch.setitem(SOURCES, name, small)


@pytest.fixture
def mnist(root, monkeypatch):
    """60 and 20 images in IDX files; returns all of them."""
    images, files = levels(80, 28, 28), []
    for file, part in zip(benchmarks.MNIST, (images[:60], images[60:]), strict=True):
        put(root / file.file, struct.pack(">4I", 2051, len(part), 28, 28) + part.tobytes())
        files.append(idx("mnist", file.file, len(part), 28))
    read, paths = partial(benchmarks.binary, files), partial(benchmarks.paths, files)
    enter(monkeypatch, "mnist", 80, 20, read, paths)
    kinds = np.arange(80, dtype=np.uint8) % 10
    put_labels(root, monkeypatch, kinds)
    return images


def put_labels(root, monkeypatch, kinds):
    """Puts the labels of MNIST's 60 and 20 images into IDX files."""
    files = []
    for file, part in zip(benchmarks.MNIST_CLASSES, (kinds[:60], kinds[60:]), strict=True):
        header = struct.pack(">2I", 2049, len(part))
        put(root / file.file, header + part.tobytes())
        files.append(replace(file, rows=len(part), header=header))
    labels = partial(benchmarks.classes, files)
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], labels=labels))


@pytest.fixture
def cifar10(root, monkeypatch):
    """Six files of ten images with labels; returns all images."""
    images, files = levels(60, 3, 32, 32), []
    for k, file in enumerate(benchmarks.CIFAR10):
        labels = levels(10, 1, seed=k) % 10
        part = images[10 * k : 10 * k + 10].reshape(10, 3072)
        put(root / file.file, np.hstack([labels, part]).tobytes())
        files.append(replace(file, rows=10))
    read, paths = partial(benchmarks.binary, files), partial(benchmarks.paths, files)
    enter(monkeypatch, "cifar10", 60, 10, read, paths)
    labels = partial(benchmarks.classes, files)
    monkeypatch.setitem(SOURCES, "cifar10", replace(SOURCES["cifar10"], labels=labels))
    return images


@pytest.fixture
def stl10(root, monkeypatch):
    """5 and 8 images, stored column by column; returns them as (H, W, C)."""
    coarse, files = levels(13, 12, 12, 3), []
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    for file, part in zip(benchmarks.STL10, (images[:5], images[5:]), strict=True):
        put(root / file.file, part.transpose(0, 3, 2, 1).tobytes())
        files.append(replace(file, rows=len(part)))
    read, paths = partial(benchmarks.stl10, files), partial(benchmarks.paths, files)
    enter(monkeypatch, "stl10", 13, 4, read, paths)
    return images


@pytest.fixture
def celeba(root, monkeypatch):
    """Twelve photographs, of which the list puts four in each part; returns their names."""
    names = [f"{k:06d}.jpg" for k in range(1, 13)]
    for k, name in enumerate(names):
        coarse = levels(11, 9, 3, seed=k).repeat(20, axis=0).repeat(20, axis=1)
        save(root / "celeba" / "img_align_celeba" / name, coarse[:218, :178])
    lines = [f"{name} {k % 3}" for k, name in enumerate(names)]
    put(root / "celeba" / "list_eval_partition.txt", "\n".join(lines).encode() + b"\n")
    data = CelebA(Counts(4, 2, 2))
    enter(monkeypatch, "celeba", 8, 2, partial(benchmarks.celeba, data), data.files)
    return names


def rows(name):
    return np.concatenate([x for x, *_ in open_source(name).batches()])


def splits(name, tmp_path, seed=0):
    """Returns the row numbers of the prepared splits."""
    manifest = prepare(name, tmp_path / f"out{seed}", seed=seed)
    return [stored(tmp_path / f"out{seed}", manifest, split)[1].tolist() for split in SPLITS]


def test_mnist(mnist, tmp_path):
    np.testing.assert_array_equal(rows("mnist"), mnist.reshape(80, 784))
    numbers = list(range(80))
    expected = [numbers[:40], numbers[40:60], numbers[60:]]
    assert splits("mnist", tmp_path) == splits("mnist", tmp_path, seed=1) == expected


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_classes_stand_beside_their_images(name, request):
    images = request.getfixturevalue(name).reshape(len(SOURCES[name].labels()), -1)
    pairs = list(open_source(name, label="label").batches())
    np.testing.assert_array_equal(np.concatenate([x for x, *_ in pairs]), images)
    found = np.concatenate([labels for _, labels, _ in pairs])
    np.testing.assert_array_equal(found, SOURCES[name].labels())
    if name == "cifar10":
        expected = np.concatenate([levels(10, 1, seed=k)[:, 0] % 10 for k in range(6)])
        np.testing.assert_array_equal(found, expected)


def test_cifar100_has_the_fine_label(root, monkeypatch):
    """A record is the coarse label, the fine one, and the image."""
    (train, _), pixels = benchmarks.CIFAR100, levels(4, 3072)
    labels = np.array([[1, 50], [2, 60], [3, 70], [4, 99]], np.uint8)
    put(root / train.file, np.hstack([labels, pixels]).tobytes())
    small = replace(train, rows=4)
    np.testing.assert_array_equal(small.classes(), [50, 60, 70, 99])
    np.testing.assert_array_equal(small.images(), pixels)


def test_cifar10(cifar10, tmp_path):
    np.testing.assert_array_equal(rows("cifar10"), cifar10.reshape(60, 3072))
    assert splits("cifar10", tmp_path)[2] == list(range(50, 60))


def test_stl10_is_upright_and_scaled(stl10):
    found = rows("stl10").reshape(13, 3, 64, 64)
    for image, row in zip(stl10, found, strict=True):
        scaled = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(row.transpose(1, 2, 0), np.asarray(scaled))


def test_celeba_takes_the_first_of_each_part_scaled_and_cut(celeba, root):
    found = rows("celeba").reshape(8, 3, 64, 64)
    chosen = [*celeba[0::3][:4], *celeba[1::3][:2], *celeba[2::3][:2]]
    for name, row in zip(chosen, found, strict=True):
        image = Image.open(root / "celeba" / "img_align_celeba" / name)
        scaled = np.asarray(image.resize((64, 78), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(row.transpose(1, 2, 0), scaled[7:71])


def test_full_sizes_are_those_of_the_authors():
    sizes = {
        file.file.split("/")[-1]: len(file.header) + file.rows * (file.label + file.width)
        for file in (*benchmarks.MNIST, *benchmarks.CIFAR10, *benchmarks.STL10)
    }
    assert sizes.pop("train-images-idx3-ubyte") == 47_040_016
    assert sizes.pop("t10k-images-idx3-ubyte") == 7_840_016
    assert sizes.pop("train_X.bin") == 138_240_000
    assert sizes.pop("test_X.bin") == 221_184_000
    assert set(sizes.values()) == {30_730_000} and len(sizes) == 6


@pytest.mark.parametrize("name", ["mnist", "cifar10", "stl10", "celeba"])
def test_fingerprint_follows_the_files(name, request, root):
    request.getfixturevalue(name)
    before = fingerprint(name)
    assert fingerprint(name) == before
    file = sorted(p for p in root.rglob("*") if p.suffix in (".bin", ".jpg") or "idx3" in p.name)[
        0
    ]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(name) != before


def damage_size(root):
    file = root / "MNIST/raw/t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    return r"t10k-images-idx3-ubyte: found 15695 bytes, expected 15696 \(mnist\)"


def damage_header(root):
    file = root / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(b"\0\0\x08\x01" + file.read_bytes()[4:])
    return r"train-images-idx3-ubyte: starts with 00 00 08 01 .*, expected 00 00 08 03"


def damage_gone(root):
    (root / "MNIST/raw/train-images-idx3-ubyte").unlink()
    return r"mnist: found no .*train-images-idx3-ubyte, expected it there: .*data fetch mnist"


@pytest.mark.parametrize("damage", [damage_size, damage_header, damage_gone])
def test_damaged_files_get_one_line(damage, mnist, root, tmp_path):
    message = damage(root)
    with pytest.raises(BadInput, match=message) as caught:
        prepare("mnist", tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_python_version_of_cifar10_is_not_unpickled(root):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    put(root / "cifar-10-batches-py" / "data_batch_1", pickle.dumps(Trap()))
    with pytest.raises(BadInput, match="found no .*cifar-10-batches-bin/data_batch_1.bin"):
        fingerprint("cifar10")


LISTS = {
    "part unknown": (b"000001.jpg 3\n", r"line 1: found '000001.jpg 3', expected a name and 0"),
    "no part": (b"000001.jpg\n", r"line 1: found '000001.jpg', expected a name and 0"),
    "outside": (b"../secret.jpg 0\n", r"line 1: found '../secret.jpg 0', expected a name"),
    "not text": (b"\xff\xfe 0 0\n", r"line 1: found .*, expected a name"),
    "too short": (b"000001.jpg 0\n", r"found 1 names of a part, expected 4"),
}


@pytest.mark.parametrize("name", LISTS)
def test_bad_list_of_celeba(name, celeba, root):
    content, message = LISTS[name]
    put(root / "celeba" / "list_eval_partition.txt", content)
    with pytest.raises(BadInput, match=f"list_eval_partition.txt.*{message}") as caught:
        fingerprint("celeba")
    assert len(str(caught.value).splitlines()) == 1


def test_grey_photograph(celeba, root):
    save(root / "celeba" / "img_align_celeba" / celeba[0], levels(218, 178))
    with pytest.raises(BadInput, match="000001.jpg: found mode L, expected RGB"):
        rows("celeba")


def test_files_are_not_read_into_memory(root):
    put(root / "x.bin", bytes(7 * 50))
    images = Records("x", "x.bin", 50, 6, label=1).images()
    assert isinstance(images, np.memmap) and images.shape == (50, 6)


def test_unknown_benchmark():
    with pytest.raises(BadInput, match="found data set 'digits', expected one of mnist, cifar10"):
        fetched("digits")


def test_fetching_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(BadInput, match=r"mnist: found no torchvision.*pip install 'ebflow\[vis"):
        fetched("mnist")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "stl10"])
def test_fetching_without_a_network(name, monkeypatch, capfd):
    """A proxy that nobody serves stands for the missing network."""
    pytest.importorskip("torchvision")
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(BadInput, match=f"{name}: cannot be fetched \\(.*refused") as caught:
        fetched(name)
    assert len(str(caught.value).splitlines()) == 1


def test_hash_of_files_is_that_of_their_hashes(mnist, root):
    files = [root / file.file for file in benchmarks.MNIST]
    digests = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    assert SOURCES["mnist"].sha256() == hashlib.sha256(digests).hexdigest()
