"""Where stages run: in the driver, or as tasks of Ray."""

import ctypes
import logging
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from redun.executors.base import Executor
from redun.scheduler import Job

from pipelines import store
from pipelines.cluster.connection import Connection, cancel, leave, start
from pipelines.engine.demand import needs_of, reserved, threads_of
from pipelines.engine.retries import passing
from pipelines.engine.stages import KEY_LENGTH, call
from pipelines.engine.values import Artefact
from pipelines.errors import failure, in_one_line
from pipelines.interruption import interrupted

if TYPE_CHECKING:
    from pipelines.engine.evaluation import Engine

SIGACTION_BYTES = 256
"""More than a ``struct sigaction`` takes."""

RAY = ThreadPoolExecutor(1, "ray")
"""Starts Ray and leaves it, in turn: a process has one connection to Ray at a time, and what Ray
starts ends with the thread that started it, while stages are submitted by several.
"""

Work = partial[Artefact]
"""What does a job."""


class StageExecutor(Executor):
    """Runs stages one by one in the driver: those that read what lies where the user is.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.

    Attributes:
        found: How many jobs of each stage the store had, though redun did not know them.
    """

    def __init__(self, name: str, engine: "Engine") -> None:
        super().__init__(name)
        self.engine, self.stopped = engine, threading.Event()
        self.found: Counter[str] = Counter()

    def begin(self) -> None:
        """Gets what stages run on ready meanwhile, and does not wait for it."""

    def submit(self, job: Job) -> None:
        """Starts a stage that redun does not know as done, unless the store has what it makes."""
        assert self._scheduler is not None and job.eval_hash is not None
        stage, key = job.task.name, job.eval_hash[:KEY_LENGTH]
        if artefact := self._stored(stage, key):
            self.found[stage] += 1
            self._scheduler.done_job(job, artefact)
            return
        work = self._work(job)
        self._tell(stage, key)
        self._attempt(job, work, 0)

    def _stored(self, stage: str, key: str) -> Artefact | None:
        """Returns what the store has of it, and says so if that is harmed."""
        with suppress(OSError):  # the stage asks a store that does not answer again, by its tries
            if not self.engine.force and store.kept(stage, key):
                if artefact := Artefact.stored(stage, key):
                    return artefact
                place = store.location(store.artefact(stage, key))
                self.engine.progress.tell(stage, f"{place}: {store.HARMED}; it is made again")
        return None

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.started(stage, key)

    def _work(self, job: Job) -> Work:
        """Returns what does a job: picklable, by the name of its module."""
        (args, kwargs), key = job.args, job.eval_hash[:KEY_LENGTH]
        context = self.engine.context
        told = {"context": context, "threads": threads_of(needs_of(job))}
        return partial(call, job.get_option("module"), key, *args, **kwargs, **told)

    def _attempt(self, job: Job, work: Work, number: int) -> None:
        """Starts a stage; the first attempt has the number 0."""
        try:
            future = self._start(job, partial(work, again=number > 0))
        except Exception as error:  # noqa: BLE001  (handed on, as a pool does)
            future = Future()
            future.set_exception(error)
        future.add_done_callback(partial(self._done, job, work, number))

    def _start(self, job: Job, work: Work) -> Future:
        future: Future = Future()
        future.set_result(work())
        return future

    def _done(self, job: Job, work: Work, number: int, future: Future) -> None:
        error = future.exception()
        if error is None or not self._to_try_again(number, error):
            self._ended(job, future)
            return
        log.warning("%s failed, and is tried again", job.task.name, exc_info=error)
        pause = self.engine.retries.before(number)
        # A thread of its own: others go on meanwhile.
        timer = threading.Timer(pause, self._again, [job, work, number + 1])
        timer.daemon = True
        timer.start()
        self.engine.progress.retried(job.task.name, in_one_line(error), pause)

    def _to_try_again(self, number: int, error: BaseException) -> bool:
        """What is stopped fails too."""
        ending = interrupted() or self.stopped.is_set()
        return number < self.engine.retries.count and not ending and passing(error)

    def _again(self, job: Job, work: Work, number: int) -> None:
        if not self.stopped.is_set():
            self._attempt(job, work, number)

    def _ended(self, job: Job, future: Future) -> None:
        """Hands on how a job ended, whatever becomes of telling it: redun waits for ever else."""
        assert self._scheduler is not None
        error = future.exception()
        if error is not None:
            log.error("%s failed", job.task.name, exc_info=error)
            self._scheduler.reject_job(job, failure(error))
            return
        try:
            self.engine.progress.finished(job.task.name, job.eval_hash[:KEY_LENGTH])
        finally:
            self._scheduler.done_job(job, future.result())

    def stop(self) -> None:
        """Tries nothing again."""
        self.stopped.set()


