"""PNG and JPEG images, alone and in folders."""

__all__ = ["decode", "image_folder", "planes", "scaled"]

import hashlib
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.data.arrays import array_schema, array_table
from pipelines.data.files import Part
from pipelines.data.layout import LABEL

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")

MODES = {1: "L", 3: "RGB"}
"""Pillow's names of grey and coloured images, by their number of channels."""

CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""The modes of images that scaling converts to grey or RGB."""

BATCH_BYTES = 4 << 20

FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""Errors that Pillow raises at corrupt images."""


def image_folder(folder: Path, side: int | None) -> tuple[Part, tuple[str, ...]] | None:
    """Returns the images of a folder, and the names of its classes; None if there are no images.

    The images are in the order of their names. Sub-folders are classes, in the order of their
    names, and the column ``label`` has their numbers. Only the first image is read here.

    Arguments:
        folder: The folder.
        side: The side to which images are scaled and cut; None: all have one size.

    Raises:
        BadInput: if an image cannot be read, here or later, or has another size.
    """
    files, classes = _list_images(folder), {}
    if not files:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        named = (path for path in inner if path.name[0] not in "._")
        classes = {path.name: images for path in named if (images := _list_images(path))}
        files = [file for images in classes.values() for file in images]
    if not files:
        return None
    sizes = [len(images) for images in classes.values()]
    labels = np.repeat(np.arange(len(sizes)), sizes) if sizes else None
    shape = planes(decode(files[0]) if side is None else scaled(files[0], side=side)).shape
    count = max(1, BATCH_BYTES // int(np.prod(shape)))

    def read(names: Sequence[str], size: int, start: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        chunks = (slice(k, k + min(count, size)) for k in range(start, len(files), count))
        return start, (_batch(files, shape, side, labels, names, chunk) for chunk in chunks)

    schema = array_schema(shape, "uint8", 256, one_list=True)
    schema = schema.append(pa.field(LABEL, pa.int64())) if sizes else schema
    digest = partial(_sha256, files, sizes)
    part = Part(str(folder), schema, len(files), read, digest, "image", version=files[0])
    return part, tuple(classes)


def _batch(
    files: Sequence[Path],
    shape: tuple[int, ...],
    side: int | None,
    labels: np.ndarray | None,
    names: Sequence[str],
    chunk: slice,
) -> pa.RecordBatch:
    """Returns some images and their classes."""
    options = {"side": side, "mode": MODES[shape[0]]}
    pixels = [
        _same(file, shape, files[0]) if side is None else planes(scaled(file, **options))
        for file in files[chunk]
    ]
    beside = {} if labels is None else {LABEL: labels[chunk]}
    table = array_table(np.stack(pixels), 256, **beside).select(names)
    return table.combine_chunks().to_batches()[0]


def _sha256(files: Sequence[Path], classes: Sequence[int]) -> str:
    """Returns a SHA-256 of the contents of images and the sizes of classes."""
    total = hashlib.sha256(str(classes).encode())
    for file in files:
        try:
            total.update(bytes.fromhex(sha256(file)))
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    return total.hexdigest()


def _list_images(folder: Path) -> list[Path]:
    """Returns the images of a folder by name, without those that start with "." or "_"."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith((".", "_")))


def _same(file: Path, shape: tuple[int, ...], first: Path) -> np.ndarray:
    """Returns an image of the expected shape."""
    pixels = planes(decode(file))
    if pixels.shape != shape:
        expected = f"{_describe(shape)} as in {first}, or data.resize SIDE for all"
        raise BadInput(f"{file}: found {_describe(pixels.shape)}, expected {expected}")
    return pixels


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {'grey' if shape[0] == 1 else 'RGB'}"


def decode(file: Path, modes: Collection[str] = ("L", "RGB")) -> "Image":
    """Returns an image with its pixels.

    Raises:
        BadInput: if the file is corrupt, not PNG or JPEG, or neither grey nor RGB of 8 bits.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            image.load()
    except UnidentifiedImageError:
        raise BadInput(f"{file}: found no PNG or JPEG image in it, expected one") from None
    except (*FAULTS, Image.DecompressionBombError) as error:
        text = " ".join(str(error).split())
        raise BadInput(f"{file}: corrupt or unreadable image ({text[:200]})") from None
    if image.mode not in modes:
        advice = ": data.resize SIDE converts it" if image.mode in CONVERTIBLE else ""
        raise BadInput(
            f"{file}: found mode {image.mode}, expected L (grey of 8 bits) or RGB{advice}"
        )
    return image


def scaled(file: Path, *, side: int, mode: str | None = None) -> "Image":
    """Returns an image, scaled and cut to a square around its middle; transparency becomes white.

    Arguments:
        file: The file.
        side: The side of the square.
        mode: ``L`` or ``RGB``; None: ``L`` for an image without colours, ``RGB`` for others.

    Raises:
        BadInput: as ``decode``.
    """
    from PIL import Image, ImageOps

    image = decode(file, modes=CONVERTIBLE)
    mode = mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return ImageOps.fit(image.convert(mode), (side, side), Image.Resampling.BILINEAR)


def planes(image: "Image") -> np.ndarray:
    """Returns the pixels of a grey or RGB image as uint8 with shape (C, H, W)."""
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))
