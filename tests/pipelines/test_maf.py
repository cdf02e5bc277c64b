"""The papers' five tables, out of a small archive of the same layout."""

import pickle
import runpy
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from tests.prepared import prepare

maf = SimpleNamespace(**runpy.run_path(f"{Path(__file__).parents[2]}/docs/measurements/maf.py"))

RANDOM = np.random.default_rng(0)
SENSORS = [*"abcdefghijklmnop"]
POWER, MINIBOONE = RANDOM.normal(size=(500, 8)), RANDOM.normal(size=(300, 43))
GAS = pd.DataFrame(RANDOM.normal(size=(400, 19)), columns=["Time", "Meth", "Eth", *SENSORS])
GAS[SENSORS[8:]] = GAS[SENSORS[:8]] + 0.01 * GAS[SENSORS[8:]].to_numpy()  # eight are copies
HEPMASS = pd.DataFrame(RANDOM.normal(size=(600, 28)), columns=["# label", *map(str, range(27))])
HEPMASS["# label"] = RANDOM.integers(0, 2, 600)
HEPMASS.iloc[:, 3:9] = HEPMASS.iloc[:, 3:9].clip(lower=-1)
HEPMASS.iloc[:, 9] = HEPMASS.iloc[:, 9].clip(upper=1)  # stays: the papers look at the least value
BSDS300 = {split: RANDOM.normal(size=(250, 63)) for split in maf.SPLITS}


def not_called(*_):
    raise AssertionError("code of the pickle ran")


class Old(SimpleNamespace):
    """An object of pandas 0.19, which a pickle has as a call with arguments, and a state."""

    def __reduce__(self):
        return not_called, getattr(self, "args", ()), getattr(self, "state", None)


def gas_pickle():
    index = Old(args=(Old, {"data": np.array([*GAS], object)}))
    block = {"values": GAS.to_numpy().T, "mgr_locs": slice(0, 19, 1)}
    manager = Old(state=(0, 0, 0, {"0.14.1": {"axes": [index], "blocks": [block]}}))
    return pickle.dumps(Old(state={"_data": manager}))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The contents of the archive; h5py reads NumPy's archives."""
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda path, _: np.load(path)))
    for name in maf.FILES:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / "data/power/data.npy", POWER)
    (tmp_path / "data/gas/ethylene_CO.pickle").write_bytes(gas_pickle())
    HEPMASS.to_csv(tmp_path / "data/hepmass/1000_train.csv", index=False)
    HEPMASS[::-1].assign(mass=0).to_csv(tmp_path / "data/hepmass/1000_test.csv", index=False)
    np.save(tmp_path / "data/miniboone/data.npy", MINIBOONE)
    np.savez((tmp_path / "data/BSDS300/BSDS300.hdf5").open("wb"), **BSDS300)
    return tmp_path / "data"


def write(data):
    """Writes the tables out of an archive of the data; returns its lines."""
    archive = data.with_suffix(".tar.gz")
    if not archive.exists():
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(data, "data")
    return [*maf.write(archive, data.with_name("tables"))]


def in_tenths(rows, *, standardize=False):
    """Splits rows as the papers' programs do."""
    n_test = int(0.1 * len(rows))
    rest, test = rows[:-n_test], rows[-n_test:]
    n_validation = int(0.1 * len(rest))
    mean, std = (rest.mean(axis=0), rest.std(axis=0)) if standardize else (0, 1)
    return [(part - mean) / std for part in (rest[:-n_validation], rest[-n_validation:], test)]


def by_the_papers():
    """Prepares the tables step by step, as the papers' programs do."""
    random, rows = np.random.RandomState(42), POWER.copy()
    random.shuffle(rows)
    voltage, active = 0.01 * random.rand(500, 1), 0.001 * random.rand(500, 1)
    noise = np.hstack((active, voltage, random.rand(500, 3), np.zeros((500, 1))))
    yield "power", in_tenths(rows[:, [0, 2, 4, 5, 6, 7]] + noise, standardize=True)
    left = GAS[SENSORS]
    while any(copies := [sum(row > 0.98) > 1 for row in left.corr().to_numpy()]):
        left = left.drop(columns=left.columns[copies.index(True)])
    yield "gas", in_tenths(np.array((left - left.mean()) / left.std()))
    signal = HEPMASS[HEPMASS["# label"] == 1].drop(columns="# label")
    rows = np.array((signal - signal.mean()) / signal.std())
    chosen = [k for k, column in enumerate(rows.T) if [*column].count(min(column)) <= 5]
    end = len(rows) - int(0.1 * len(rows))
    yield "hepmass", (rows[:end, chosen], rows[end:, chosen], rows[::-1, chosen])
    yield "miniboone", in_tenths(MINIBOONE, standardize=True)
    yield "bsds300", [*BSDS300.values()]


def test_every_table_is_prepared_as_in_the_papers(data, tmp_path):
    assert len(write(data)) == 5
    for name, splits in by_the_papers():
        table = pq.read_table(tmp_path / "tables" / f"{name}.parquet")
        labels, rows = table["split"].to_numpy(), table.drop_columns("split").to_pandas()
        assert rows.shape[1] == maf.TABLES[name][0] and {*map(str, rows.dtypes)} == {"float32"}
        for split, expected in zip(maf.SPLITS, splits, strict=True):
            np.testing.assert_array_equal(rows[labels == split], expected.astype("f4"))
    counts = prepare(tmp_path / "tables" / "power.parquet", tmp_path / "prepared").counts
    assert counts == {"train": 405, "validation": 45, "test": 50}


@pytest.mark.parametrize(("name", "content", "message"), [
    ("data/power/data.npy", POWER.dumps(), "expected an .npy file"),
    ("data/gas/ethylene_CO.pickle", pickle.dumps(GAS), "found another pickle"),
    ("data/hepmass/1000_test.csv", b"a,b\n1,2\n", "expected one more in 1000_test.csv"),
    ("data/BSDS300/BSDS300.hdf5", None, "found no BSDS300/BSDS300.hdf5"),
    ("data.tar.gz", b"\x1f\x8b\x08\x00", "found a corrupt archive"),
])  # fmt: skip
def test_another_archive_is_an_error(data, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content) if content else (tmp_path / name).unlink()
    with pytest.raises(BadInput) as error:
        write(data)
    assert message in str(error.value)


def test_a_table_of_another_width_is_an_error_and_without_h5py_one_is_left_out(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert write(data)[4] == "bsds300: skipped, it needs the package h5py"
    with pytest.raises(BadInput, match=r"miniboone: found 2 columns, expected the 43"):
        maf._write(data / "miniboone.parquet", [("train", np.ones((3, 2)))], 43)
