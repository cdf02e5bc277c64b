"""PNG and JPEG images in folders."""

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.data.arrays import array_batch, array_schema
from pipelines.data.files import Part
from pipelines.data.layout import LABEL
from pipelines.data.messages import reading

SUFFIXES = (".png", ".jpg", ".jpeg")

PLAIN = ("L", "RGB")  # Pillow's modes of grey and coloured images of 8 bits

BATCH_BYTES = 4 << 20

# Errors that Pillow raises at corrupt images, besides OSError.
FAULTS = (SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def image_folder(folder: Path) -> tuple[Part, tuple[str, ...]] | None:
    """Returns the images of a folder, and the names of its classes; None if there are no images.

    The images are in the order of their names. Sub-folders are classes, in the order of their
    names, and the column ``label`` has their numbers. Only the first image is read here.

    Raises:
        BadInput: if an image cannot be read, here or later, or has another size.
    """
    files, classes = _list_images(folder), {}
    if not files:
        inner = (path for path in sorted(folder.iterdir()) if path.is_dir())
        named = (path for path in inner if path.name[0] not in "._")
        classes = {path.name: images for path in named if (images := _list_images(path))}
        files = [file for images in classes.values() for file in images]
    if not files:
        return None
    sizes = [len(images) for images in classes.values()]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    shape = _pixels(files[0]).shape
    step = max(1, BATCH_BYTES // math.prod(shape))

    def pixels(file: Path) -> np.ndarray:
        found = _pixels(file)
        if found.shape != shape:
            expected = f"{_describe(shape)} as in {files[0]}"
            raise BadInput(file=file, found=_describe(found.shape), expected=expected)
        return found

    def batch(names: Sequence[str], rows: slice) -> pa.RecordBatch:
        classes = labels[rows] if sizes else None
        return array_batch(np.stack([*map(pixels, files[rows])]), names, 256, label=classes)

    def read(names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        return (batch(names, slice(k, k + step)) for k in range(0, len(files), step))

    schema = array_schema(shape, "uint8", 256, one_list=True)
    schema = schema.append(pa.field(LABEL, pa.int64())) if sizes else schema
    digest = partial(_sha256, files, sizes)
    part = Part(str(folder), schema, len(files), read, digest, "image", version=files[0])
    return part, tuple(classes)


def _sha256(files: Sequence[Path], classes: Sequence[int]) -> str:
    """Returns a SHA-256 of the contents of images and the sizes of classes."""
    total = hashlib.sha256(str(classes).encode())
    for file in files:
        with reading(file, "image"):
            total.update(bytes.fromhex(sha256(file)))
    return total.hexdigest()


def _list_images(folder: Path) -> list[Path]:
    """Returns the images of a folder by name, without those that start with "." or "_"."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith((".", "_")))


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {'grey' if shape[0] == 1 else 'RGB'}"


def _pixels(file: Path) -> np.ndarray:
    """Returns the pixels of a grey or RGB image as uint8 with shape (C, H, W)."""
    from PIL import Image

    with reading(file, "PNG or JPEG", also=(*FAULTS, Image.DecompressionBombError)):
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            image.load()
    if image.mode not in PLAIN:
        expected = "L (grey of 8 bits) or RGB"
        hint = "Pillow's image.convert('RGB') converts it"
        raise BadInput(file=file, found=f"mode {image.mode}", expected=expected, hint=hint)
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))
