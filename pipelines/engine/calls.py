"""Calls of stages, in the process that runs them: under a lock, in new folders, tracked."""

import math
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ebflow.errors import BadInput
from pipelines import metrics_log, store
from pipelines.engine.keys import code_digest
from pipelines.engine.stages import Artefact, Stage, Work
from pipelines.errors import StageFailed

if TYPE_CHECKING:
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


def call(work: Work, *, context: Context, again: bool = False) -> Artefact:
    """Runs a stage, unless another process has just finished it.

    Arguments:
        work: The stage and its arguments, with the version of its code in the driver.
        context: Settings of the run.
        again: True if an attempt of the same run has failed, whose work is resumed.

    Raises:
        BadInput: If this process does not see the store.
        StageFailed: If the code is another than in the driver: it was edited during the run.
    """
    store.require_same_store(context.tracker.home)
    name, key = work.stage.name, work.key
    with store.lock(f"{name}-{key}"):
        record = None if context.force else store.find(name, key)
        if record is None:
            if context.force and not again:
                store.forget(work.folder)
            import torch  # a dry run needs none of it

            # A process that Ray reuses has the threads of its last stage.
            torch.set_num_threads(_threads(work.needs["CPU"]))
            record = _make(work, context)
        return Artefact(name, key, record)


def _threads(cpus: float) -> int:
    """Returns the threads of torch; a stage that takes a whole node sets its own."""
    return 1 if math.isinf(cpus) else max(1, int(cpus))


def _make(work: Work, context: Context) -> store.Record:
    """Runs a stage in new folders and commits its output."""
    stage, key, folder = work.stage, work.key, work.folder
    from pipelines.tracking.reporter import Reporter

    _check_code(stage)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"output-{uuid.uuid4().hex}"
    output.mkdir()
    body = import_module(stage.module)
    about = f"Stage `{stage.name}`. {body.__doc__}"
    try:
        with context.tracker.stage(
            stage.name, key, parent=context.parent, title=work.title, command=context.command
        ) as run:
            run.output, run.work = output, folder
            show = partial(context.show, stage.name, key)
            run.reporter = Reporter(folder / metrics_log.FILE, run, show)
            run.reporter.progress(0.0, "")
            run.describe(about)
            getattr(body, stage.name)(work.config, *_folders(work.inputs), run=run)
            _check_code(stage)
            record = store.commit(stage.name, key, output, run_id=run.id)
            place = store.location(store.artefact(stage.name, key))
            run.set_tags({"ebflow.artefact": place})
    except BadInput:
        shutil.rmtree(output, ignore_errors=True)
        if {path.name for path in folder.iterdir()} <= {metrics_log.FILE}:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
        if not stage.on_driver_node:  # its next attempt, perhaps elsewhere, reads the bucket
            with suppress(OSError):  # the stage's own error is the one to report
                store.evict(folder)
    store.forget(folder)
    return record


def _check_code(stage: Stage) -> None:
    """Raises StageFailed if the code is another than that in the key."""
    if code_digest(stage.module, stage.data) != stage.version:
        raise StageFailed(
            f"stage {stage.name}: found other code than when the run started, expected the same "
            "until the run is over: repeat the command"
        )


def _folders(inputs: Any) -> Any:  # noqa: ANN401
    """Returns what a stage reads, with folders instead of artefacts."""
    if isinstance(inputs, Artefact):
        return inputs.path
    if isinstance(inputs, list | tuple):
        return type(inputs)(_folders(one) for one in inputs)
    return inputs
