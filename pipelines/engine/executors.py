"""Executors of redun: they find stages in the store, and run others in the driver or on Ray.

A dry run has executors that only find.
"""

import logging
import signal
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from redun.executors.base import Executor
from redun.scheduler import Job

from pipelines import store
from pipelines.cluster.connection import Connection, cancel, leave, start
from pipelines.engine.resources import ray_options
from pipelines.engine.retries import is_transient
from pipelines.engine.stages import Stage, Work, call
from pipelines.engine.values import Artefact, Expected
from pipelines.errors import failure, in_one_line
from pipelines.interruption import interrupted

if TYPE_CHECKING:
    from pipelines.engine.evaluation import Engine

RAY = ThreadPoolExecutor(1, "ray")
"""Starts and leaves Ray, whose processes end with the thread that started them. A process has one
connection to Ray at a time.
"""


class StoreExecutor(Executor):
    """Finds stages in the store; those that are not there it starts, each once.

    Arguments:
        name: The name by which stages choose it.
        force: True if it finds nothing.

    Attributes:
        started: The number of stages of each name that it started.
        cached: The number of those that the store had.
    """

    def __init__(self, name: str, *, force: bool) -> None:
        super().__init__(name)
        self.force = force
        self.started: Counter[str] = Counter()
        self.cached: Counter[str] = Counter()
        self.results: dict[str, Future[Artefact]] = {}

    def submit(self, job: Job) -> None:
        """Finds or starts the stage of a job, unless it has come up before."""
        args, kwargs = job.args
        work = Work(job.get_option("stage"), *args, **kwargs)
        if work.key not in self.results:
            self.results[work.key] = Future()
            if artefact := self._stored(work):
                self.cached[work.stage.name] += 1
                self.results[work.key].set_result(artefact)
            else:
                self.started[work.stage.name] += 1
                self._run(work)
        self.results[work.key].add_done_callback(partial(self._hand_on, job))

    def _stored(self, work: Work) -> Artefact | None:
        """Returns the artefact of a stage if the store has it."""
        name, record = work.stage.name, None
        with suppress(OSError):  # the stage asks the store again, with retries
            record = None if self.force else store.find(name, work.key)
        return record and Artefact(name, work.key, record)

    @abstractmethod
    def _run(self, work: Work) -> None:
        """Starts a stage, whose result goes into ``results``."""

    def _hand_on(self, job: Job, future: Future[Artefact]) -> None:
        """Passes the result of a stage to redun."""
        assert self._scheduler is not None
        if error := future.exception():
            self._scheduler.reject_job(job, failure(error))
        else:
            self._scheduler.done_job(job, future.result())


class DryExecutor(StoreExecutor):
    """Runs nothing: a stage that is not in the store has an artefact without content."""

    def _run(self, work: Work) -> None:
        record = store.Record(digest=work.key, size=0, run_id="")
        self.results[work.key].set_result(Expected(work.stage.name, work.key, record))


