"""One run of a pipeline: planned, or executed and left in one folder."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.engine import Outcome, Status, finished
from pipelines.engine.pipeline import Run
from pipelines.engine.publishing import announce, publish, upload
from pipelines.engine.tracked import Tracked
from pipelines.reporting.progress import Progress
from pipelines.store import storage
from pipelines.tracking.backend import mlflow_errors


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage whether it would run or is cached; writes nothing."""
    with storage.reaching():
        found = {} if run.force else _found(run, inputs)
    missing = Status(ran=1)
    return {
        stage: _planned(found.get(stage, missing)) for stage in run.pipeline.stages(run.config)
    }


def _found(run: Run, inputs: object) -> Mapping[str, Status]:
    """Returns what a run would find of its stages, and what it would run."""
    if whole := finished.found(run.pipeline.key(run.name, run.config, inputs)):
        return whole.statuses
    from pipelines.engine.planning import plan

    return plan(run.pipeline.graph(run.config, inputs))


def _planned(status: Status) -> str:
    if status.ran and status.cached:
        return f"{status.ran} run, others cached"
    return "run" if status.ran else "cached"


def execute(run: Run, inputs: object, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    key = run.pipeline.key(run.name, run.config, inputs)
    with _clean_home(), writing(log_file(run)), _locked(run, key, console):
        with mlflow_errors(), ExitStack() as stack:
            tracked = Tracked(run, key, stack, console)
            progress = stack.enter_context(Progress(console))
            whole = None if run.force else finished.found(key)
            outcome = whole or _evaluated(run, inputs, tracked, progress)
            progress.started("track", "")
            summary = publish(run, outcome, tracked)
            progress.finished("track", "")
            if storage.used():
                console.print(f"results also at {upload(run)}", soft_wrap=True)
            return summary


def _evaluated(run: Run, inputs: object, tracked: Tracked, progress: Progress) -> Outcome:
    from pipelines.engine.evaluation import Engine

    stages = Engine(
        open_context=tracked.context,
        progress=progress,
        force=run.force,
        retries=run.retries,
        launches=run.pipeline.launches(run.config),
        meanwhile=run.pipeline.meanwhile,
    )
    outcome = stages.run(run.pipeline.graph(run.config, inputs))
    finished.remember(tracked.key, outcome, run.pipeline.stages(run.config))
    return outcome


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
        store.lock(f"run-{key[:20]}", waiting=wait("runs the same pipeline")),
        store.lock(f"output-{place[:20]}", waiting=wait(f"writes to {run.output}")),
    ):
        announce(run, console)
        yield


def _finished() -> bool:
    """Whether the store has an artefact of a stage that took long."""
    return any(path.name != "prepare" for path in (store.home() / "artefacts").glob("*"))


@contextmanager
def _clean_home() -> Iterator[None]:
    """Takes back a store that bad input made, if nothing is finished and nobody else uses it."""
    fresh, parent = not store.home().exists(), store.home().parent
    made = not parent.exists()
    with store.alone() as alone:
        try:
            yield
        except BadInput:
            if fresh and not _finished() and alone():
                shutil.rmtree(store.home(), ignore_errors=True)
                if made:
                    with suppress(OSError):
                        parent.rmdir()
            raise
