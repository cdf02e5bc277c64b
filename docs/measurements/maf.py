"""Five tables on which papers compare normalizing flows, from their public archive.

::

    python docs/measurements/maf.py data.tar.gz tables
    python docs/measurements/maf.py data.tar.gz tables --fit 1800

``data.tar.gz`` is at https://zenodo.org/records/1161203. Each table is prepared as the papers do,
and becomes a Parquet file with a column ``split``. ``--fit`` then trains ebflow on each for some
seconds, and prints its test log-likelihood beside published ones. BSDS300 needs ``h5py``.

Source: Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou, Murray, 2017),
arXiv:1705.07057, and its repository.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.errors import BadInput

CHUNK = 100_000  # Rows of a piece of BSDS300
CORRELATED = 0.98  # A column of GAS that is more correlated with another one is removed
NO_SENSORS = ["Meth", "Eth", "Time"]  # Concentrations and the time of a row of GAS
REPEATS = 5  # A column of HEPMASS whose least value occurs more often is removed

PUBLISHED = {
    "MAF, 2017": (0.24, 10.08, -17.73, -12.24, 154.93),
    "FFJORD, 2019": (0.46, 8.59, -14.92, -10.43, 157.40),
    "MAF with LU layers, 2019": (0.45, 12.35, -17.03, -10.92, 156.95),
    "RQ-NSF (AR), 2019": (0.66, 13.09, -14.01, -9.22, 157.31),
}
"""Test log-likelihoods in nats, in the order of ``TABLES``."""

Splits = Iterator[tuple[str, np.ndarray]]
"""Names of splits, and rows of them with shape (N, D); a split may come in several pieces."""


def write(archive: Path, output: Path) -> Iterator[str]:
    """Writes the tables of the archive; yields a line about each.

    Raises:
        BadInput: if the archive is corrupt, lacks a file, or a table has another shape.
    """
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output) as folder:
        extract(archive, Path(folder))
        for name, (width, splits) in TABLES.items():
            part, path = Path(folder) / f"{name}.parquet", output / f"{name}.parquet"
            try:
                counts = _write(part, splits(Path(folder)), width)
            except ModuleNotFoundError as error:
                yield f"{name}: skipped, it needs the package {error.name}"
                continue
            part.rename(path)
            rows = " + ".join(f"{count:,} {split}" for split, count in counts.items())
            yield f"{path}: {width} columns, {rows} rows"


def extract(archive: Path, folder: Path) -> None:
    """Writes the archive's files into a folder, with ``-`` in place of ``/`` in their paths."""
    missing = {*FILES}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = "/".join(Path(member.name).parts[-2:])
                if name in missing and member.isfile():
                    missing.remove(name)
                    with (folder / name.replace("/", "-")).open("wb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)
    except FileNotFoundError:
        raise BadInput(file=archive, found="no file", expected="data.tar.gz") from None
    except (tarfile.TarError, EOFError) as error:
        found = f"a corrupt archive ({error})"
        raise BadInput(file=archive, found=found, expected="that of Zenodo") from error
    if missing:
        found = f"no {', no '.join(sorted(missing))}"
        raise BadInput(file=archive, found=found, expected="the archive of Zenodo, with all files")


def power(folder: Path) -> Splits:
    """Prepares POWER: two columns are removed, the others get noise of a unit of their meter."""
    rows = _load(folder / "power-data.npy", 8)
    random = np.random.RandomState(42)
    random.shuffle(rows)
    rows = np.delete(rows, [1, 3], axis=1)
    voltage, active = 0.01 * random.rand(len(rows), 1), 0.001 * random.rand(len(rows), 1)
    rooms, time = random.rand(len(rows), 3), np.zeros((len(rows), 1))
    return _standardized(rows + np.hstack([active, voltage, rooms, time]))


def gas(folder: Path) -> Splits:
    """Prepares GAS: sensors that are nearly a copy of another one are removed."""
    table = unpickled(folder / "gas-ethylene_CO.pickle")
    if not {*NO_SENSORS} <= {*table}:
        raise BadInput(file="gas", found=f"columns {[*table]}", expected=", ".join(NO_SENSORS))
    table = table.drop(columns=NO_SENSORS)
    while (correlated := (table.corr() > CORRELATED).sum() > 1).any():
        table = table.drop(columns=correlated.idxmax())
    return _tenths(((table - table.mean()) / table.std()).to_numpy())


def hepmass(folder: Path) -> Splits:
    """Prepares HEPMASS: only collisions of class 1, and no column with repeated values."""
    train, test = (
        pd.read_csv(folder / f"hepmass-1000_{split}.csv", index_col=False)
        for split in ("train", "test")
    )
    train, test = (table[table.iloc[:, 0] == 1].iloc[:, 1:] for table in (train, test))
    test = test.iloc[:, :-1]  # the training rows lack this column
    if [*train] != [*test]:
        found, expected = f"columns {[*train]} and {[*test]}", "one more in 1000_test.csv"
        raise BadInput(file="hepmass", found=found, expected=expected)
    train, test = (train - train.mean()) / train.std(), (test - train.mean()) / train.std()
    continuous = ((train == train.min()).sum() <= REPEATS).to_numpy()
    train, test = train.to_numpy()[:, continuous], test.to_numpy()[:, continuous]
    first, second = np.split(train, [len(train) - int(0.1 * len(train))])
    yield from zip(SPLITS, (first, second, test), strict=True)


def miniboone(folder: Path) -> Splits:
    """Prepares MINIBOONE."""
    return _standardized(_load(folder / "miniboone-data.npy", 43))


def bsds300(folder: Path) -> Splits:
    """Prepares BSDS300, whose splits are in its file."""
    import h5py

    with h5py.File(folder / "BSDS300-BSDS300.hdf5", "r") as file:
        for split in SPLITS:
            rows = file[split]
            for start in range(0, len(rows), CHUNK):
                yield split, rows[start : start + CHUNK]


def _standardized(rows: np.ndarray) -> Splits:
    """Yields splits with the mean 0 and the variance 1 of training and validation rows."""
    known = rows[: len(rows) - int(0.1 * len(rows))]
    return _tenths((rows - known.mean(0)) / known.std(0))


def _tenths(rows: np.ndarray) -> Splits:
    """Yields the splits: the last tenth are test rows, a tenth before them validation rows."""
    end = len(rows) - int(0.1 * len(rows))
    yield from zip(SPLITS, np.split(rows, [end - int(0.1 * end), end]), strict=True)


def _load(path: Path, width: int) -> np.ndarray:
    """Returns an array of rows of ``width`` numbers from an .npy file."""
    try:
        rows = np.load(path)
    except ValueError as error:
        raise BadInput(file=path.name, found=str(error), expected="an .npy file") from error
    if rows.ndim != 2 or rows.shape[1] != width:
        expected = f"rows of {width} numbers"
        raise BadInput(file=path.name, found=f"the shape {rows.shape}", expected=expected)
    return rows


class _Record:
    """An object of a pickle without its code: what it was created from, and its state."""

    def __new__(cls, *args: object) -> "_Record":
        record = super().__new__(cls)
        record.args = args
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads the arrays of a pickle. Other objects become records, so none of their code runs."""

    KNOWN = {
        **dict.fromkeys(["numpy", "numpy.core.multiarray", "numpy._core.multiarray"], {
            "_reconstruct": np.empty(0).__reduce__()[0],
            "ndarray": np.ndarray,
            "dtype": np.dtype,
        }),
        **dict.fromkeys(["builtins", "__builtin__"], {"slice": slice}),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        return self.KNOWN.get(module, {}).get(name) or type(name, (_Record,), {})


def unpickled(path: Path) -> pd.DataFrame:
    """Returns the table of numbers in a pickle of pandas 0.15 to 1.0; runs none of its code."""
    try:
        with path.open("rb") as file:
            state = _Unpickler(file, encoding="latin1").load().state
        manager = state["_data"] if isinstance(state, dict) else state
        layout = manager.state[3]["0.14.1"]
        names = layout["axes"][0].args[1]["data"]
        columns: dict[str, np.ndarray] = {}
        for block in layout["blocks"]:
            columns |= dict(zip(names[block["mgr_locs"]], block["values"], strict=True))
        return pd.DataFrame(columns)[[*names]]
    except (AttributeError, LookupError, TypeError, EOFError, pickle.UnpicklingError) as error:
        found = f"another pickle ({type(error).__name__}: {error})"
        expected = "a table that pandas 0.15 to 1.0 pickled"
        raise BadInput(file=path.name, found=found, expected=expected) from error


def _write(path: Path, splits: Iterable[tuple[str, np.ndarray]], width: int) -> Counter[str]:
    """Writes columns x1 … xD in float32, as in the papers, and split; returns numbers of rows."""
    names = [f"x{place + 1}" for place in range(width)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("split", pa.string())])
    counts: Counter[str] = Counter()
    with pq.ParquetWriter(path, schema) as writer:
        for split, rows in splits:
            if rows.shape[1] != width:
                found, expected = f"{rows.shape[1]} columns", f"the {width} of the papers"
                raise BadInput(file=path.stem, found=found, expected=expected)
            columns = [*rows.astype(np.float32).T, [split] * len(rows)]
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))
            counts[split] += len(rows)
    return counts


SPLITS = ("train", "validation", "test")
FILES = ("power/data.npy", "gas/ethylene_CO.pickle", "hepmass/1000_train.csv",
         "hepmass/1000_test.csv", "miniboone/data.npy", "BSDS300/BSDS300.hdf5")  # fmt: skip
TABLES: dict[str, tuple[int, Callable[[Path], Splits]]] = {
    "power": (6, power),
    "gas": (8, gas),
    "hepmass": (21, hepmass),
    "miniboone": (43, miniboone),
    "bsds300": (63, bsds300),
}
"""The number of columns, and the function that prepares the table, of each."""


def fit(table: Path, seconds: float) -> str:
    """Trains ebflow on a table; returns the mean test log-likelihood ± two standard errors.

    No column is taken for a grid, because published densities are those of the values as they are.
    """
    folder = table.with_suffix("")
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", "density", "--data.source", str(table),
         "--preprocess.no-grids", "--train.max-seconds", f"{seconds:g}", "--name", table.stem,
         "--output", str(folder)],
        check=True,
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    return f"{-summary['test/nll']:.2f} ± {2 * summary['test/nll_se']:.2f}"


def comparison(measured: Mapping[str, str], seconds: float) -> Iterator[str]:
    """Yields the lines of a table of test log-likelihoods; ``measured`` has ebflow's by table."""
    yield f"| test log-likelihood (nats) | {' | '.join(TABLES)} |"
    yield "|---" * (1 + len(TABLES)) + "|"
    ours = (measured.get(name, "") for name in TABLES)
    yield f"| ebflow, {seconds:g} s | {' | '.join(ours)} |"
    for method, values in PUBLISHED.items():
        yield f"| {method} | {' | '.join(f'{value:.2f}' for value in values)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="data.tar.gz")
    parser.add_argument("output", type=Path, help="the folder of the tables")
    parser.add_argument("--fit", type=float, metavar="SECONDS", help="train on each table")
    options = parser.parse_args()
    try:
        for line in write(options.archive, options.output):
            print(line, flush=True)
    except BadInput as error:
        sys.exit(f"maf.py: {error}")
    if options.fit:
        files = [options.output / f"{name}.parquet" for name in TABLES]
        scores = {file.stem: fit(file, options.fit) for file in files if file.exists()}
        print(*comparison(scores, options.fit), sep="\n")
