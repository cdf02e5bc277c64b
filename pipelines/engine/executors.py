"""Where stages run: in the driver, as tasks of Ray, or nowhere."""

import ctypes
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from redun.executors.base import Executor
from redun.scheduler import Job

from pipelines.cli.interruption import interrupted
from pipelines.cluster.connection import Connection, cancel, leave, start
from pipelines.engine.demand import needs_of, reserved
from pipelines.engine.retries import Retries, passing
from pipelines.engine.stages import KEY_LENGTH, Context, call
from pipelines.engine.values import Artefact
from pipelines.errors import failure, in_one_line

SIGACTION_BYTES = 256
"""More than a ``struct sigaction`` takes."""

ONE_RAY = threading.Lock()
"""A process has one connection to Ray at a time."""


class Progress(Protocol):
    """Is told of each stage that runs; cached stages do not run."""

    def queued(self, stage: str, key: str) -> None:
        """A stage is in Ray's queue."""

    def started(self, stage: str, key: str) -> None:
        """A stage starts."""

    def finished(self, stage: str, key: str) -> None:
        """It ended well."""

    def retried(self, stage: str, error: str, pause: float) -> None:
        """It failed, and will be tried again in so many seconds."""


class Host(Protocol):
    """What executors ask of the engine."""

    progress: Progress
    retries: Retries

    def context(self) -> Context:
        """Returns the context of the stages that run."""


class StageExecutor(Executor):
    """Runs stages one by one in the driver: those that read what lies where the user is.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.
    """

    def __init__(self, name: str, engine: Host) -> None:
        super().__init__(name)
        self.engine, self.stopped = engine, threading.Event()

    def begin(self) -> None:
        """Gets what stages run on ready meanwhile, and does not wait for it."""

    def submit(self, job: Job) -> None:
        """Starts a stage that was not found in the store."""
        assert job.args is not None and job.eval_hash is not None
        self.engine.context()
        self._tell(job.task.name, job.eval_hash[:KEY_LENGTH])
        self._attempt(job, 0)

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.started(stage, key)

    def _attempt(self, job: Job, number: int) -> None:
        """Starts a stage; the first attempt has the number 0."""
        self._start(job).add_done_callback(partial(self._done, job, number))

    def _done(self, job: Job, number: int, future: Future) -> None:
        error = future.exception()
        if error is None or not self._to_try_again(number, error):
            self._ended(job, future)
            return
        log.warning("%s failed, and is tried again", job.task.name, exc_info=error)
        pause = self.engine.retries.before(number)
        self.engine.progress.retried(job.task.name, in_one_line(error), pause)
        self._later(pause, job, number + 1)

    def _to_try_again(self, number: int, error: BaseException) -> bool:
        """What is stopped fails too."""
        ending = interrupted() or self.stopped.is_set()
        return number < self.engine.retries.count and not ending and passing(error)

    def _later(self, pause: float, job: Job, number: int) -> None:
        """Attempts from a thread of its own: others go on meanwhile."""
        timer = threading.Timer(pause, self._again, [job, number])
        timer.daemon = True
        timer.start()

    def _again(self, job: Job, number: int) -> None:
        if self.stopped.is_set():
            return
        try:
            self._attempt(job, number)
        except Exception as error:  # noqa: BLE001  (handed on to the scheduler)
            future: Future = Future()
            future.set_exception(error)
            self._ended(job, future)

    def stop(self) -> None:
        """Tries nothing again."""
        self.stopped.set()

    def _work(self, job: Job) -> Callable[[], Artefact]:
        """Returns what does a job: picklable, by the name of its module."""
        (args, kwargs), key = job.args, job.eval_hash[:KEY_LENGTH]
        context = self.engine.context()
        return partial(call, job.get_option("module"), key, *args, **kwargs, context=context)

    def _start(self, job: Job) -> Future:
        future: Future = Future()
        try:
            future.set_result(self._work(job)())
        except Exception as error:  # noqa: BLE001  (handed on to the scheduler, as a pool does)
            future.set_exception(error)
        return future

    def _ended(self, job: Job, future: Future) -> None:
        assert self._scheduler is not None
        error = future.exception()
        if error is None:
            self.engine.progress.finished(job.task.name, job.eval_hash[:KEY_LENGTH])
            self._scheduler.done_job(job, future.result())
        else:
            log.error("%s failed", job.task.name, exc_info=error)
            self._scheduler.reject_job(job, failure(error))


class RayExecutor(StageExecutor):
    """Puts every stage that is ready into Ray's queue, with what it needs.

    Ray starts in this machine, or is reached at ``RAY_ADDRESS`` where that is set, beside what is
    done before the first of them. Its processes end with the thread that started them, and stages
    are submitted by several: it is started by a thread of its own, which stays until it is left.
    Where nothing runs any more it is left beside what is done afterwards.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.
        dashboard: Whether an embedded Ray has a dashboard.
        meanwhile: Modules that are needed afterwards, imported while the first stage runs.
    """

    def __init__(
        self, name: str, engine: Host, *, dashboard: bool = True, meanwhile: Sequence[str] = ()
    ) -> None:
        super().__init__(name, engine)
        self.dashboard, self.meanwhile = dashboard, meanwhile
        self.running: list[Any] = []
        self.starting, self.left = threading.Lock(), threading.Event()
        self.connection: Future[Connection] | None = None

    def begin(self) -> None:
        """Starts Ray."""
        self._connect()

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.queued(stage, key)

    def _start(self, job: Job) -> Future:
        import ray

        connection = self._connected()
        options = reserved(needs_of(job)) | _place(job, connection)
        work = self._work(job)
        reference = ray.remote(**options, max_retries=0)(work.func).remote(
            *work.args, **work.keywords
        )
        if not self.running:
            threading.Thread(target=lambda: [*map(import_module, self.meanwhile)]).start()
        self.running.append(reference)
        return reference.future()

    def _connected(self) -> Connection:
        """Returns Ray's connection; after one that failed, who tries again makes another."""
        connecting = self._connect()
        try:
            return connecting.result()
        except BaseException:
            with self.starting:
                if self.connection is connecting:
                    self.connection = None
            raise

    def _connect(self) -> Future[Connection]:
        with self.starting:
            if self.connection is None:
                self.connection = Future()
                self.keeper = threading.Thread(target=self._keep, args=[self.connection])
                self.keeper.start()
            return self.connection

    def _keep(self, connection: Future[Connection]) -> None:
        with ONE_RAY:
            try:
                with _own_sigterm():
                    connected = start(dashboard=self.dashboard)
            except BaseException as error:  # noqa: BLE001  (handed on to the stages)
                connection.set_exception(error)
                return
            connection.set_result(connected)
            self.left.wait()
            leave(connected)

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        super().stop()
        if self.connection is not None and not self.connection.exception():
            cancel(self.running)
            self.running.clear()
        self.left.set()


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
