"""The database of a new store: a copy of the first that this MLflow's migrations made here."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from pipelines.store.files import drafted
from pipelines.store.paths import user_cache


def make(path: Path) -> None:
    """Makes the database, unless it is there.

    Migrations take seconds for each new store, and come to the same for one version of MLflow.
    Where the user's cache cannot be written, nothing is made: MLflow does it when it opens it.
    """
    if path.exists():
        return
    try:
        template = _template()
    except OSError:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with drafted(path) as draft:
        shutil.copyfile(template, draft)


def _template() -> Path:
    template = user_cache() / f"mlflow-{mlflow.__version__}.db"
    if not template.exists():
        template.parent.mkdir(parents=True, exist_ok=True)
        with drafted(template) as draft:
            _migrate(draft)
    return template


def _migrate(path: Path) -> None:
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    with closing(sqlite3.connect(path)) as database, database:
        # The default one has its place in this process's folder; MLflow makes it anew.
        database.execute("DELETE FROM experiments")
