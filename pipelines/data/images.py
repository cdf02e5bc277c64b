"""Images as rows: those of a folder, patches of photographs, and benchmarks.

*Images of a folder* are as they are, or scaled.

*Patches* are those of the two photographs that scikit-learn bundles, split by place: a vertical
line at 80 % of the width has the training patches on its left, the strip from there to 90 % those
for validation, the rest those for testing; no patch crosses a line, so that no two splits share a
pixel. Within its strips each split takes distinct places at random, always the same; patches of
one split overlap.

*Benchmarks* are read from the files that their authors distribute. These lie in one folder,
``EBFLOW_DATA`` (default ``~/.cache/ebflow/data``), laid out as torchvision does, so that it may be
one of torchvision's. They are memory-mapped, never unpickled: CIFAR-10 is read in its binary
version. Nothing is downloaded but by ``ebflow data fetch``. Images of another size are scaled by
Pillow's antialiased bilinear filter. Splits are those of EBFlow's experiments: for MNIST and
CIFAR-10 the last 10,000 training images are for validation. Its STL-10 and CelebA are the 5,000
images of the labelled training part and the first 5,000 of the training part, which it also
validates and tests on; here images from the parts that the authors set aside for it are used for
that.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

__all__ = ["CELEBA", "CIFAR10", "CIFAR100", "MNIST", "MNIST_CLASSES", "PATCHES", "STL10", "CelebA",
           "Records", "binary", "celeba", "classes", "decode", "folder_rows", "idx", "images",
           "natural_patches", "paths", "places", "planes", "root", "scaled", "stl10",
           "strips"]  # fmt: skip

import os
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ebflow.errors import BadInput
from pipelines.data.manifest import SPLITS, Counts

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {1: "L", 3: "RGB"}
"""Pillow's names of what is read, by the number of channels."""

SCALED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""What is brought to one of these where images are scaled."""

BATCH_BYTES = 4 << 20
CHUNK = 256
PATCHES = Counts(20_000, 2_000, 2_000)

SIDE = 64
"""Side of a scaled image."""


def images(folder: Path) -> list[Path]:
    """Returns the images of a folder by name; hidden ones, and those after "_", are left out."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith((".", "_")))


def folder_rows(
    files: Sequence[Path], shape: tuple[int, ...], *, resize: bool
) -> Iterator[np.ndarray]:
    """Yields images with shape (n, C, H, W), a few at a time."""
    count = max(1, BATCH_BYTES // int(np.prod(shape)))
    options = {"side": shape[2], "mode": MODES[shape[0]]}
    for k in range(0, len(files), count):
        some = files[k : k + count]
        if resize:
            yield np.stack([planes(scaled(file, **options)) for file in some])
        else:
            yield np.stack([_same(file, shape, files[0]) for file in some])


def decode(file: Path, modes: Collection[str] = ("L", "RGB")) -> "Image":
    """Returns an image whose pixels have been read.

    Raises:
        BadInput: If the file is damaged, not PNG or JPEG, or neither grey nor RGB of 8 bits.
    """
    from PIL import Image, UnidentifiedImageError

    damage = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            image.load()
    except UnidentifiedImageError:
        raise BadInput(f"{file}: found no PNG or JPEG image in it, expected one") from None
    except (*damage, Image.DecompressionBombError) as error:
        text = " ".join(str(error).split())
        raise BadInput(f"{file}: corrupt or unreadable image ({text[:200]})") from None
    if image.mode not in modes:
        advice = ": data.resize SIDE converts it" if image.mode in SCALED else ""
        raise BadInput(
            f"{file}: found mode {image.mode}, expected L (grey of 8 bits) or RGB{advice}"
        )
    return image


def scaled(file: Path, *, side: int, mode: str | None = None) -> "Image":
    """Returns an image whose shorter side is scaled, cut to a square around its middle.

    What is transparent lies over white.

    Arguments:
        file: The file.
        side: The side of the square.
        mode: ``L`` or ``RGB``; None: ``L`` of an image without colours, ``RGB`` of others.

    Raises:
        BadInput: As ``decode``.
    """
    from PIL import Image, ImageOps

    image = decode(file, modes=SCALED)
    mode = mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return ImageOps.fit(image.convert(mode), (side, side), Image.Resampling.BILINEAR)


def planes(image: "Image") -> np.ndarray:
    """Returns the pixels of a grey or RGB image as uint8 with shape (C, H, W)."""
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))


