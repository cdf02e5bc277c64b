"""Stages on Ray, chained and remembered by redun: the only file that knows how redun works.

redun runs in the driver and keeps, in ``redun.db``, which call of which code gave which artefact.
A stage is found again by its own source, the source of the modules it names
(``sources.py``), its configuration, and the *content* of the artefacts it reads. What is
not found runs as a Ray task; Ray starts at the first of them, so a fully cached run never does.
"""

__all__ = ["Artefact", "Context", "Engine", "Fate", "Outcome", "Source", "plan", "run_stage"]

import logging
import shutil
import signal
import tempfile
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import redun.logging
from pydantic import BaseModel
from redun import Scheduler
from redun.backends.db import Job as JobRow
from redun.config import Config
from redun.executors.base import Executor, load_task_module
from redun.hashing import hash_struct
from redun.scheduler import Job, JobInfo
from redun.task import get_task_registry
from redun.value import ProxyValue, Value

from ebflow.errors import BadInput
from pipelines import cluster, store
from pipelines.config import canonical
from pipelines.faults import StageFailed, failure
from pipelines.tracking import Tracker

NAMESPACE = "ebflow"
KEY_LENGTH = 20
TRAINING = "train"
"""The stage that takes CPUs or GPUs: its workers wait in vain while others hold them."""


