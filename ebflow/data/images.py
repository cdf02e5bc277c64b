"""Images as rows: those of a folder, scaled or not, and patches of photographs.

*Patches* are those of the two photographs that scikit-learn bundles, split by place: a vertical
line at 80 % of the width has the training patches on its left, the strip from there to 90 % those
for validation, the rest those for testing; no patch crosses a line, so that no two splits share a
pixel. Within its strips each split takes distinct places at random, always the same; patches of
one split overlap.
"""

__all__ = ["PATCHES", "decode", "folder_rows", "images", "natural_patches", "places", "planes",
           "scaled", "strips"]  # fmt: skip

import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput
from .manifest import SPLITS, Counts

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
        wanted = f"{_told(shape)} as in {first}, or data.resize SIDE for all"
        raise BadInput(f"{file}: found {_told(found.shape)}, expected {wanted}")
    return found


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} pixels in {'grey' if shape[0] == 1 else 'RGB'}"


def _luma(pictures: np.ndarray) -> np.ndarray:
    """Returns grey levels by ITU-R BT.601 in whole thousandths, rounded, with C = 1."""
    weights = np.array([299, 587, 114])
    return ((pictures @ weights + 500) // 1000).astype(np.uint8)[..., None]
