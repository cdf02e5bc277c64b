"""``ebflow ui``: MLflow on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cli.parsing import parse
from pipelines.errors import StageFailed
from pipelines.store.urls import without_password


@dataclass(frozen=True)
class Ui:
    """Serves MLflow on this machine (127.0.0.1) until Ctrl-C."""

    port: int = 5000
    """port, 1 … 65535"""


def run(words: Sequence[str]) -> int:
    """Serves MLflow until Ctrl-C."""
    port = parse(Ui, words, "ebflow ui").port
    check_port(port)
    from mlflow import MlflowClient

    from pipelines import tracking
    from pipelines.tracking import history
    from pipelines.tracking.views import links

    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        shown = without_password(uri)
        print(f"runs are tracked at MLFLOW_TRACKING_URI = {shown}: look there")
        return 0
    history.opened()
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow at {address} (Ctrl-C ends it)")
    for name, link in links(MlflowClient(tracking.uri()), address):
        print(f"runs of {name}: {link}")
    server = ["server", "--workers", "1", "--backend-store-uri", tracking.store_uri()]
    server += ["--artifacts-destination", str(store.home() / "mlartifacts")]
    return served(server, port, store.home() / "logs" / "ui.log")


def served(words: Sequence[str], port: int, log_file: Path) -> int:
    """Runs a server of MLflow on loopback until Ctrl-C, in a process group that is then ended.

    It tells the file all, and answers only requests whose ``Host`` is this machine's loopback, as
    MLflow does by default.

    Raises:
        StageFailed: If it ends by itself.
    """
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by its bare name, which lies beside this interpreter.
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    options = {"start_new_session": True, "env": {**os.environ, "PATH": places}}
    log_file.parent.mkdir(exist_ok=True)
    sys.stdout.flush()
    with log_file.open("ab") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, **options)
    try:
        code = server.wait()
        raise StageFailed(f"MLflow's server ended with code {code}: see {log_file}")
    except KeyboardInterrupt:
        return 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def check_port(port: int) -> None:
    """Raises BadInput unless a server of this machine can have the port."""
    if not 1 <= port <= 65535:
        raise BadInput(f"--port: found {port}, expected 1 … 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BadInput(f"--port: found {port}, which is taken ({error.strerror})") from None