class StageExecutor(StoreExecutor):
    """Runs stages one by one in the driver.

    Arguments:
        name: The name by which stages choose it.
        engine: The context, the retries and the display of the run.
    """

    def __init__(self, name: str, engine: "Engine") -> None:
        super().__init__(name, force=engine.force)
        self.engine, self.stopped = engine, threading.Event()

    def connect(self) -> Any:  # noqa: ANN401
        """Starts what its stages need, without waiting for it: nothing here."""

    def _run(self, work: Work) -> None:
        self._warn_if_corrupt(work.stage.name, work.key)
        self._tell(work.stage.name, work.key)
        self._attempt(work, 0)

    def _warn_if_corrupt(self, stage: str, key: str) -> None:
        with suppress(OSError):
            if not self.force and store.has_record(stage, key):
                place = store.location(store.artefact(stage, key))
                self.engine.progress.note(stage, f"{place}: {store.CORRUPT}; it is made again")

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.started(stage, key)

    def _attempt(self, work: Work, number: int) -> None:
        """Starts a stage; the first attempt has the number 0."""
        try:
            context = replace(self.engine.context, show=self.engine.progress.report)
            future = self._start(work, {"context": context, "again": number > 0})
        except Exception as error:  # noqa: BLE001  (handled as a failure of the stage)
            future = Future()
            future.set_exception(error)
        future.add_done_callback(partial(self._done, work, number))

    def _start(self, work: Work, settings: dict[str, Any]) -> Future[Artefact]:
        future: Future[Artefact] = Future()
        future.set_result(call(work, **settings))
        return future

    def _done(self, work: Work, number: int, future: Future[Artefact]) -> None:
        error = future.exception()
        if error is None or not self._to_try_again(number, error):
            self._ended(work, future)
            return
        log.warning("%s failed, and is tried again", work.stage.name, exc_info=error)
        pause = self.engine.retries.before(number)
        # A thread of its own: other stages run meanwhile.
        timer = threading.Timer(pause, self._again, [work, number + 1])
        timer.daemon = True
        timer.start()
        failed = f"{in_one_line(error)}; tried again in {pause:g} s"
        self.engine.progress.note(work.stage.name, failed)

    def _to_try_again(self, number: int, error: BaseException) -> bool:
        """True if an error may pass; stages that are interrupted fail too."""
        stopping = interrupted() or self.stopped.is_set()
        return number < self.engine.retries.count and not stopping and is_transient(error)

    def _again(self, work: Work, number: int) -> None:
        if not self.stopped.is_set():
            self._attempt(work, number)

    def _ended(self, work: Work, future: Future[Artefact]) -> None:
        """Sets the result even if the display raises: redun would wait for ever."""
        if error := future.exception():
            log.error("%s failed", work.stage.name, exc_info=error)
            self.results[work.key].set_exception(error)
            return
        try:
            self.engine.progress.finished(work.stage.name, work.key)
        finally:
            self.results[work.key].set_result(future.result())

    def stop(self) -> None:
        """Prevents retries."""
        self.stopped.set()


class RayExecutor(StageExecutor):
    """Submits every stage that is ready to Ray, with the resources it needs.

    Ray starts in this machine, or is joined at ``RAY_ADDRESS``, while the driver prepares the
    first stage.
    """

    def __init__(self, name: str, engine: "Engine") -> None:
        super().__init__(name, engine)
        self.running: list[Any] = []
        self.connecting = threading.Lock()
        self.connection: Future[Connection] | None = None
        self.listener: threading.Thread | None = None

    def connect(self) -> Future[Connection]:
        """Starts Ray, unless that is done; returns without waiting for it."""
        with self.connecting:
            if self.connection is None:
                self.connection = RAY.submit(start)
            return self.connection

    def _tell(self, stage: str, key: str) -> None:
        self.engine.progress.queued(stage, key)

    def _start(self, work: Work, settings: dict[str, Any]) -> Future[Artefact]:
        connection = self.connect().result()
        _take_back_sigterm()
        options = ray_options(work.needs) | _place(work.stage)
        settings |= {"context": replace(settings["context"], show=connection.messages)}
        reference = _remote_call().options(**options).remote(work, **settings)
        self._listen(connection)
        self.running.append(reference)
        return reference.future()

    def _again(self, work: Work, number: int) -> None:
        """Starts Ray again, too, if that has failed."""
        with self.connecting:
            failed = self.connection and self.connection.done() and self.connection.exception()
            self.connection = None if failed else self.connection
        super()._again(work, number)

    def _listen(self, connection: Connection) -> None:
        """Shows the messages of stages from a thread."""
        with self.connecting:
            if self.listener is None:
                words = (self.engine.progress.report, self.stopped)
                deliver = connection.messages.deliver
                self.listener = threading.Thread(target=deliver, args=words, daemon=True)
                self.listener.start()

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        super().stop()
        try:
            if self.running:
                cancel(self.running)
        finally:
            if self.listener is not None:
                self.listener.join()
            if self.connection is not None:
                RAY.submit(_left, self.connection, self.running)


def _left(connection: Future[Connection], running: Sequence[Any]) -> None:  # noqa: ARG001
    """Leaves Ray; a reference that is dropped at that moment would end the process."""
    if connection.exception() is None:
        leave(connection.result())


def _take_back_sigterm() -> None:
    """Installs Python's handler again: that of Ray aborts, so nothing would be saved."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@cache
def _remote_call() -> Any:  # noqa: ANN401
    """Returns the remote function of all stages: Ray exports each remote function to all nodes."""
    import ray

    return ray.remote(max_retries=0)(call)


def _place(stage: Stage) -> dict[str, Any]:
    """Returns the options of Ray that put a stage on the driver's node, if it must run there."""
    if not stage.on_driver_node:
        return {}
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


log = logging.getLogger("ebflow.engine")
