"""A stage: as a graph declares it, and as it runs: under its lock, in its folders, tracked."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.keys import code_digest, data_digest, key_of
from pipelines.engine.resources import Needs, threads_of
from pipelines.engine.values import Artefact
from pipelines.errors import StageFailed
from pipelines.tracking import metrics_log
from pipelines.tracking.notes import NOTE, note, numbers

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


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a graph: the function in a module that has the module's own name.

    A graph calls the stage with a configuration, a list of its inputs and, where a run has several
    stages of a kind, a title, which is no part of the key; the result is an expression of redun.
    The function is called with the configuration; the inputs, with folders instead of artefacts;
    and ``run``, its MLflow run, with ``output``, a new folder to fill, ``work``, a folder that
    outlives a failure, and ``reporter``, which shows how far it is.

    Arguments:
        module: Its full name. Its code, and that of all that it imports, is part of the key.
        executor: ``ray``, or ``driver``: the process of the command, which sees the user's files.
        needs: The resources it reserves (:mod:`pipelines.engine.resources`).
        on_driver_node: True if it runs on the driver's node, where its work folder stays.
        data: Packages with files that its code reads, as templates of its page; their content is
            part of the key.
    """

    module: str
    _: KW_ONLY
    executor: str = "ray"
    needs: Needs | Callable[[Any], Needs] = field(default_factory=lambda: {"CPU": 1})
    on_driver_node: bool = False
    data: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.module.rpartition(".")[2]

    @cached_property
    def version(self) -> str:
        """The digest of its code when the run first needed it."""
        return self.current_version()

    def current_version(self) -> str:
        """Returns the digest of its code as it is now."""
        read = [self.module, code_digest(self.module), *map(data_digest, self.data)]
        return hashlib.sha256("".join(read).encode()).hexdigest()

    def __call__(self, *words: Any, **more: Any) -> Any:  # noqa: ANN401
        """Returns the expression of its artefact."""
        from pipelines.engine.tasks import task_of

        return task_of(self)(*words, **more)


@dataclass(frozen=True)
class Work:
    """A call of a stage.

    Arguments:
        stage: The stage.
        config: Its configuration.
        inputs: Artefacts and sources, in lists or tuples.
        title: A title that tells it from others of its kind.
    """

    stage: Stage
    config: Any
    inputs: Sequence[Any] = ()
    title: str = ""

    @cached_property
    def key(self) -> str:
        """The key of its artefact."""
        return key_of(self.stage.version, self.config, self.inputs)

    @property
    def needs(self) -> Needs:
        """The resources it reserves."""
        needs = self.stage.needs
        return needs(self.config) if callable(needs) else needs

    @property
    def folder(self) -> Path:
        """The folder that outlives a failure."""
        return store.work(self.stage.name, self.key)


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
        made = None if context.force else store.find(name, key)
        if made is None:
            if context.force and not again:
                store.forget(work.folder)
            import torch  # a dry run needs none of it

            # A process that Ray reuses has the threads of its last stage.
            torch.set_num_threads(threads_of(work.needs))
            made = _make(work, context)
        return Artefact(name, key, made)


def _check_code(stage: Stage) -> None:
    """Raises StageFailed if the code is another than that in the key."""
    if stage.current_version() != stage.version:
        raise StageFailed(
            f"stage {stage.name}: found other code than when the run started, expected the same "
            "until the run is over: repeat the command"
        )


def _places(found: Any) -> Any:  # noqa: ANN401
    """Returns what a stage reads, with folders instead of artefacts."""
    if isinstance(found, Artefact):
        return found.path
    if isinstance(found, list | tuple):
        return type(found)(_places(one) for one in found)
    return found


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
            stage.name, key, parent=context.parent, title=work.title
        ) as run:
            run.command, run.output, run.work = context.command, output, folder
            show = partial(context.show, stage.name, key)
            run.reporter = Reporter(folder / metrics_log.FILE, run, show)
            run.reporter.progress(0.0, "")
            run.set_tags({NOTE: note(about, run.command)})
            getattr(body, stage.name)(work.config, *_places(work.inputs), run=run)
            _check_code(stage)
            record = store.commit(stage.name, key, output, run_id=run.id)
            text = note(about, run.command, numbers(run.final))
            place = store.location(store.artefact(stage.name, key))
            run.set_tags({NOTE: text, "ebflow.artefact": place})
    except BadInput:
        shutil.rmtree(output, ignore_errors=True)
        if {path.name for path in folder.iterdir()} <= {metrics_log.FILE}:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
    store.forget(folder)
    return record
