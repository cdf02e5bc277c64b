"""Small real data in files, a store of one's own, the command line in this process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from pipelines.cli import main
from pipelines.engine import runner
from pipelines.engine.stages import call
from pipelines.tracking import tracker

from .buckets import Buckets
from .nodes import ROOT
from .processes import Server


@cache
def empty_database():
    """Returns a new database of MLflow: its migrations take seconds."""
    path = Path(tempfile.mkdtemp(prefix="ebflow-tests-")) / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def client(uri):
    """Returns a client of MLflow; a new embedded store is a copy of another."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_database(), path)
    return MlflowClient(uri)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A store of the test's own; the test runs in an empty folder."""
    monkeypatch.setattr(tracker, "MlflowClient", client)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "store"


@pytest.fixture
def tracking_home(home):
    """A store of the test's own, with an MLflow database that has no runs."""
    client(f"sqlite:///{home / 'mlflow.db'}")
    return home


@pytest.fixture(scope="session")
def tabular_file(tmp_path_factory):
    """Breast cancer measurements, bundled with scikit-learn, as Parquet."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    names = [name.replace(" ", "_") for name in found.feature_names[:10]]
    path = tmp_path_factory.mktemp("tabular") / "breast-cancer.parquet"
    pq.write_table(pa.table(dict(zip(names, found.data[:, :10].T, strict=True))), path)
    return path


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    """Digits as a file of the user's: one fixed-size list of uint8, the shape in the metadata."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64)
    metadata = {"shape": json.dumps([8, 8]), "levels": json.dumps(17)}
    path = tmp_path_factory.mktemp("images") / "my-digits.parquet"
    pq.write_table(pa.table({"image": column}).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(scope="session")
def buckets():
    """A server of S3's protocol."""
    with Buckets() as made:
        yield made


@pytest.fixture
def bucket(buckets):
    """Returns the server, with an empty bucket."""
    buckets.clear()
    return buckets


class Result(NamedTuple):
    """The outcome of a command: its code, the lines of stdout and of stderr, all of stdout."""

    code: int
    out: list[str]
    err: list[str]
    text: str

    def quiet(self):
        """Returns the result of a command that ended well, without a line on stderr."""
        assert (self.code, self.err) == (0, []), self
        return self

    @property
    def refusal(self):
        """The line about a command that was refused."""
        assert self.code == 2 and len(self.err) == 1, self.err
        return self.err[0]


@pytest.fixture
def ebflow(capsys):
    """Runs a command in this process, and returns its ``Result``."""

    def run(*words):
        code = main.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Result(code, out.splitlines(), err.splitlines(), out)

    return run


@pytest.fixture
def without_ray(monkeypatch):
    """Stages run in this process, those of Ray in a thread, one at a time."""
    threads = ThreadPoolExecutor(1)

    class Remote:
        def options(self, **_):
            return self

        def remote(self, work, context):
            done = threads.submit(call, work, context)
            return SimpleNamespace(future=lambda: done)

    monkeypatch.setattr(runner, "start", lambda show: SimpleNamespace(send=show))
    monkeypatch.setattr(runner, "cancel", lambda _: threads.shutdown())
    monkeypatch.setattr(runner, "leave", lambda _: None)
    monkeypatch.setattr(runner, "largest_node", lambda: 2.0)
    monkeypatch.setattr(runner, "_remote_call", Remote)


class Store:
    """A store on disk, and the command line on it in processes of their own.

    Arguments:
        root: Folder for the store and the results.
        patience: Seconds until a command is ended that has not ended.
    """

    def __init__(self, root, patience=240):
        self.root, self.home, self.patience = root, root / "store", patience
        self.named = f"EBFLOW_HOME={self.home} ebflow"  # as printed commands start

    def environment(self, **more):
        kept = {name: v for name, v in os.environ.items() if not name.startswith("MLFLOW_")}
        return {**kept, "EBFLOW_HOME": str(self.home), "OMP_NUM_THREADS": "1", **more}

    def start(self, *words, **more):
        """Starts ``ebflow`` in a process group of its own."""
        command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(**more), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words, **more):
        """Runs ``ebflow`` to its end; fails the test unless it ends well and is quiet."""
        process = self.start(*words, **more)
        try:
            out, err = process.communicate(timeout=self.patience)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate(timeout=self.patience)
            raise
        assert (process.returncode, err) == (0, ""), err + out
        return out

    def summary(self, name="digits"):
        return json.loads((self.root / "runs" / "density" / name / "summary.json").read_text())

    def copy(self, root):
        """Returns a copy with its own store; MLflow's artefacts are left out."""
        ignore = shutil.ignore_patterns("mlartifacts")
        shutil.copytree(self.root, root, dirs_exist_ok=True, ignore=ignore)
        return Store(root)


class OnCluster(Store):
    """A store whose stages run on a cluster."""

    def __init__(self, root, cluster):
        super().__init__(root, patience=1800)
        self.cluster = cluster

    def environment(self, **more):
        place = {"EBFLOW_HOME": str(self.home), "RAY_ADDRESS": f"127.0.0.1:{self.cluster.port}"}
        place |= tracking_files(self.home)
        return {**self.cluster.environment(**place), "PYTHONPATH": str(ROOT), **more}


# Options of a training of about a second
QUICK = ("--train.steps", "300", "--train.validate-every", "100", "--train.log-every", "20")

# With this, importing Ray fails
NO_RAY = {"PYTHONPATH": f"{Path(__file__).with_name('without_ray')}:{Path(__file__).parents[2]}"}


def tracking_files(home):
    """Returns variables of nodes on this machine: MLflow without SQLite and without a server."""
    return {"MLFLOW_TRACKING_URI": f"file://{home}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A finished run on digits, and what it printed; do not change it."""
    store = Store(tmp_path_factory.mktemp("digits"))
    store.printed = store.run("run", "density", *QUICK)
    return store


class TrackingServer(Server):
    """A real MLflow server; its store is in a folder."""

    def __init__(self, root):
        places = (f"--backend-store-uri=sqlite:///{root}/server.db",
                  f"--artifacts-destination={root}/artifacts")  # fmt: skip
        super().__init__("-m", "mlflow", "server", "--workers=1", *places, ready="/health",
                         MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")  # fmt: skip
        self.uri = f"http://{self.address}"


@pytest.fixture
def server(tmp_path):
    with TrackingServer(tmp_path) as made:
        yield made
