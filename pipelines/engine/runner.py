"""One run of a pipeline: checked, planned, or executed and left in one folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster.environment import log_to
from pipelines.engine.pipeline import Run
from pipelines.errors import StageFailed, in_one_line
from pipelines.reporting.terminal import Progress
from pipelines.store import bucket
from pipelines.store.files import check_writable
from pipelines.tracking import backend

RESULTS = ("summary.json", "checkpoint", "figures", "report.html", "config.yaml")
"""Names that results have."""


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks a run without writing anything; returns the inputs of its graph.

    Raises:
        BadInput: At the first option, variable or file that is wrong.
    """
    for option, folder in (("--output", run.output), ("EBFLOW_HOME", store.home())):
        check_writable(option, folder)
    _check_replaceable(run.output)
    backend.uri()
    if bucket.used():
        bucket.check(store.home(), run.output)
    if "RAY_ADDRESS" in os.environ and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput(
            option="MLFLOW_TRACKING_URI",
            found="none on a cluster (RAY_ADDRESS)",
            expected="an MLflow server that all nodes reach",
        )
    return run.pipeline.check(run.config)


def _check_replaceable(output: Path) -> None:
    """Raises BadInput if a folder has files with the names of results that no run left."""
    wrong = next((output / name for name in RESULTS if (output / name).exists()), None)
    with suppress(OSError, RecursionError, TypeError, ValueError):
        if "mlflow_run_id" in json.loads((output / "summary.json").read_text()):
            return
    if wrong is not None:
        found = f"{wrong}, which no run left"
        raise BadInput(option="--output", found=found, expected="none")


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage if it would run or is cached; writes nothing."""
    from pipelines.engine import graphs

    found = graphs.plan(run.pipeline.graph(run.config, inputs), force=run.force)
    others = {} if found.value is not None else {"others": "depend on the results of these"}
    return {stage: status.text("run") for stage, status in found.statuses.items()} | others


def execute(run: Run, inputs: object, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    from pipelines.engine.graphs import evaluate
    from pipelines.engine.publishing import publish
    from pipelines.engine.session import Session

    key, line = run.key(inputs), "another process runs the same pipeline: waiting for it"
    place = hashlib.sha256(str(run.output.resolve()).encode()).hexdigest()
    with (
        _without_empty_store(),
        store.lock(f"run-{key}", waiting=lambda: console.print(line)),
        backend.mlflow_errors(),
        Progress(console) as progress,
        Session(run, key, progress) as session,
    ):
        log_to(log_file(run))
        graph = run.pipeline.graph(run.config, inputs)
        outcome = evaluate(graph, session.start, force=run.force, output=run.output)
        session.leave()
        progress.started("track", "")
        with store.lock(f"output-{place}"):  # other runs may leave their results there, too
            summary = publish(session, outcome)
            progress.finished("track", "")
            if bucket.used():
                console.print(f"results also at {_upload(run)}", soft_wrap=True)
        return summary


def _upload(run: Run) -> str:
    """Copies the results to the bucket; returns their place there."""
    place = store.home() / "runs" / run.pipeline.name / run.name
    try:
        bucket.remove(place)
        bucket.upload(run.output, place)
    except OSError as error:
        raise StageFailed(f"{store.location(place)}: {in_one_line(error)}") from error
    return store.location(place)


def log_file(run: Run) -> Path:
    """Returns the file that what happens is written to."""
    return store.home() / "logs" / f"{run.name}.log"


@contextmanager
def _without_empty_store() -> Iterator[None]:
    """Removes a new store again if the input is bad and no more than data was prepared in it."""
    home = store.home()
    created = [folder for folder in (home, home.parent) if not folder.exists()]
    try:
        yield
    except BadInput:
        if home in created and {p.name for p in (home / "artefacts").glob("*")} <= {"prepare"}:
            shutil.rmtree(home, ignore_errors=True)
            with suppress(OSError):  # another process may have written there
                created[-1].rmdir()
        raise
