"""The files in which the authors of benchmarks distribute them.

Nothing is unpickled. A function of a folder yields the images of each split: for training,
validation and testing. Images have shape (n, C, H, W) and type uint8; classes start at 0.

Images of STL-10 and CelebA become 64×64 by Pillow's antialiased bilinear filter.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ebflow.errors import BadInput
from pipelines.data.images import FAULTS
from pipelines.data.messages import reading

Images = tuple[np.ndarray, np.ndarray | None]  # Images, and their classes if they have any

HELD_OUT = 10_000  # Training images of MNIST and CIFAR-10 that are for validation
SIDE = 64  # Side of images of STL-10 and CelebA
FACES = {"0": 5_000, "1": 1_000, "2": 1_000}  # First images of each part of CelebA

MNIST = tuple(
    f"MNIST/raw/{part}-{kind}-ubyte"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
CIFAR10 = tuple(
    f"cifar-10-batches-bin/{name}.bin"
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
)
STL10 = tuple(f"stl10_binary/{part}_{kind}.bin" for part in ("train", "test") for kind in "Xy")
CELEBA = ("celeba/list_eval_partition.txt", "celeba/img_align_celeba")


def mnist(folder: Path) -> Iterator[Images]:
    """Yields the splits of MNIST; the last training images are for validation."""
    images, labels, test, test_labels = (read_idx(folder / file) for file in MNIST)
    yield from _divided(images[:, None], labels)
    yield test[:, None], test_labels.astype(np.int64)


def cifar10(folder: Path) -> Iterator[Images]:
    """Yields the splits of CIFAR-10's binary version; the last training images validate."""
    width = 1 + 3 * 32 * 32  # a class and an image
    *batches, test = (_records(folder / file, width) for file in CIFAR10)
    train = np.concatenate(batches)
    yield from _divided(train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0])
    yield test[:, 1:].reshape(-1, 3, 32, 32), test[:, 0].astype(np.int64)


def stl10(folder: Path) -> Iterator[Images]:
    """Yields the labelled images of STL-10; one half of its test images validates."""
    train, labels, test, test_labels = (
        _records(folder / file, 3 * 96 * 96 if file.endswith("X.bin") else 1) for file in STL10
    )
    half = len(test) // 2
    for records, classes in (
        (train, labels),
        (test[:half], test_labels[:half]),
        (test[half:], test_labels[half:]),
    ):
        pictures = records.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)  # columns come first
        yield np.stack([_scaled(picture) for picture in pictures]), classes[:, 0].astype(int) - 1


def celeba(folder: Path) -> Iterator[Images]:
    """Yields the first images of each part of CelebA, cut to squares around their middle."""
    listing, pictures = (folder / name for name in CELEBA)
    for names in _listed(listing, FACES):
        yield np.stack([_portrait(pictures / name) for name in names]), None


def read_idx(file: Path) -> np.ndarray:
    """Returns the array of unsigned bytes in an IDX file, the format of MNIST.

    The file has two zero bytes, the type (8), the number of dimensions, their sizes as big-endian
    32-bit integers, and the numbers.

    Raises:
        BadInput: if the file is of another type, or shorter or longer than its sizes.
    """
    with reading(file, "IDX"):
        content = file.read_bytes()
    if content[:3] != b"\0\0\x08" or len(content) < 4 * (1 + content[3]):
        found = f"a file that starts with {content[:4].hex(' ') or 'nothing'}"
        raise BadInput(file=file, found=found, expected="00 00 08, an IDX file of bytes")
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    numbers = np.frombuffer(content, np.uint8, offset=4 * (1 + content[3]))
    if len(numbers) != np.prod(sizes):
        expected = f"{np.prod(sizes)}, as its header says"
        raise BadInput(file=file, found=f"{len(numbers)} numbers", expected=expected)
    return numbers.reshape(sizes)


def _records(file: Path, width: int) -> np.ndarray:
    """Returns the records of a file, each of so many bytes, with shape (n, width)."""
    with reading(file, "binary"):
        content = np.fromfile(file, np.uint8)
    if not len(content) or len(content) % width:
        expected = f"a multiple of {width}, the size of a record"
        raise BadInput(file=file, found=f"{len(content)} bytes", expected=expected)
    return content.reshape(-1, width)


def _divided(images: np.ndarray, labels: np.ndarray) -> Iterator[Images]:
    """Yields the images for training, then the last ones, for validation."""
    for part in (slice(None, -HELD_OUT), slice(-HELD_OUT, None)):
        yield images[part], labels[part].astype(np.int64)


def _listed(file: Path, counts: Mapping[str, int]) -> Iterator[list[str]]:
    """Yields the names of the first images of each part, of lines with a name and a part."""
    parts: dict[str, list[str]] = {part: [] for part in counts}
    with reading(file, "text"):
        lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        name, _, part = line.strip().partition(" ")
        if part.strip() not in parts or Path(name).name != name:
            expected = "a name and 0, 1 or 2"
            raise BadInput(file=file, row=number, found=repr(line), expected=expected)
        parts[part.strip()].append(name)
    for part, names in parts.items():
        if len(names) < counts[part]:
            found = f"{len(names)} names of part {part}"
            raise BadInput(file=file, found=found, expected=f"at least {counts[part]}")
        yield names[: counts[part]]


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Returns an image with shape (H, W, C) as (C, 64, 64)."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _planes(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _portrait(file: Path) -> np.ndarray:
    """Returns a photograph, its shorter side scaled to 64 and its longer one cut, (3, 64, 64)."""
    from PIL import Image

    with reading(file, "JPEG", also=FAULTS), Image.open(file) as image:
        image.load()
    if image.mode != "RGB":
        raise BadInput(file=file, found=f"mode {image.mode}", expected="RGB")
    width, height = (side * SIDE // min(image.size) for side in image.size)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return _planes(whole.crop((left, top, left + SIDE, top + SIDE)))


def _planes(image: object) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
