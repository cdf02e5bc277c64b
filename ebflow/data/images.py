"""Images, and folders of them, read by Pillow: PNG or JPEG, grey or RGB."""

__all__ = ["SUFFIXES", "decode", "find_images", "image_folder", "planes"]

import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ebflow.data.source import Source
from ebflow.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
CHANNELS = {"L": 1, "RGB": 3}
BATCH_BYTES = 4 << 20


def find_images(folder: Path) -> list[Path]:
    """Returns the images of a folder by name; hidden ones, and those after "_", are left out."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith((".", "_")))


def image_folder(folder: Path, files: Sequence[Path]) -> Source:
    """Returns images of one size and mode as a source; reads only the first.

    An example has the shape (C, H, W), C = 1 or 3, and 256 levels. What a file's name or metadata
    say, its orientation for instance, is not used.

    Arguments:
        folder: The folder.
        files: The images in it, in the order of the rows.

    Raises:
        BadInput: If the first is no image that can be read; others raise when they are read.
    """
    shape = planes(decode(files[0])).shape
    return Source(
        read=partial(_rows, files, shape),
        rows=len(files),
        shape=shape,
        levels=256,
        description="images of a folder",
        provenance=str(folder),
        files=lambda: files,
    )


def decode(file: Path) -> "Image":
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
    if image.mode not in CHANNELS:
        raise BadInput(f"{file}: found mode {image.mode}, expected L (grey of 8 bits) or RGB")
    return image


def planes(image: "Image") -> np.ndarray:
    """Returns the pixels of a grey or RGB image as uint8 with shape (C, H, W)."""
    pixels = np.asarray(image)
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0)) if pixels.ndim == 3 else pixels[None]


def _rows(files: Sequence[Path], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    count = max(1, BATCH_BYTES // int(np.prod(shape)))
    for k in range(0, len(files), count):
        yield np.stack([_same(file, shape, files[0]) for file in files[k : k + count]])


def _same(file: Path, shape: tuple[int, ...], first: Path) -> np.ndarray:
    found = planes(decode(file))
    if found.shape != shape:
        wanted = f"{_told(shape)} as in {first}"
        raise BadInput(f"{file}: found {_told(found.shape)}, expected {wanted}")
    return found


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {'grey' if shape[0] == 1 else 'RGB'}"
