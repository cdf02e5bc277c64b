"""Files and folders that make no data set.

A case has a maker, which writes a source into a folder and returns it (or the name of a source);
the message; and the options of the data.
"""

import numpy as np
from PIL import Image

from .parquet import damaged, images, lists, parquet, table, write
from .pictures import folder, pixels, save


def case(make, message, **options):
    """Returns a case."""
    return make, message, options


def file(name, content=None, source=None):
    """Returns a maker of a file, or of a folder, in the source or as the source."""

    def make(path):
        made = path / name
        (made if content is None else made.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            made.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path / (source or name)

    return make


def empty_tables(path):
    (path / "raw").mkdir()
    for name in ("a", "b"):
        write(path / "raw" / f"{name}.parquet", table(0))
    return path / "raw"


def overwritten(start, stop, byte):
    """Returns a function that replaces bytes of a content by another one."""
    return lambda content: content[:start] + byte * (stop - start) + content[stop:]


NO_PARQUET = r"bad.parquet: corrupt, or no Parquet file \("
PATCHES = "natural-patches-16"

FILES = {
    "unknown name": case("digit",
        r"source: found 'digit', expected one of digits, sine, .*, a path that ends in"),
    "wrong suffix": case(file("bad.xlsx", "a,b\n1,2\n"),
        r"found '.*bad.xlsx', expected one of digits, sine, .*pandas converts other files"),
    "missing file": case(lambda path: path / "bad.parquet",
        r"bad.parquet: no such file or folder"),
    "missing folder": case(lambda path: path / "none", r"found '.*none', expected one of digits"),
    "folder without parquet": case(file("raw/notes.txt", "none here", "raw"),
        r"raw: found no file that ends in .parquet"),
    "folder prepared already": case(file("raw/manifest.json", "{}", "raw"),
        r"raw: found a prepared data set, expected raw data"),
    "empty file": case(file("bad.parquet", b""), NO_PARQUET + ".*0 bytes"),
    "csv called parquet": case(file("bad.parquet", "a,b\n1,2\n"), NO_PARQUET),
    "folder called parquet inside folder": case(file("raw/x.parquet", source="raw"),
        r"x.parquet: corrupt, or no Parquet file \(.*directory"),
    "truncated": case(damaged(table(), lambda content: content[:-20]),
        NO_PARQUET + ".*magic bytes"),
    "only magic": case(file("bad.parquet", b"PAR1"), NO_PARQUET),
    "corrupt footer": case(damaged(table(), overwritten(-60, -8, b"\xff")), NO_PARQUET),
    "column name not text": case(
        damaged({"image": lists(images())}, lambda c: c.replace(b"image", b"im\xff\xfee")),
        NO_PARQUET + ".*utf-8"),
    "impossible footer length": case(
        damaged(table(), lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1"), NO_PARQUET),
    "corrupt page": case(
        damaged(table(4000), overwritten(20000, 20100, b"\0"), write_page_checksum=True,
                compression="none"), NO_PARQUET + ".*CRC checksum"),
    "corrupt compressed page": case(
        damaged({"image": lists(images(4000))}, overwritten(3000, 3400, b"\xa5"),
                compression="zstd"), NO_PARQUET),
    "zero rows": case(parquet(table(0)), r"bad.parquet: found 0 rows, expected some"),
    "zero rows in folder": case(empty_tables, r"raw: found 0 rows, expected some"),
    "one row": case(parquet(table(1)), r"bad.parquet: found 1 row, expected at least 4"),
    "too few rows": case(parquet(table()),
        r"bad.parquet: found 60 rows, expected at least 61: 30 for validation, 29 for test",
        validation=30, test=29),
    "fractions leave nothing": case(parquet(table()),
        r"found 60 rows, expected at least 62: 30 for", validation=0.5, test=0.5),
    "negative fraction": case("digits", r"test: found -0.1, expected a whole number of rows",
        test=-0.1),
    "fraction above one": case("digits", r"validation: found 1.5, expected", validation=1.5),
    "fraction nan": case("digits", r"validation: found nan, expected", validation=float("nan")),
    "zero test rows": case("digits", r"test: found 0, expected", test=0),
    "more test rows than the source has set aside": case(PATCHES,
        r"natural-patches-16: found 2001 rows wanted for test, expected at most 2000 \(the",
        test=2001),
    "more training rows than the source has set aside": case(PATCHES,
        r"natural-patches-16: found 22000 rows wanted for train, expected at most 20000",
        rows=24_000, validation=1000, test=1000),
    "fewer rows than the source holds back": case(PATCHES,
        r"natural-patches-16: found 4000 rows, expected .* 4002: 2000 for validation", rows=4000),
    "more rows than there are": case("digits", r"rows: found 1798, expected 1 … 1797", rows=1798),
}  # fmt: skip


def csv(content):
    return file("bad.csv", content)


def lines(*rows):
    return csv("a,b\n" + "\n".join(rows) + "\n")


def array(values, length=None):
    """Returns a maker of a NumPy file, of which only the first bytes are there."""

    def make(path):
        np.save(path / "bad.npy", values, allow_pickle=True)
        (path / "bad.npy").write_bytes((path / "bad.npy").read_bytes()[:length])
        return path / "bad.npy"

    return make


ROWS = np.random.default_rng(0).normal(size=(20, 3))
ROWS[7, 2] = np.nan

FORMATS = {
    "csv without names": case(csv("1,2\n3,4.5\n"),
        r"bad.csv: found numbers in the first line, expected names"),
    "csv between semicolons": case(csv("a;b\n1;2\n"),
        r"bad.csv: found columns between semicolons, expected commas. pandas.read_csv"),
    "csv between semicolons with decimal commas": case(csv("a;b\n1,5;2,25\n"),
        r"bad.csv: found columns between semicolons.*\(path, sep=';', decimal=','\).to_csv"),
    "csv in utf16": case(csv("a,b\n1,2\n3,4\n".encode("utf-16")),
        r"bad.csv: found another encoding, expected UTF-8. .* or 'utf-16'\).to_csv"),
    "csv with names in latin 1": case(csv("größe,b\n1,2\n".encode("latin-1")),
        r"bad.csv: found another encoding, expected UTF-8. .*encoding='latin-1'"),
    "csv with an empty field": case(lines("1,2", ",3", *(f"{k},{k % 3}.5" for k in range(8))),
        r"bad.csv, column 'a', row 1: found null, expected a finite number"),
    "csv with a short line": case(lines("1,2", "3"),
        r"bad.csv: corrupt, or no CSV file \(.*Expected 2 columns, got 1"),
    "csv with two columns of a name": case(csv("a,a\n1,2\n"),
        r"bad.csv, column 'a': found 2 of this name"),
    "csv with an index without a name": case(csv(",a,b\n0,1,2\n1,3,4\n"),
        r"bad.csv, column '': expected a name .* by columns, or .*df.to_csv\(path, index=Fa"),
    "csv with a word among numbers": case(lines(*(f"{k},{k}.5" for k in range(299)), "1,x"),
        r"bad.csv, column 'b', row 299: found 'x' among numbers, expected a number or"),
    "csv with a word among few numbers": case(
        lines(*(f"{k},{k % 5}" for k in range(99)), "1,unknown"),
        r"bad.csv, column 'b', row 99: found 'unknown' among numbers, expected a number or"),
    "csv with a word after many numbers": case(
        lines(*["1234567.5,1"] * 400_000, "x,1", "1,2"),
        r"bad.csv, column 'a', row 400000: found 'x' among numbers, expected a number or"),
    "csv with a sign of a missing number": case(lines(*(f"{k},{k % 7}" for k in range(9)), "1,?"),
        r"bad.csv, column 'b', row 9: found null, expected a finite number, or data.missing"),
    "csv with an empty category": case(lines(*(f"{k},{'xy'[k % 2]}" for k in range(9)), "1,"),
        r"bad.csv, column 'b', row 9: found null, expected a known level"),
    "csv with text in latin 1": case(csv("a,b\n1,Köln\n2,Ulm\n".encode("latin-1")),
        r"bad.csv: found another encoding, expected UTF-8. .*encoding='latin-1'"),
    "csv with text in latin 1 after many rows": case(
        csv(b"a,b\n" + b"1,Ulm\n" * 400_000 + "2,Köln\n".encode("latin-1")),
        r"bad.csv: found another encoding, expected UTF-8. .*encoding='latin-1'"),
    "empty csv": case(csv(""), r"bad.csv: corrupt, or no CSV file \(Empty CSV"),
    "csv of a header alone": case(csv("a,b\n"), r"bad.csv: found 0 rows, expected some"),
    "truncated npy": case(array(np.zeros((100, 3)), 500), r"bad.npy: corrupt, or no NumPy file"),
    "pickle called npy": case(array(np.array([{"a": 1}], dtype=object)),
        r"bad.npy: corrupt, or no NumPy file \(.*Python objects"),
    "complex npy": case(array(np.zeros((9, 2), complex)),
        r"bad.npy: found an array of shape \(9, 2\) and type complex128, expected rows"),
    "wide integers as images": case(array(np.zeros((9, 2, 2), int)),
        r"bad.npy: found examples of shape \(2, 2\) and type int64.*astype\('uint8'\)"),
    "nan in npy": case(array(ROWS),
        r"bad.npy, column 'x3', row 7: found nan, expected a finite number"),
}  # fmt: skip


def pictures(name="00.png", change=lambda file: None, **options):
    """Returns a maker of a folder of images, after a change of one file."""

    def make(path):
        folder(path / "raw", **options)
        change(path / "raw" / name)
        return path / "raw"

    return make


def picture(*values, **options):
    """Returns a maker of a folder of one image."""
    return lambda path: save(path / "raw" / "00.png", *values, **options).parent


def saved(mode=None, **options):
    """Returns a function that writes another image."""
    return lambda file: save(file, pixels(**options), mode=mode)


def empty(file):
    file.write_bytes(b"")


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_a_byte(file):
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 0xFF
    file.write_bytes(content)


def classes(*names):
    """Returns a maker of a folder of images for each class."""
    return lambda path: [folder(path / "raw" / name) for name in names][0].parent


def damaged_class(path):
    empty(classes("cat", "dog")(path) / "dog" / "03.png")
    return path / "raw"


NO_IMAGE = r"corrupt, or no PNG or JPEG file \("

IMAGES = {
    "empty image": case(pictures("03.png", empty), r"03.png: " + NO_IMAGE),
    "first image empty": case(pictures("00.png", empty), r"00.png: " + NO_IMAGE),
    "text called jpg": case(pictures("09.jpg", lambda file: file.write_text("no picture")),
        r"09.jpg: " + NO_IMAGE),
    "other format called png": case(
        pictures("05.png", lambda file: Image.fromarray(pixels()).save(file, format="BMP")),
        r"05.png: " + NO_IMAGE),
    "truncated png": case(pictures("04.png", halve, height=40, width=40), r"04.png: " + NO_IMAGE),
    "truncated jpeg": case(pictures("04.jpg", halve, suffix="jpg", height=40, width=40),
        rf"04.jpg: {NO_IMAGE}.*truncated"),
    "one byte of a png changed": case(pictures("02.png", change_a_byte), r"02.png: " + NO_IMAGE),
    "two sizes": case(pictures("06.png", saved(height=5)),
        r"06.png: found 4×5 pixels in RGB, expected 4×6 pixels in RGB as in .*00.png"),
    "two modes": case(pictures("06.png", saved(channels=1)),
        r"06.png: found 4×6 pixels in grey, expected 4×6 pixels in RGB as in .*00.png"),
    "palette": case(pictures("07.png", saved(mode="P")),
        r"07.png: found mode P, expected L \(grey of 8 bits\) or RGB"),
    "transparency": case(picture(pixels(channels=4)),
        r"00.png: found mode RGBA, expected L .* or RGB. Pillow"),
    "sixteen bits": case(picture(np.full((4, 4), 3000, dtype=np.uint16)),
        r"00.png: found mode I;16, expected L \(grey of 8 bits\) or RGB"),
    "damaged image of a class": case(damaged_class, r"dog/03.png: " + NO_IMAGE),
    "classes of a flat folder": case(pictures(),
        r"raw, column 'label': no such column, expected one with integer classes", label="label"),
    "one class": case(classes("cat"),
        r"raw, column 'label': found one class in all .* training rows, expected two",
        label="label"),
    "folder called png": case(pictures("20.png", lambda file: file.mkdir()),
        rf"20.png: {NO_IMAGE}.*Is a directory"),
    "one image": case(pictures(count=1), r"raw: found 1 row, expected at least 4"),
    "columns of images": case(pictures(),
        r"raw, column 'red': no such column, expected one of image", columns=["red"]),
}  # fmt: skip
