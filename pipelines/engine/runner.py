"""One run of a pipeline: checked, planned, or executed and left in one folder."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.engine.pipeline import Run
from pipelines.errors import StageFailed, in_one_line
from pipelines.reporting.terminal import Progress
from pipelines.store import bucket
from pipelines.store.files import is_url, without_password
from pipelines.tracking import backend

OURS = ("checkpoint", "figures", "report.html", "config.yaml")
"""Names that results have; a folder with one of them but without a summary is not of a run."""


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks a run without writing anything; returns the inputs of its graph.

    Raises:
        BadInput: At the first option, variable or file that is wrong.
    """
    if is_url(str(run.output)):
        raise _no_folder("--output", without_password(str(run.output)))
    for option, folder in (("--output", run.output), ("EBFLOW_HOME", store.home())):
        _check_writable(option, folder)
    _earlier_config(run.output)
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


def _no_folder(option: str, found: str) -> BadInput:
    return BadInput(option=option, found=found, expected="a folder")


def _check_writable(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder, or the nearest that exists above it, is writable."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise _no_folder(option, f"the file {near}")
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        found = f"{near}, where one may not write ({error.strerror})"
        raise _no_folder(option, found) from None


def _earlier_config(output: Path) -> Any:  # noqa: ANN401
    """Returns the configuration of the results that a folder has; None if it has none.

    Raises:
        BadInput: If it has files of such names that are no results.
    """
    summary = output / "summary.json"
    wrong = next((output / name for name in OURS if (output / name).exists()), None)
    if summary.exists():
        try:
            return json.loads(summary.read_text())["config"]
        except (KeyError, RecursionError, TypeError, ValueError):
            wrong = summary
    if wrong is not None:
        found = f"{wrong}, which no run left"
        raise BadInput(option="--output", found=found, expected="none")
    return None


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
    from pipelines.engine.attempts import Attempts
    from pipelines.engine.graphs import evaluate
    from pipelines.engine.publishing import Tracked, publish

    key = run.key(inputs)
    with _without_empty_store(), writing(log_file(run)), _locked(run, key, console):
        with backend.mlflow_errors(), ExitStack() as stack:
            tracked = Tracked(run, key, stack, console)
            progress = stack.enter_context(Progress(console))
            graph = run.pipeline.graph(run.config, inputs)
            with Attempts(
                tracked.context, progress, retries=run.retries, force=run.force
            ) as attempts:
                outcome = evaluate(graph, attempts, force=run.force, output=run.output)
            progress.started("track", "")
            summary = publish(run, outcome, tracked)
            progress.finished("track", "")
            if bucket.used():
                console.print(f"results also at {_upload(run)}", soft_wrap=True)
            return summary


def _upload(run: Run) -> str:
    """Copies the results to the bucket; returns their place there."""
    name = f"runs/{run.pipeline.name}/{run.name}"
    try:
        with store.lock(f"results-{run.pipeline.name}-{run.name}"):
            bucket.remove(name)
            bucket.put(run.output, name)
    except OSError as error:
        raise StageFailed(f"{bucket.place(name)}: {in_one_line(error)}") from error
    return bucket.place(name)


def log_file(run: Run) -> Path:
    """Returns the file that what happens is written to."""
    return store.home() / "logs" / f"{run.name}.log"


@contextmanager
def _locked(run: Run, key: str, console: Console) -> Iterator[None]:
    """Lets one process at a time run a pipeline, and write to a folder of results."""
    place = hashlib.sha256(str(run.output.resolve()).encode()).hexdigest()

    def wait(what: str) -> Callable[[], None]:
        line = f"another process {what}: waiting for it"
        return lambda: console.print(line)

    with (
        store.lock(f"run-{key}", waiting=wait("runs the same pipeline")),
        store.lock(f"output-{place[:20]}", waiting=wait(f"writes to {run.output}")),
    ):
        if _earlier_config(run.output) not in (None, run.config.model_dump(mode="json")):
            console.print(
                f"{run.output}: will be replaced; it has the results of another configuration, "
                "which the store and MLflow keep (choose another place by --name or --output)"
            )
        yield


@contextmanager
def _without_empty_store() -> Iterator[None]:
    """Removes a new store again if the input is bad and no more than data was prepared in it."""
    home, parent = store.home(), store.home().parent
    fresh, parent_is_new = not home.exists(), not parent.exists()
    try:
        yield
    except BadInput:
        if fresh and {path.name for path in (home / "artefacts").glob("*")} <= {"prepare"}:
            shutil.rmtree(home, ignore_errors=True)
            if parent_is_new:
                with suppress(OSError):  # another process may have written there
                    parent.rmdir()
        raise
