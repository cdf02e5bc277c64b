"""MLflow's tracking URI, of the embedded store or of a server; its errors; and its pages.

Without ``MLFLOW_TRACKING_URI`` it is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ebflow.errors import BadInput
from pipelines import store
from pipelines.errors import StageFailed, TransientFailure, root, without_login
from pipelines.store.files import is_url, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

SLOW_S = 5.0  # Seconds after which a user learns what a command waits for

VARIABLE = "MLFLOW_TRACKING_URI"

# The error code of something that another process has created first.
EXISTS = "RESOURCE_ALREADY_EXISTS"

# Error codes of requests that fail at every try.
PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turns an error of MLflow, or of its database, into one line.

    Raises:
        StageFailed: If MLflow will refuse the same request again.
        TransientFailure: After other errors.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.", "sqlite3")):
            raise
        reason = without_login(str(root(error)))
        kind = StageFailed if is_permanent(error) else TransientFailure
        raise kind(f"MLflow at {without_password(uri())}: {reason}") from error


@contextmanager
def announced(show: Callable[[str], object]) -> Iterator[None]:
    """Shows that MLflow is waited for, if a block takes more than some seconds."""
    timer = Timer(SLOW_S, show, [f"waiting for MLflow at {without_password(uri())}"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_permanent(error: Exception) -> bool:
    """True if MLflow will refuse the same request again."""
    return getattr(error, "error_code", None) in PERMANENT


def uri() -> str:
    """Returns the tracking URI in use.

    Raises:
        BadInput: If ``MLFLOW_TRACKING_URI`` is no URL.
    """
    url = os.environ.get(VARIABLE) or store_uri()
    if url != "databricks" and not _is_valid(url):
        raise BadInput(
            option=VARIABLE,
            found=without_password(url),
            expected="the URL of an MLflow server, as http://HOST:5000, or none, for the runs to "
            "be stored in EBFLOW_HOME",
        )
    return url


def shared_uri() -> str:
    """Returns the tracking URI of a run on a cluster.

    Raises:
        BadInput: If it is no URL, or a file of SQLite, which several nodes must not write.
    """
    if (url := uri()).startswith("sqlite"):
        found = without_password(url) if os.environ.get(VARIABLE) else "none"
        expected = "an MLflow server that all nodes reach, as http://HOST:5000"
        raise BadInput(option=VARIABLE, found=f"{found} on a cluster", expected=expected)
    return url


def _is_valid(url: str) -> bool:
    """True unless the scheme is missing, or the host or port malformed."""
    try:
        is_server = url.startswith(("http://", "https://"))
        return is_url(url) and not (is_server and urlsplit(url).port == 0)
    except ValueError:
        return False


def database() -> Path:
    """Returns the file of the embedded MLflow's database."""
    return store.home() / "mlflow.db"


def store_uri() -> str:
    """Returns the tracking URI of the embedded MLflow."""
    return f"sqlite:///{database()}"


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Sets the tracking URI of MLflow's fluent functions, and of the process, for a block."""
    import mlflow

    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def client() -> "MlflowClient":
    """Returns the client of the store in use; creates no store.

    Raises:
        BadInput: If there is none yet.
    """
    if uri() == store_uri() and not database().exists():
        raise BadInput(
            file=store.home(), found="no runs", expected="those of `ebflow run density`"
        )
    from mlflow import MlflowClient

    return MlflowClient(uri())


def pages() -> str:
    """Returns the address of MLflow's pages, or the command that serves them."""
    if uri() == store_uri():
        return f"mlflow ui --backend-store-uri {shlex.quote(store_uri())}"
    return without_password(uri())
