"""Where the runs are kept: MLflow's store, embedded or behind a server.

Without ``MLFLOW_TRACKING_URI`` it is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines import store
from pipelines.errors import StageFailed, root
from pipelines.store.urls import is_url, without_password

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

VARIABLE = "MLFLOW_TRACKING_URI"

EXISTS = "RESOURCE_ALREADY_EXISTS"
"""Error of what another has made meanwhile."""

LASTING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that no second try mends."""


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turns an error of MLflow, or of its database, into one line."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.", "sqlite3")):
            raise
        raise StageFailed(f"MLflow at {without_password(uri())}: {root(error)}") from error


def is_permanent(error: "MlflowException") -> bool:
    """Whether the store will refuse the same again."""
    return error.error_code in LASTING


def uri() -> str:
    """Returns the URI of the store that is in use.

    Raises:
        BadInput: If ``MLFLOW_TRACKING_URI`` is a path, or less.
    """
    found = os.environ.get(VARIABLE) or store_uri()
    if not is_url(found) and found != "databricks":
        raise BadInput(
            f"{VARIABLE}: found {without_password(found)}, expected the URL of an MLflow server, "
            "as http://HOST:5000, or none, for the runs to be kept in EBFLOW_HOME"
        )
    return found


def database() -> Path:
    """Returns the file of the embedded store."""
    return store.home() / "mlflow.db"


def store_uri() -> str:
    """Returns the URI of the embedded store."""
    return f"sqlite:///{database()}"


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Points MLflow's fluent functions at a store for a while."""
    import mlflow

    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
