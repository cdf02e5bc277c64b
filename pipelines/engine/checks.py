"""Checks of a run before anything is written: its folders, its bucket, its data."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.pipeline import Run
from pipelines.store import bucket
from pipelines.store.paths import is_url, without_password
from pipelines.tracking import backend

LEFT = ("checkpoint", "figures", "report.html", "config.yaml")


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks a run without writing anything; returns the inputs of its graph.

    Raises:
        BadInput: At the first option, variable or file that is wrong.
    """
    _check_output(run.output)
    _check_folder("EBFLOW_HOME", store.home())
    backend.uri()
    if bucket.used():
        bucket.check(store.home(), run.output)
    _check_tracking()
    return run.pipeline.check(run.config)


def _check_output(output: Path) -> None:
    if is_url(str(output)):
        raise _bad_folder("--output", without_password(str(output)))
    _check_folder("--output", output)
    left = [name for name in LEFT if (output / name).exists()]
    if (output / "summary.json").exists():
        reported(output / "summary.json")
    elif left:
        raise _not_of_a_run(output / left[0])


def reported(summary: Path) -> Any:  # noqa: ANN401
    """Returns the configuration in a summary; raises BadInput if the file is no summary."""
    try:
        return json.loads(summary.read_text())["config"]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise _not_of_a_run(summary) from None


def _not_of_a_run(path: Path) -> BadInput:
    return BadInput(option="--output", found=f"{path}, which no run left", expected="none")


def _bad_folder(option: str, found: str) -> BadInput:
    return BadInput(option=option, found=found, expected="a folder")


def _check_tracking() -> None:
    """Raises BadInput if several nodes would write the embedded store's SQLite file."""
    if "RAY_ADDRESS" in os.environ and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput(
            option="MLFLOW_TRACKING_URI",
            found="none on a cluster (RAY_ADDRESS)",
            expected="an MLflow server that all nodes reach",
        )


def _check_folder(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder, or the nearest that exists above it, is writable."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise _bad_folder(option, f"the file {near}")
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        found = f"{near}, where one may not write ({error.strerror})"
        raise _bad_folder(option, found) from None
