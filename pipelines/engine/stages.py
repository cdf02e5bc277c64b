"""Stages: their inputs, keys and resources; their calls, tracked and under a lock."""

import gc
import hashlib
import json
import math
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import metrics_log, store
from pipelines.cluster import connection, environment
from pipelines.config import UNKEYED, Section
from pipelines.engine.keys import code_digest
from pipelines.errors import StageFailed
from pipelines.store import Artefact
from pipelines.tracking.backend import mlflow_errors
from pipelines.tracking.provenance import version_and_commit

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker

# Amounts of ``CPU``, ``GPU``, ``memory`` (bytes) and ``accelerator_type:…``, by which Ray places
# tasks, starts nodes.
Needs = Mapping[str, float]

# All CPUs of a node, for a stage that measures times. It sets the number of its own threads.
WHOLE_NODE: Needs = {"CPU": math.inf}


def needs_from_config(config: Any) -> Needs:  # noqa: ANN401
    """Returns the resources that a configuration names, or its threads as CPUs.

    Memory, and the type of a GPU, count only on a cluster.
    """
    needs = config.needs if hasattr(config, "needs") else {"CPU": config.threads}
    if environment.embedded():
        return {kind: amount for kind, amount in needs.items() if kind in ("CPU", "GPU")}
    return needs


def needs_of_training(config: Any) -> Needs:  # noqa: ANN401
    """Returns the resources of a training in the process of its stage."""
    if connection.uses_ray_train(config.cluster):
        return connection.DRIVER
    return needs_from_config(config)


class Source:
    """Data outside the store: known by its content, read at its location.

    Sources and artefacts are no dataclasses: redun would take those apart.

    Arguments:
        location: Name or path.
        digest: SHA-256 of the content.
    """

    def __init__(self, location: str, digest: str) -> None:
        self.location, self.digest = location, digest


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a graph: the function in a module that has the module's own name.

    A graph calls the stage with a configuration and its inputs by their names. If a run has
    several stages of a kind, they have titles, which are no part of the key. The result is an
    expression of redun. The function is called with the configuration, the inputs by the same
    names, as folders instead of artefacts, and ``run``, its MLflow run. Its ``output`` is a new
    folder to fill, ``work`` a folder that outlives a failure, and ``reporter`` shows the progress.
    """

    module: str  #: Its full name. Its code, and that of all that it imports, is part of the key.
    _: KW_ONLY
    #: ``ray``, or ``driver``: the process of the command, which sees the user's files
    executor: str = "ray"
    #: The resources it reserves, or a function from its configuration to them
    needs: Needs | Callable[[Any], Needs] = field(default_factory=lambda: {"CPU": 1})
    #: True if it runs on the driver's node, where its work folder stays
    on_driver_node: bool = False

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.module.rpartition(".")[2]

    @cached_property
    def version(self) -> str:
        """The digest of its code when the run first needed it."""
        return code_digest(self.module)

    def __call__(self, config: Any, *, title: str = "", **inputs: Any) -> Any:  # noqa: ANN401
        """Returns the expression of its artefact."""
        from pipelines.engine.graphs import task_of  # workers do not need redun

        return task_of(self)(config, inputs, title)


@dataclass(frozen=True)
class Work:
    """A call of a stage."""

    stage: Stage
    config: Any
    #: Artefacts and sources, or lists and dictionaries of them, by their names
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""  #: A title that distinguishes it from others of its kind

    @cached_property
    def key(self) -> str:
        """The key of its artefact."""
        return key_of(self.stage.version, self.config, self.inputs)

    def provenance(self, name: str) -> dict[str, Any]:
        """Returns all that its key depends on, with its version and the name of its run."""
        values = {
            "stage": self.stage.name,
            "name": name,
            "title": self.title,
            "version": version_and_commit(),
            "code": self.stage.version,
            "options": dict(_options(self.config)),
            "inputs": self.inputs,
        }
        return json.loads(json.dumps(values, default=content))

    @property
    def needs(self) -> Needs:
        """The resources it reserves."""
        needs = self.stage.needs
        return needs(self.config) if callable(needs) else needs

    @property
    def folder(self) -> Path:
        """The folder that outlives a failure."""
        return store.work(self.stage.name, self.key)


def key_of(*values: Any) -> str:  # noqa: ANN401
    """Returns a hash of the content of values, 20 hexadecimal digits."""
    text = json.dumps(values, sort_keys=True, default=content)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def content(value: Any) -> Any:  # noqa: ANN401
    """Returns the part of an input that decides the results of a stage, JSON-able."""
    if isinstance(value, Section):
        fields = type(value).model_fields.items()
        names = [name for name, field in fields if field.json_schema_extra != UNKEYED]
        return [type(value).__name__, {name: getattr(value, name) for name in names}]
    if isinstance(value, Artefact):
        return [value.stage, value.digest]
    if isinstance(value, Source):
        return value.digest
    raise TypeError(f"{type(value).__name__}: expected a configuration, an artefact or a source")


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yields the options of a configuration that are part of its key, by their dotted names."""
    for name, value in content(config)[1].items() if isinstance(config, Section) else ():
        if isinstance(value, Section):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class Context:
    """Settings of a run that reach its stages and change no result."""

    tracker: "Tracker"  #: The experiment in MLflow
    parent: str  #: The MLflow run of the pipeline
    command: str  #: The command that reproduces it
    name: str  #: The name of the run
    force: bool  #: True if stages run again that are finished
    #: Shows how far a job is: its stage and key, the share that is done, text and note
    show: Callable[[str, str, float, str, str], None] = lambda *message: None


@mlflow_errors()
def call(work: Work, context: Context) -> Artefact:
    """Runs a stage under its lock, and commits its output, unless the store has it.

    Raises:
        BadInput: If this process does not see the store.
        StageFailed: If the code is another than in the driver: it was edited during the run.
        TransientFailure: If MLflow was not reached, or failed.
    """
    import torch  # a dry run needs none of it

    stage, key = work.stage, work.key
    store.require_same_store(context.tracker.home)
    with store.lock(f"{stage.name}-{key}"):
        if not context.force and (found := store.find(stage.name, key)):
            return found
        _check_code(stage)
        gc.collect()  # Ray reuses processes: data of the last stage have reference cycles
        # A process that Ray reuses has the threads of its last stage.
        cpus = work.needs["CPU"]
        torch.set_num_threads(1 if math.isinf(cpus) else max(1, int(cpus)))
        store.mark_used(stage.name, key, work.provenance(context.name))
        body = import_module(stage.module)
        with _new_output(work) as output, _tracked(work, context, body.__doc__) as run:
            run.output = output
            getattr(body, stage.name)(work.config, **_folders(work.inputs), run=run)
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
    from pipelines.tracking.run import Reporter

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
    if isinstance(inputs, dict):
        return {name: _folders(one) for name, one in inputs.items()}
    if isinstance(inputs, list):
        return [_folders(one) for one in inputs]
    return inputs
