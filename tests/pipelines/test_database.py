"""The database of a new store is what MLflow's own migrations make."""

import sqlite3
from contextlib import closing

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines.tracking import database


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "ebflow"


def content(path):
    """Returns the tables and indices of a database, and the rows that are there from the start."""
    MlflowClient(f"sqlite:///{path}").search_experiments()
    with closing(sqlite3.connect(path)) as opened:
        made = list(opened.execute("SELECT type, name, sql FROM sqlite_master"))
        names = [name for kind, name, _ in made if kind == "table"]
        rows = {name: opened.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    rows["experiments"] = [row[:4] for row in rows["experiments"]]
    return {(kind, name, "".join(sorted(sql or ""))) for kind, name, sql in made}, rows


def test_a_copy_is_what_mlflow_makes(cache, tmp_path):
    first, second, own = (tmp_path / name / "mlflow.db" for name in ("first", "second", "own"))
    own.parent.mkdir()
    for path in (first, second):
        database.make(path)
    assert content(first) == content(second) == content(own)
    assert [path.name for path in cache.iterdir()] == [f"mlflow-{mlflow.__version__}.db"]


def test_another_version_makes_its_own(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_migrate", lambda path: path.write_text(mlflow.__version__))
    for version in ("1", "2"):
        monkeypatch.setattr(mlflow, "__version__", version)
        database.make(tmp_path / version)
        assert (tmp_path / version).read_text() == version


def test_what_is_there_is_left_alone(cache, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("mine")
    database.make(path)
    assert path.read_text() == "mine" and not cache.exists()


def test_where_no_cache_can_be_mlflow_makes_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    database.make(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
