"""Where the runs are kept: MLflow's store, embedded or behind a server.

Without ``MLFLOW_TRACKING_URI`` it is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.
"""

__all__ = ["default_store", "lasting", "reaching", "serve", "store_uri", "uri"]

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from pipelines import store
from pipelines.faults import StageFailed
from pipelines.urls import without_password

LASTING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that no second try mends."""


@contextmanager
def reaching() -> Iterator[None]:
    """Turns a store that cannot be reached into one line."""
    try:
        yield
    except MlflowException as error:
        line = " ".join(str(error).split())[:300]
        raise StageFailed(f"MLflow at {without_password(uri())}: {line}") from error


def lasting(error: MlflowException) -> bool:
    """Whether the store will refuse the same again."""
    return error.error_code in LASTING


def uri() -> str:
    """Returns the URI of the store that is in use."""
    return os.environ.get("MLFLOW_TRACKING_URI") or store_uri()


def store_uri() -> str:
    """Returns the URI of the embedded store."""
    return f"sqlite:///{store.home() / 'mlflow.db'}"


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Points MLflow's fluent functions at a store for a while."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def serve(port: int, log_file: Path) -> subprocess.Popen:
    """Starts MLflow's server on loopback, in a process group of its own; it tells a file all.

    It answers only requests whose ``Host`` is this machine's loopback, as MLflow does by default.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", store_uri()]
    command += ["--artifacts-destination", str(store.home() / "mlartifacts")]
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("ab") as told:
        return subprocess.Popen(command, start_new_session=True, stdout=told, stderr=told)
