"""A stage: as a graph declares it, and as it runs: under its lock, in its folders, tracked."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.demand import Needs
from pipelines.engine.digests import data_digest, source_digest
from pipelines.engine.values import Artefact
from pipelines.tracking import metrics_log
from pipelines.tracking.notes import NOTE, note, numbers

if TYPE_CHECKING:
    from redun.task import Task

    from pipelines.tracking.tracker import Tracker

KEY_LENGTH = 20


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


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage as a graph declares it: the function in a module that has the module's own name.

    A graph calls it with a configuration, the list of what it reads, and, where a run has several
    of its kind, a title, which is no part of its key; that is an expression of redun. The function
    is called with the configuration; what it reads, sources and the folders of artefacts; and
    ``run``, its MLflow run, with ``output``, a new folder to fill, and ``work``, a folder that
    outlives a failure.

    Arguments:
        module: Its full name. Its source, and that of all that it imports, is part of the key.
        executor: Where it runs: ``ray``, or ``driver``, where the user is.
        needs: What it takes (:mod:`pipelines.engine.demand`).
        follows: Whether it follows workers or trials of its own, at the store of the driver.
        data: Packages that have files which its code reads, as templates of its page; their
            content is part of the key.
    """

    module: str
    _: KW_ONLY
    executor: str = "ray"
    needs: Needs | Callable[[Any], Needs] = field(default_factory=lambda: {"CPU": 1})
    follows: bool = False
    data: Sequence[str] = ()

    @property
    def name(self) -> str:
        """What it is called: as its function."""
        return self.module.rpartition(".")[2]

    @cached_property
    def version(self) -> str:
        """SHA-256 of its source, of all that it imports, and of what it reads beside that."""
        read = [source_digest(self.module), *map(data_digest, self.data)]
        return hashlib.sha256("".join(read).encode()).hexdigest()

    @cached_property
    def task(self) -> "Task":
        """What redun knows it by."""
        from pipelines.engine.tasks import declared

        return declared(self)

    def __call__(self, *words: Any, **more: Any) -> Any:  # noqa: ANN401
        """Returns the expression of its artefact."""
        return self.task(*words, **more)


def call(
    module: str,
    key: str,
    config: Any,  # noqa: ANN401
    inputs: Sequence[Any] = (),
    title: str = "",
    *,
    context: Context,
    threads: int = 1,
    again: bool = False,
) -> Artefact:
    """Runs a stage, unless another process has just made its artefact.

    Arguments:
        module: That of its function.
        key: Its key.
        config, inputs, title: As a graph calls it.
        context: What it is told besides.
        threads: Threads of torch; a process that Ray reuses has those of its last stage.
        again: Whether an attempt of the same run has failed, from whose work it goes on.

    Raises:
        BadInput: Where the store is not seen; and what the stage raises.
    """
    store.expect(context.tracker.home)
    name = module.rpartition(".")[2]
    with store.lock(f"{name}-{key}"):
        made = None if context.force else store.record(name, key)
        if made is None:
            if context.force and not again:
                store.forget(store.work(name, key))
            torch.set_num_threads(threads)
            made = _make(module, key, title, (config, *_places(inputs)), context)
        return Artefact(name, key, made)


def _places(found: Any) -> Any:  # noqa: ANN401
    """Returns what a stage reads, with folders instead of artefacts."""
    if isinstance(found, Artefact):
        return found.path
    if isinstance(found, list | tuple):
        return type(found)(_places(one) for one in found)
    return found


def _make(
    module: str, key: str, title: str, arguments: tuple[Any, ...], context: Context
) -> store.Record:
    stage = module.rpartition(".")[2]
    work = store.work(stage, key)
    work.mkdir(parents=True, exist_ok=True)
    output = work / f"output-{uuid.uuid4().hex}"
    output.mkdir()
    body = import_module(module)
    about = f"Stage `{stage}`. {body.__doc__}"
    try:
        with context.tracker.stage(stage, key, parent=context.parent, title=title) as run:
            run.command, run.output, run.work = context.command, output, work
            run.set_tags({NOTE: note(about, run.command)})
            getattr(body, stage)(*arguments, run=run)
            record = store.commit(stage, key, output, run_id=run.id)
            text = note(about, run.command, numbers(run.final))
            place = store.location(store.artefact(stage, key))
            run.set_tags({NOTE: text, "ebflow.artefact": place})
    except BadInput:
        shutil.rmtree(output, ignore_errors=True)
        if {path.name for path in work.iterdir()} <= {metrics_log.FILE}:
            shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
    store.forget(work)
    return record
