"""Folders of images that are damaged or differ: each maker writes one and returns
(source, options, message)."""

import numpy as np
from PIL import Image

from .parquet import Cases
from .pictures import folder, pixels, save

IMAGES = Cases()


@IMAGES.add
def empty_image(path):
    (folder(path / "raw") / "03.png").write_bytes(b"")
    return path / "raw", {}, r"03.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def first_image_empty(path):
    (folder(path / "raw") / "00.png").write_bytes(b"")
    return path / "raw", {}, r"00.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def text_called_jpg(path):
    (folder(path / "raw") / "09.jpg").write_text("no picture")
    return path / "raw", {}, r"09.jpg: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def other_format_called_png(path):
    raw = folder(path / "raw")
    Image.fromarray(pixels()).save(raw / "05.png", format="BMP")
    return raw, {}, r"05.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def truncated_png(path):
    raw = folder(path / "raw", height=40, width=40)
    content = (raw / "04.png").read_bytes()
    (raw / "04.png").write_bytes(content[: len(content) // 2])
    return raw, {}, r"04.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def truncated_jpeg(path):
    raw = folder(path / "raw", suffix="jpg", height=40, width=40)
    content = (raw / "04.jpg").read_bytes()
    (raw / "04.jpg").write_bytes(content[: len(content) // 2])
    return raw, {}, r"04.jpg: corrupt, or no PNG or JPEG file \(.*truncated"


@IMAGES.add
def one_byte_of_a_png_changed(path):
    raw = folder(path / "raw")
    content = bytearray((raw / "02.png").read_bytes())
    content[content.index(b"IDAT") + 10] ^= 0xFF
    (raw / "02.png").write_bytes(content)
    return raw, {}, r"02.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def two_sizes(path):
    raw = folder(path / "raw")
    save(raw / "06.png", pixels(height=5))
    message = r"06.png: found 4×5 pixels in RGB, expected 4×6 pixels in RGB as in .*00.png"
    return raw, {}, message


@IMAGES.add
def two_modes(path):
    raw = folder(path / "raw")
    save(raw / "06.png", pixels(channels=1))
    message = r"06.png: found 4×6 pixels in grey, expected 4×6 pixels in RGB as in .*00.png"
    return raw, {}, message


@IMAGES.add
def palette(path):
    raw = folder(path / "raw")
    save(raw / "07.png", pixels(), mode="P")
    return raw, {}, r"07.png: found mode P, expected L \(grey of 8 bits\) or RGB"


@IMAGES.add
def transparency(path):
    raw = path / "raw"
    save(raw / "00.png", pixels(channels=4))
    return raw, {}, r"00.png: found mode RGBA, expected L .* or RGB. Pillow"


@IMAGES.add
def sixteen_bits(path):
    raw = path / "raw"
    save(raw / "00.png", np.full((4, 4), 3000, dtype=np.uint16))
    return raw, {}, r"00.png: found mode I;16, expected L \(grey of 8 bits\) or RGB"


@IMAGES.add
def damaged_image_of_a_class(path):
    raw = path / "raw"
    for name in ("cat", "dog"):
        folder(raw / name)
    (raw / "dog" / "03.png").write_bytes(b"")
    return raw, {}, r"dog/03.png: corrupt, or no PNG or JPEG file \("


@IMAGES.add
def classes_of_a_flat_folder(path):
    message = r"raw, column 'label': no such column, expected one with integer classes"
    return folder(path / "raw"), {"label": "label"}, message


@IMAGES.add
def one_class(path):
    folder(path / "raw" / "cat")
    message = r"raw, column 'label': found one class in all .* training rows, expected two"
    return path / "raw", {"label": "label"}, message


@IMAGES.add
def folder_called_png(path):
    raw = folder(path / "raw")
    (raw / "20.png").mkdir()
    return raw, {}, r"20.png: corrupt, or no PNG or JPEG file \(.*Is a directory"


@IMAGES.add
def one_image(path):
    return folder(path / "raw", count=1), {}, r"raw: found 1 row, expected at least 4"


@IMAGES.add
def columns_of_images(path):
    raw = folder(path / "raw")
    return raw, {"columns": ["red"]}, r"raw, column 'red': no such column, expected one of image"
