"""A stage as it runs, wherever that is: under its lock, in its folders, tracked."""

__all__ = ["KEY_LENGTH", "TITLED", "Context", "call", "run_stage"]

import shutil
import uuid
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from redun.executors.base import load_task_module
from redun.scheduler import JobInfo
from redun.task import get_task_registry

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.values import Artefact
from pipelines.tracking.notes import NOTE, note, numbers

if TYPE_CHECKING:
    from pipelines.tracking import Tracker

KEY_LENGTH = 20

TITLED = ["title"]
"""Arguments of tasks that tell a person's stages apart, and are no part of a stage's key."""


JOB_INFO = JobInfo()
"""The default of a stage's ``job``; redun puts the job in its place."""


@dataclass(frozen=True)
class Context:
    """What a running stage is told besides its arguments, and what changes no number.

    Arguments:
        tracker: Where it is tracked.
        parent: MLflow run of the pipeline.
        command: The command that reproduces it.
        force: Whether to make again what is already there.
    """

    tracker: "Tracker"
    parent: str
    command: str
    force: bool


_context: ContextVar[Context] = ContextVar("context")


def run_stage(
    module: str,
    job: JobInfo,
    *arguments: Any,  # noqa: ANN401
    title: str = "",
) -> Artefact:
    """Runs a stage, unless another process has just made its artefact.

    The stage is the function in ``module`` that has the module's own name. It is called with
    the arguments and ``output``, a new folder to fill; ``work``, a folder that outlives a
    failure; and ``run``, its MLflow run, whose name has the title behind the stage's.
    """
    stage = module.rpartition(".")[2]
    key, context = job.eval_hash[:KEY_LENGTH], _context.get()
    with store.lock(f"{stage}-{key}"):
        made = None if context.force else store.record(stage, key)
        made = made or _make(module, key, title, arguments, context)
        return Artefact(stage, key, made)


def _make(
    module: str, key: str, title: str, arguments: tuple[Any, ...], context: Context
) -> store.Record:
    stage = module.rpartition(".")[2]
    work = store.work(stage, key)
    if context.force:
        store.forget(work)
    work.mkdir(parents=True, exist_ok=True)
    output = work / f"output-{uuid.uuid4().hex}"
    output.mkdir()
    body = import_module(module)
    about = f"Stage `{stage}`. {body.__doc__}"
    try:
        with context.tracker.stage(stage, key, parent=context.parent, title=title) as run:
            run.command = context.command
            run.set_tags({NOTE: note(about, run.command)})
            getattr(body, stage)(*arguments, output=output, work=work, run=run)
            record = store.commit(stage, key, output, run_id=run.id)
            told = note(about, run.command, numbers(run.final))
            run.set_tags({NOTE: told, "ebflow.artefact": store.place(store.artefact(stage, key))})
    except BadInput:
        shutil.rmtree(output, ignore_errors=True)
        with suppress(OSError):
            work.rmdir()
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
    store.forget(work)
    return record


def call(module: str, task: str, args: tuple, kwargs: dict, context: Context) -> object:
    """Calls a task by its name, in a context; raises BadInput where the store is not seen."""
    store.expect(context.tracker.home)
    load_task_module(module, task)
    token = _context.set(context)
    try:
        return get_task_registry().get(task).func(*args, **kwargs)
    finally:
        _context.reset(token)