class RayExecutor(StageExecutor):
    """Puts every stage that is ready into Ray's queue, with what it needs.

    Ray starts in this machine, or is reached at ``RAY_ADDRESS`` where that is set, beside what is
    done before the first of them, and is left beside what is done after the last.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.
        dashboard: Whether an embedded Ray has a dashboard.
        meanwhile: Modules that are needed afterwards, imported while the first stage runs.
    """

    def __init__(
        self, name: str, engine: "Engine", *, dashboard: bool = True, meanwhile: Sequence[str] = ()
    ) -> None:
        super().__init__(name, engine)
        self.dashboard, self.meanwhile = dashboard, meanwhile
        self.running: list[Any] = []
        self.connecting = threading.Lock()
        self.connection: Future[Connection] | None = None

    def begin(self) -> None:
        """Starts Ray."""
        self._connect()

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.queued(stage, key)

    def _start(self, job: Job, work: Work) -> Future:
        connection = self._connect().result()
        options = reserved(needs_of(job)) | _place(job, connection)
        reference = _remote_call().options(**options).remote(*work.args, **work.keywords)
        if not self.running:
            threading.Thread(target=lambda: [*map(import_module, self.meanwhile)]).start()
        self.running.append(reference)
        return reference.future()

    def _again(self, job: Job, work: Work, number: int) -> None:
        """Tries anew to start Ray, too, where that has failed."""
        self._forget_failed_start()
        super()._again(job, work, number)

    def _forget_failed_start(self) -> None:
        with self.connecting:
            if self.connection is not None and self.connection.done():
                self.connection = None if self.connection.exception() else self.connection

    def _ended(self, job: Job, future: Future) -> None:
        """Removes what a stage reported to the driver's store, where its own node has another."""
        if future.exception() is None and self._connect().result().node is not None:
            work = store.work(job.task.name, job.eval_hash[:KEY_LENGTH])
            shutil.rmtree(work, ignore_errors=True)
        super()._ended(job, future)

    def _connect(self) -> Future[Connection]:
        with self.connecting:
            if self.connection is None:
                self.connection = RAY.submit(_started, self.dashboard)
            return self.connection

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        super().stop()
        try:
            if self.running:
                cancel(self.running)
        finally:
            if self.connection is not None:
                RAY.submit(_left, self.connection, self.running)


@cache
def _remote_call() -> Any:  # noqa: ANN401
    """Returns the remote function of all stages: Ray exports each remote function to all nodes."""
    import ray

    return ray.remote(max_retries=0)(call)


def _started(dashboard: bool) -> Connection:
    with _own_sigterm():
        return start(dashboard=dashboard)


def _left(connection: Future[Connection], running: Sequence[Any]) -> None:  # noqa: ARG001
    """Leaves Ray. It ends a process, without a word, that drops a reference meanwhile."""
    if connection.exception() is None:
        leave(connection.result())


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Takes SIGTERM back from Ray, whose handler aborts. Python sets handlers from one thread."""
    libc, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    libc.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGTERM, kept, None)


def _place(job: Job, connection: Connection) -> dict[str, Any]:
    """Returns where a stage must run: one that follows others, at the store of the driver."""
    if connection.node is None or not job.get_option("follows", False):
        return {}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(connection.node, soft=False)}


log = logging.getLogger("ebflow.engine")
