"""Calls of stages, in the process that runs them: under a lock, in new folders, tracked."""

import math
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import metrics_log, store
from pipelines.engine.keys import code_digest
from pipelines.engine.stages import Artefact, Stage, Work
from pipelines.errors import StageFailed

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker


@dataclass(frozen=True)
class Context:
    """Settings of a run that reach its stages and change no result.

    Arguments:
        tracker: The experiment in MLflow.
        parent: The MLflow run of the pipeline.
        command: The command that reproduces it.
        force: True if stages run again that are finished.
        show: Shows how far a job is: its stage and key, the share that is done, text and note.
    """

    tracker: "Tracker"
    parent: str
    command: str
    force: bool
    show: Callable[[str, str, float, str, str], None] = lambda *message: None


def call(work: Work, context: Context) -> Artefact:
    """Runs a stage under its lock, and commits its output, unless the store has it.

    Raises:
        BadInput: If this process does not see the store.
        StageFailed: If the code is another than in the driver: it was edited during the run.
    """
    import torch  # a dry run needs none of it

    stage, key = work.stage, work.key
    store.require_same_store(context.tracker.home)
    with store.lock(f"{stage.name}-{key}"):
        if not context.force and (found := store.find(stage.name, key)):
            return found
        _check_code(stage)
        cpus = work.needs["CPU"]  # a process that Ray reuses has the threads of its last stage
        torch.set_num_threads(1 if math.isinf(cpus) else max(1, int(cpus)))
        body = import_module(stage.module)
        with _new_output(work) as output, _tracked(work, context, body.__doc__) as run:
            run.output = output
            getattr(body, stage.name)(work.config, *_folders(work.inputs), run=run)
            _check_code(stage)
            artefact = store.commit(stage.name, key, output, run_id=run.id)
        store.forget(work.folder)
        return artefact


def _check_code(stage: Stage) -> None:
    """Raises StageFailed if the code is another than that in the key."""
    if code_digest(stage.module) != stage.version:
        raise StageFailed(
            f"stage {stage.name}: found other code than when the run started, expected the same "
            "until the run is over: repeat the command"
        )


@contextmanager
def _new_output(work: Work) -> Iterator[Path]:
    """Yields a new folder for the output of a stage, in its folder of work."""
    output = work.folder / f"output-{uuid.uuid4().hex}"
    output.mkdir(parents=True)
    try:
        yield output
    finally:
        shutil.rmtree(output, ignore_errors=True)
        with suppress(OSError):  # the stage's own error is the one to report
            if not work.stage.on_driver_node:  # its next attempt, perhaps elsewhere, copies it
                store.evict(work.folder)
            work.folder.rmdir()  # unless there is work to resume


@contextmanager
def _tracked(work: Work, context: Context, about: str | None) -> Iterator["StageRun"]:
    """Yields the MLflow run of a stage, with its reporter."""
    from pipelines.tracking.reporter import Reporter

    name, key = work.stage.name, work.key
    about_run = {"parent": context.parent, "title": work.title, "command": context.command}
    with context.tracker.stage(name, key, **about_run) as run:
        run.work, show = work.folder, partial(context.show, name, key)
        run.reporter = Reporter(work.folder / metrics_log.FILE, run, show)
        run.reporter.progress(0.0, "")
        run.describe(f"Stage `{name}`. {about}")
        yield run
        run.set_tags({"ebflow.artefact": store.location(store.artefact(name, key))})


def _folders(inputs: Any) -> Any:  # noqa: ANN401
    """Returns what a stage reads, with folders instead of artefacts."""
    if isinstance(inputs, Artefact):
        return inputs.path
    if isinstance(inputs, list | tuple):
        return type(inputs)(_folders(one) for one in inputs)
    return inputs
