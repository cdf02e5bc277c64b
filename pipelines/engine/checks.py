"""What is checked of a run before anything is written: its folders, its storage, its data."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.pipeline import Run
from pipelines.store import storage
from pipelines.store.urls import is_url, without_password
from pipelines.tracking import backend

LEFT = ("checkpoint", "figures", "report.html", "config.yaml")


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks what can be checked before anything is written; returns the graph's inputs.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    _check_output(run.output)
    _check_folder("EBFLOW_HOME", store.home())
    backend.uri()
    if storage.used():
        storage.check(store.home(), run.output)
    _check_tracking()
    return run.pipeline.check(run.config)


def _check_output(output: Path) -> None:
    if is_url(str(output)):
        raise BadInput(f"--output: found {without_password(str(output))}, expected a folder")
    _check_folder("--output", output)
    left = [name for name in LEFT if (output / name).exists()]
    if (output / "summary.json").exists():
        reported(output / "summary.json")
    elif left:
        raise BadInput(f"--output: found {output / left[0]}, which no run left, expected none")


def reported(summary: Path) -> Any:  # noqa: ANN401
    """Returns the configuration that a summary tells; raises BadInput if it is no summary."""
    try:
        return json.loads(summary.read_text())["config"]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise BadInput(f"--output: found {summary}, which no run left, expected none") from None


def _check_tracking() -> None:
    """Raises BadInput if several nodes would write the embedded store's SQLite file."""
    if "RAY_ADDRESS" in os.environ and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput(
            "MLFLOW_TRACKING_URI: found none on a cluster (RAY_ADDRESS), expected an MLflow "
            "server that all nodes reach"
        )


def _check_folder(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder is there, or can be made, and can be written to."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise BadInput(f"{option}: found the file {near}, expected a folder")
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        line = f"{option}: found {near}, where one may not write ({error.strerror})"
        raise BadInput(f"{line}, expected a folder") from None
