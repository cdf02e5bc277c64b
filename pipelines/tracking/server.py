"""MLflow's servers, on this machine alone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ebflow.errors import BadInput
from pipelines.errors import StageFailed


def served(words: Sequence[str], port: int, log_file: Path) -> int:
    """Runs a server of MLflow on loopback until Ctrl-C, in a process group that is then ended.

    Its output goes to the file. It answers only requests whose ``Host`` is this machine's
    loopback, as MLflow does by default.

    Raises:
        StageFailed: If it ends by itself.
    """
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by its bare name, which lies beside this interpreter.
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    options = {"start_new_session": True, "env": {**os.environ, "PATH": places}}
    log_file.parent.mkdir(parents=True, exist_ok=True)
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
        raise BadInput(option="--port", found=port, expected="1 … 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            found = f"{port}, which is taken ({error.strerror})"
            raise BadInput(option="--port", found=found) from None
