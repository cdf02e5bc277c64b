"""One run of a pipeline: planned, or executed and left in one folder."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.engine.pipeline import Run
from pipelines.engine.publishing import Tracked, announce, publish, upload
from pipelines.reporting.terminal import Progress
from pipelines.store import bucket
from pipelines.tracking.backend import mlflow_errors

if TYPE_CHECKING:
    from pipelines.engine.evaluation import Status


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage whether it would run or is cached; writes nothing."""
    from pipelines.engine import evaluation

    with bucket.bucket_errors():
        found = evaluation.plan(run.pipeline.graph(run.config, inputs), force=run.force)
    others = {} if found.value is not None else {"others": "depend on the results of these"}
    return {stage: _planned(status) for stage, status in found.statuses.items()} | others


def _planned(status: "Status") -> str:
    if status.ran and status.cached:
        return f"{status.ran} run, others cached"
    return "run" if status.ran else "cached"


def execute(run: Run, inputs: object, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    from pipelines.engine.evaluation import Engine

    key = run.key(inputs)
    with _without_empty_store(), writing(log_file(run)), _locked(run, key, console):
        with mlflow_errors(), ExitStack() as stack:
            tracked = Tracked(run, key, stack, console)
            progress = stack.enter_context(Progress(console))
            engine = Engine(
                open_context=tracked.context,
                progress=progress,
                force=run.force,
                retries=run.retries,
            )
            outcome = engine.run(run.pipeline.graph(run.config, inputs), run.output)
            progress.started("track", "")
            summary = publish(run, outcome, tracked)
            progress.finished("track", "")
            if bucket.used():
                console.print(f"results also at {upload(run)}", soft_wrap=True)
            return summary


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
        announce(run, console)
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