def natural_patches(size: int, *, grey: bool = False) -> Iterator[np.ndarray]:
    """Yields square patches with shape (n, C, size, size), first train, then validation, test."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    pictures = _luma(pictures) if grey else pictures
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    for picture, y, x in places(pictures.shape[:3], size):
        for k in range(0, len(x), CHUNK):
            part = slice(k, k + CHUNK)
            yield windows[picture[part], y[part], x[part]]


def places(shape: tuple[int, int, int], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields picture, top and left of the patches of each split.

    Arguments:
        shape: Number of pictures, their height and width.
        size: Side of a patch.
    """
    count, height, width = shape
    rng = np.random.Generator(np.random.PCG64(0))
    for (left, right), rows in zip(strips(width), map(PATCHES.of, SPLITS), strict=True):
        room = (count, height - size + 1, right - left - size + 1)
        picture, y, x = np.unravel_index(rng.permutation(np.prod(room))[:rows], room)
        yield picture, y, left + x


def strips(width: int) -> list[tuple[int, int]]:
    """Returns where the strips of train, validation and test begin and end, in pixels."""
    lines = [0, width * 8 // 10, width * 9 // 10, width]
    return list(zip(lines[:-1], lines[1:], strict=True))


def _same(file: Path, shape: tuple[int, ...], first: Path) -> np.ndarray:
    found = planes(decode(file))
    if found.shape != shape:
        wanted = f"{_shape_text(shape)} as in {first}, or data.resize SIDE for all"
        raise BadInput(f"{file}: found {_shape_text(found.shape)}, expected {wanted}")
    return found


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {'grey' if shape[0] == 1 else 'RGB'}"


def _luma(pictures: np.ndarray) -> np.ndarray:
    """Returns grey levels by ITU-R BT.601 in whole thousandths, rounded, with C = 1."""
    weights = np.array([299, 587, 114])
    return ((pictures @ weights + 500) // 1000).astype(np.uint8)[..., None]


def root() -> Path:
    """Returns the folder of the files."""
    return Path(os.environ.get("EBFLOW_DATA") or Path.home() / ".cache" / "ebflow" / "data")


@dataclass(frozen=True)
class Records:
    """A file of records of equal length: labels of a byte each, then an image.

    Arguments:
        name: The data set, for messages.
        file: Its path under :func:`root`.
        rows: Number of records.
        width: Bytes of an image.
        label: Bytes of labels; the last one is the class.
        header: The bytes before the first record.
    """

    name: str
    file: str
    rows: int
    width: int
    label: int = 0
    header: bytes = b""

    def path(self) -> Path:
        """Returns the path of the file; raises BadInput unless it is there and whole."""
        path = root() / self.file
        _check_there(self.name, path)
        size = len(self.header) + self.rows * (self.label + self.width)
        if (found := path.stat().st_size) != size:
            raise BadInput(f"{path}: found {found} bytes, expected {size} ({self.name})")
        return path

    def images(self) -> np.ndarray:
        """Returns the images with shape (rows, width), memory-mapped."""
        return self._records()[:, self.label :]

    def classes(self) -> np.ndarray:
        """Returns the classes with shape (rows,)."""
        return self._records()[:, self.label - 1]

    def _records(self) -> np.ndarray:
        path = self.path()
        try:
            with path.open("rb") as stream:
                head = stream.read(len(self.header))
            shape = (self.rows, self.label + self.width)
            records = np.memmap(path, np.uint8, "r", offset=len(self.header), shape=shape)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
        if head != self.header:
            raise BadInput(
                f"{path}: starts with {head.hex(' ')}, expected {self.header.hex(' ')}, the "
                f"header of {self.rows} images ({self.name})"
            )
        return records


def idx(name: str, file: str, rows: int, side: int) -> Records:
    """Returns an IDX file of square images: its header holds type, rows, height and width."""
    header = struct.pack(">4I", 2051, rows, side, side)
    return Records(name, file, rows, side * side, header=header)


MNIST = (
    idx("mnist", "MNIST/raw/train-images-idx3-ubyte", 60_000, 28),
    idx("mnist", "MNIST/raw/t10k-images-idx3-ubyte", 10_000, 28),
)
MNIST_CLASSES = tuple(
    Records("mnist", f"MNIST/raw/{file}-labels-idx1-ubyte", rows, 0, label=1,
            header=struct.pack(">2I", 2049, rows))
    for file, rows in (("train", 60_000), ("t10k", 10_000))
)  # fmt: skip
CIFAR100 = tuple(
    Records("cifar100", f"cifar-100-binary/{file}.bin", rows, 3072, label=2)
    for file, rows in (("train", 50_000), ("test", 10_000))
)
CIFAR10 = tuple(
    Records("cifar10", f"cifar-10-batches-bin/{file}.bin", 10_000, 3072, label=1)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
STL10 = (
    Records("stl10", "stl10_binary/train_X.bin", 5_000, 3 * 96 * 96),
    Records("stl10", "stl10_binary/test_X.bin", 8_000, 3 * 96 * 96),
)


def paths(files: Sequence[Records]) -> list[Path]:
    """Returns the paths of files; raises BadInput unless all are there and whole."""
    return [file.path() for file in files]


def binary(files: Sequence[Records]) -> Iterator[np.ndarray]:
    """Yields the images of files as they are."""
    for file in files:
        yield file.images()


def classes(files: Sequence[Records]) -> np.ndarray:
    """Returns the classes of all records, with shape (N,)."""
    return np.concatenate([file.classes() for file in files])


def stl10(files: Sequence[Records]) -> Iterator[np.ndarray]:
    """Yields images of 96×96, stored column by column, scaled to 64×64."""
    for images in binary(files):
        for k in range(0, len(images), CHUNK):
            pixels = images[k : k + CHUNK].reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
            yield np.stack([_scaled(image) for image in pixels])


@dataclass(frozen=True)
class CelebA:
    """The first images of each part of CelebA.

    Arguments:
        counts: How many of the parts for training, validation and testing.
    """

    counts: Counts = Counts(5_000, 1_000, 1_000)

    def files(self) -> list[Path]:
        """Returns the images by the authors' list; raises BadInput if it or one is missing."""
        folder = root() / "celeba"
        listed = self._listed(folder / "list_eval_partition.txt")
        paths = [folder / "img_align_celeba" / name for name in listed]
        for path in paths:
            _check_there("celeba", path)
        return paths

    def _listed(self, file: Path) -> list[str]:
        _check_there("celeba", file)
        parts: dict[str, list[str]] = {"0": [], "1": [], "2": []}
        for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
            name, _, part = line.strip().partition(" ")
            if part.strip() not in parts or Path(name).name != name:
                raise BadInput(f"{file}, line {number}: found {line!r}, expected a name and 0 … 2")
            parts[part.strip()].append(name)
        wanted = [self.counts.of(split) for split in SPLITS]
        for names, count in zip(parts.values(), wanted, strict=True):
            if len(names) < count:
                raise BadInput(f"{file}: found {len(names)} names of a part, expected {count}")
        return [n for names, k in zip(parts.values(), wanted, strict=True) for n in names[:k]]


CELEBA = CelebA()


def celeba(data: CelebA) -> Iterator[np.ndarray]:
    """Yields photographs with their shorter side scaled to 64, cut to 64×64 around the middle."""
    files = data.files()
    for k in range(0, len(files), CHUNK):
        yield np.stack([_portrait(file) for file in files[k : k + CHUNK]])


def _check_there(name: str, path: Path) -> None:
    if not path.is_file():
        raise BadInput(
            f"{name}: found no {path}, expected it there: put it there, set EBFLOW_DATA to the "
            f"folder that has {path.relative_to(root())}, or run: ebflow data fetch {name}"
        )


def _scaled(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return planes(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _portrait(file: Path) -> np.ndarray:
    from PIL import Image

    image = decode(file)
    if image.mode != "RGB":
        raise BadInput(f"{file}: found mode {image.mode}, expected RGB")
    width, height = (side * SIDE // min(image.size) for side in image.size)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return planes(whole.crop((left, top, left + SIDE, top + SIDE)))