class CanonicalSection(ProxyValue):
    """Hashes a configuration by its canonical JSON, which leaves out what changes no number."""

    type = BaseModel
    type_name = "ebflow.Section"

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the keyed fields."""
        return hash_struct(["Section", type(self.instance).__name__, canonical(self.instance)])


class Source(Value):
    """Data outside the store: known by its content, read at its location.

    Arguments:
        location: Name or path.
        digest: SHA-256 of the content.
    """

    type_name = "ebflow.Source"

    def __init__(self, location: str, digest: str) -> None:
        self.location, self.digest = location, digest

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Source", self.digest])

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location, "digest": self.digest}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)


class Artefact(Value):
    """The folder that a stage wrote: known by its content, valid while that is unchanged.

    Arguments:
        stage: Name of the stage.
        key: Its key in the store.
        record: What the store recorded of it.
    """

    type_name = "ebflow.Artefact"

    def __init__(self, stage: str, key: str, record: store.Record) -> None:
        self.stage, self.key, self.record = stage, key, record

    @property
    def path(self) -> Path:
        """The folder, in the present store."""
        return store.artefact(self.stage, self.key)

    def is_valid(self) -> bool:
        """Reads every file again."""
        found = store.record(self.stage, self.key)
        return found is not None and found.digest == self.record.digest

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Artefact", self.stage, self.record.digest])

    def __getstate__(self) -> dict[str, Any]:
        return {"stage": self.stage, "key": self.key, "record": self.record}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True)
class Context:
    """What a running stage is told besides its arguments, and what changes no number.

    Arguments:
        tracker: Where it is tracked.
        parent: MLflow run of the pipeline.
        force: Whether to make again what is already there.
    """

    tracker: Tracker
    parent: str
    force: bool


class Planned(Exception):
    """Ends a plan at the first stage that would run."""


class Planner(Executor):
    """Runs nothing."""

    def submit(self, job: Job) -> None:
        """Ends the plan."""
        assert self._scheduler is not None
        self._scheduler.reject_job(job, Planned())


class Progress(Protocol):
    """Is told of each stage that runs; cached stages do not run."""

    def started(self, stage: str, key: str) -> None:
        """A stage starts."""

    def finished(self, stage: str, key: str) -> None:
        """It ended well."""


_context: ContextVar[Context] = ContextVar("context")


def run_stage(stage: str, job: JobInfo, *arguments: Any) -> Artefact:  # noqa: ANN401
    """Runs a stage, unless another process has just made its artefact.

    The stage is the function of that name in ``pipelines.stages.NAME``. It is called with the
    arguments and ``output``, a new folder to fill; ``work``, a folder that outlives a failure;
    and ``run``, its MLflow run.
    """
    key, context = job.eval_hash[:KEY_LENGTH], _context.get()
    with store.lock(f"{stage}-{key}"):
        made = None if context.force else store.record(stage, key)
        return Artefact(stage, key, made or _make(stage, key, arguments, context))


def _make(stage: str, key: str, arguments: tuple[Any, ...], context: Context) -> store.Record:
    work = store.work(stage, key)
    if context.force:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    output = Path(tempfile.mkdtemp(prefix="output-", dir=work))
    body = getattr(import_module(f"pipelines.stages.{stage}"), stage)
    try:
        with context.tracker.stage(stage, key, parent=context.parent) as run:
            body(*arguments, output=output, work=work, run=run)
            record = store.commit(stage, key, output, run_id=run.id)
            run.set_tags({"ebflow.artefact": str(store.artefact(stage, key))})
    except BadInput:
        shutil.rmtree(output, ignore_errors=True)
        with suppress(OSError):
            work.rmdir()
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(work)
    return record


def _call(module: str, task: str, args: tuple, kwargs: dict, context: Context) -> object:
    load_task_module(module, task)
    token = _context.set(context)
    try:
        return get_task_registry().get(task).func(*args, **kwargs)
    finally:
        _context.reset(token)


class StageExecutor(Executor):
    """Runs stages one by one in the driver: those that read what lies where the user is.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.
    """

    def __init__(self, name: str, engine: "Engine") -> None:
        super().__init__(name)
        self.engine = engine

    def submit(self, job: Job) -> None:
        """Starts a stage that was not found in the store."""
        assert job.args is not None and job.eval_hash is not None
        context = self.engine.context()
        self.engine.progress.started(job.task.name, job.eval_hash[:KEY_LENGTH])
        future = self._start(job.task.load_module, job.task.fullname, *job.args, context)
        future.add_done_callback(partial(self._done, job))

    def _start(self, *call: Any) -> Future:  # noqa: ANN401
        future: Future = Future()
        try:
            future.set_result(_call(*call))
        except Exception as error:  # noqa: BLE001  (handed on to the scheduler, as a pool does)
            future.set_exception(error)
        return future

    def _done(self, job: Job, future: Future) -> None:
        assert self._scheduler is not None
        error = future.exception()
        if error is None:
            self.engine.progress.finished(job.task.name, job.eval_hash[:KEY_LENGTH])
            self._scheduler.done_job(job, future.result())
        else:
            log.error("%s failed", job.task.name, exc_info=error)
            self._scheduler.reject_job(job, failure(error))


class RayExecutor(StageExecutor):
    """Runs stages as Ray tasks that take no CPU: only the workers they start take some.

    Ray starts with the first of them: in this machine, or at ``RAY_ADDRESS`` where that is set.
    """

    def __init__(self, name: str, engine: "Engine") -> None:
        super().__init__(name, engine)
        self.running: list[Any] = []
        self.waiting: deque[Job] = deque()
        self.training: Job | None = None
        self.turn = threading.Lock()
        self.folder: Path | None = None

    def submit(self, job: Job) -> None:
        """Starts a stage; a training once no other one runs, so that each has the machine."""
        if job.task.name != TRAINING:
            super().submit(job)
            return
        self.waiting.append(job)
        self._train_next()

    def _train_next(self) -> None:
        with self.turn:
            if self.training is not None or not self.waiting:
                return
            self.training = self.waiting.popleft()
        super().submit(self.training)

    def _done(self, job: Job, future: Future) -> None:
        super()._done(job, future)
        if job is self.training:
            self.training = None
            # Not in Ray's own thread, which calls this.
            threading.Thread(target=self._train_next, daemon=True).start()

    def _start(self, *call: Any) -> Future:  # noqa: ANN401
        import ray

        if not ray.is_initialized():
            with _own_sigterm():
                self.folder = cluster.start(self.engine.workers)
        reference = ray.remote(num_cpus=0, max_retries=0)(_call).remote(*call)
        self.running.append(reference)
        return reference.future()

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        if self.running:
            cluster.stop(self.running, self.folder)
            self.running.clear()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM, which Ray replaces by one that aborts."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True)
class Fate:
    """How many jobs of a stage ran, and how many were found in the store."""

    ran: int = 0
    cached: int = 0

    def __str__(self) -> str:
        if self.ran + self.cached == 1:
            return "ran" if self.ran else "cached"
        return f"{self.ran} ran, {self.cached} cached"


@dataclass(frozen=True)
class Outcome:
    """What a run of a graph gave.

    Arguments:
        value: Its value, all artefacts in place.
        fates: What became of its stages, by their names.
    """

    value: Any
    fates: dict[str, Fate]

    @property
    def artefacts(self) -> list[Artefact]:
        """All artefacts of the value, once each."""
        return list({(a.stage, a.key): a for a in _artefacts(self.value)}.values())


def _artefacts(value: Any) -> Iterator[Artefact]:  # noqa: ANN401
    if isinstance(value, Artefact):
        yield value
    elif isinstance(value, Mapping):
        yield from _artefacts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _artefacts(item)


class Engine:
    """Evaluates stage graphs, remembering every finished stage.

    Arguments:
        open_context: Called once, before the first stage that runs.
        progress: Is told of the stages that run.
        workers: Training processes, for an embedded Ray.
        force: Whether to run every stage again.
    """

    def __init__(
        self,
        *,
        open_context: Callable[[], Context],
        progress: Progress,
        workers: int = 1,
        force: bool = False,
    ) -> None:
        self._open_context = open_context
        self.progress, self.workers, self.force = progress, workers, force

    @cached_property
    def _context(self) -> Context:
        return self._open_context()

    def context(self) -> Context:
        """Returns the context of the stages that run; opened at the first call."""
        return self._context

    def run(self, graph: Any) -> Outcome:  # noqa: ANN401
        """Evaluates a graph: an expression of redun, or a nest of them.

        Raises:
            KeyboardInterrupt: At Ctrl-C, when what ran has been told to stop.
            BadInput: As a stage raised it.
            StageFailed: If a stage failed; its cause holds the whole story.
        """
        executors = StageExecutor("driver", self), RayExecutor("ray", self)
        scheduler, execution = _scheduler(*executors), str(uuid.uuid4())
        try:
            value = scheduler.run(graph, cache=not self.force, execution_id=execution)
        except SystemExit as stop:
            raise KeyboardInterrupt from stop
        except (BadInput, StageFailed):
            raise
        except Exception as error:
            log.exception("the pipeline failed")
            raise failure(error) from error
        return Outcome(value, _fates(scheduler, execution))


def plan(graph: Any) -> dict[str, Fate]:  # noqa: ANN401
    """Returns which stages a run would run, by name; what follows such a stage is not told."""
    scheduler, execution = _scheduler(Planner("driver"), Planner("ray")), str(uuid.uuid4())
    with suppress(Planned):
        scheduler.run(graph, execution_id=execution)
    return _fates(scheduler, execution)


def _scheduler(*executors: Executor) -> Scheduler:
    redun.logging.logger.removeHandler(redun.logging.log_handler)
    database = {"db_uri": f"sqlite:///{store.home() / 'redun.db'}"}
    scheduler = Scheduler(Config({"backend": database}))
    for executor in executors:
        scheduler.add_executor(executor)
    with store.lock("redun"):
        scheduler.load(migrate=True)
    return scheduler


def _fates(scheduler: Scheduler, execution: str) -> dict[str, Fate]:
    rows = scheduler.backend.session.query(JobRow).filter_by(execution_id=execution)
    counts = Counter(
        (row.task.name, bool(row.cached)) for row in rows if row.task.namespace == NAMESPACE
    )
    stages = {stage for stage, _ in counts}
    return {stage: Fate(counts[stage, False], counts[stage, True]) for stage in stages}


log = logging.getLogger("ebflow.engine")
