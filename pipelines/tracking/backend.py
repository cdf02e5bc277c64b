"""MLflow's tracking URI: of the embedded store, or of a server.

Without ``MLFLOW_TRACKING_URI`` it is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines import store
from pipelines.errors import StageFailed, root, without_login
from pipelines.store.files import is_url, without_password

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

VARIABLE = "MLFLOW_TRACKING_URI"

EXISTS = "RESOURCE_ALREADY_EXISTS"
"""The error code of something that another process has created first."""

PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Error codes of requests that fail at every try."""


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turns an error of MLflow, or of its database, into one line."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.", "sqlite3")):
            raise
        reason = without_login(str(root(error)))
        raise StageFailed(f"MLflow at {without_password(uri())}: {reason}") from error


def is_permanent(error: "MlflowException") -> bool:
    """True if MLflow will refuse the same request again."""
    return error.error_code in PERMANENT


def uri() -> str:
    """Returns the tracking URI in use.

    Raises:
        BadInput: If ``MLFLOW_TRACKING_URI`` is no URL.
    """
    found = os.environ.get(VARIABLE) or store_uri()
    if not is_url(found) and found != "databricks":
        raise BadInput(
            option=VARIABLE,
            found=without_password(found),
            expected="the URL of an MLflow server, as http://HOST:5000, or none, for the runs to "
            "be kept in EBFLOW_HOME",
        )
    return found


def database() -> Path:
    """Returns the file of the embedded MLflow's database."""
    return store.home() / "mlflow.db"


def store_uri() -> str:
    """Returns the tracking URI of the embedded MLflow."""
    return f"sqlite:///{database()}"


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Sets the tracking URI of MLflow's fluent functions for a block."""
    import mlflow

    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
