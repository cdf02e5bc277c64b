"""MLflow's tracking URI, of the embedded store or of a server; its errors; and its pages.

Without ``MLFLOW_TRACKING_URI`` it is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
    url = os.environ.get(VARIABLE) or store_uri()
    if url != "databricks" and not _is_valid(url):
        raise BadInput(
            option=VARIABLE,
            found=without_password(url),
            expected="the URL of an MLflow server, as http://HOST:5000, or none, for the runs to "
            "be kept in EBFLOW_HOME",
        )
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
    """Sets the tracking URI of MLflow's fluent functions for a block."""
    import mlflow

    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def serve(port: int, log_file: Path) -> None:
    """Serves the embedded MLflow on loopback until Ctrl-C; its output goes to the file.

    Raises:
        StageFailed: If the server ends by itself.
    """
    words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", store_uri()]
    words += ["--artifacts-destination", str(store.home() / "mlartifacts")]
    # MLflow starts uvicorn by its bare name, which lies beside this interpreter.
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command, environment = [sys.executable, "-m", "mlflow", *words], {**os.environ, "PATH": places}
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, env=environment
        )
    try:
        code = server.wait()
        raise StageFailed(f"MLflow's server ended with code {code}: see {log_file}")
    except KeyboardInterrupt:
        pass
    finally:  # its children would survive a signal to it alone
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def check_port(port: int) -> None:
    """Raises BadInput unless a server of this machine can have the port."""
    if not 1 <= port <= 65535:
        raise BadInput(option="--port", found=port, expected="1 … 65535")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        found = f"{port}, which is taken ({os.strerror(error.errno)})"
        raise BadInput(option="--port", found=found) from None
