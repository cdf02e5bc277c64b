"""Attempts to run stages, in the driver or on Ray: again after failures that may pass."""

import logging
import math
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.connection import Connection, cancel, largest_node, leave, start
from pipelines.engine.calls import Context, call
from pipelines.engine.pipeline import Retries
from pipelines.engine.stages import Artefact, Work
from pipelines.errors import in_one_line, innermost
from pipelines.interruption import interrupted
from pipelines.tracking.backend import is_permanent

if TYPE_CHECKING:
    from pipelines.cluster.messages import Show
    from pipelines.reporting.terminal import Progress

RAY = ThreadPoolExecutor(1, "ray")
"""Starts and leaves Ray, whose processes end with the thread that started them. A process has one
connection to Ray at a time.
"""


class Ray:
    """The Ray of a run: it starts in this machine, or is joined at ``RAY_ADDRESS``.

    Arguments:
        show: Shows the messages of stages.
    """

    def __init__(self, show: "Show") -> None:
        self.show, self.stopped, self.lock = show, threading.Event(), threading.Lock()
        self.running: list[Any] = []
        self.connection: Future[Connection] | None = None
        self.listener: threading.Thread | None = None

    def connect(self) -> Future[Connection]:
        """Starts Ray, unless that is done or under way; returns without waiting for it."""
        with self.lock:
            found = self.connection
            if found is None or (found.done() and found.exception() is not None):
                self.connection = RAY.submit(self._open)
            return self.connection

    def _open(self) -> Connection:
        connection = start()
        arguments = (self.show, self.stopped)
        deliver = connection.messages.deliver
        listener = threading.Thread(target=deliver, args=arguments, daemon=True)
        listener.start()
        self.listener = listener  # ``stop`` joins it
        return connection

    def call(self, work: Work, *, context: Context, again: bool) -> Future[Artefact]:
        """Starts a stage as a task with the resources it needs."""
        context = replace(context, show=self.connect().result().messages)
        task = _remote_call().options(**ray_options(work))
        with self.lock:
            if self.stopped.is_set():  # Ray would start again
                raise CancelledError
            reference = task.remote(work, context=context, again=again)
            self.running.append(reference)
        return reference.future()  # not by ray.get, which Ray's shutdown would break

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        with self.lock:
            self.stopped.set()
        try:
            if self.running:
                cancel(self.running)
        finally:
            if self.listener is not None:
                self.listener.join()
            if self.connection is not None:
                RAY.submit(self._leave, self.connection)

    def _leave(self, connection: Future[Connection]) -> None:
        """Leaves Ray. References in ``running`` stay: one that is dropped ends the process."""
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


def ray_options(work: Work) -> dict[str, Any]:
    """Returns the options of a stage's task in Ray.

    This machine cannot grow: here, a stage gets no more CPUs than there are.
    """
    needs = work.needs
    cpus = needs["CPU"]
    if environment.embedded() or math.isinf(cpus):
        cpus = min(cpus, largest_node())
    amounts = {
        "num_cpus": cpus,
        "num_gpus": needs.get("GPU", 0),
        "memory": needs.get("memory", 0),
    }
    return amounts | (_driver_node() if work.stage.on_driver_node else {})


def _driver_node() -> dict[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


class Attempts:
    """Starts stages, and tries them again after failures that may pass.

    Arguments:
        open_context: Called once, before the first stage that runs, while Ray starts.
        progress: Displays the stages that run.
        retries: How often a stage is tried again.
        force: True if stages run again that are finished.
    """

    def __init__(
        self,
        open_context: Callable[[], Context],
        progress: "Progress",
        *,
        retries: Retries,
        force: bool = False,
    ) -> None:
        self.open_context, self.progress = open_context, progress
        self.retries, self.force = retries, force
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.context: Context | None = None
        self.ray = Ray(progress.report)

    def __enter__(self) -> "Attempts":
        return self

    def __exit__(self, *error: object) -> None:
        """Prevents retries, cancels what still runs, and leaves Ray."""
        self.stopped.set()
        self.ray.stop()

    def __call__(self, work: Work) -> Future[Artefact]:
        """Starts a stage; the future gets its artefact, or its last failure."""
        result: Future[Artefact] = Future()
        self._warn_if_corrupt(work.stage.name, work.key)
        if work.stage.executor == "driver":
            self.progress.started(work.stage.name, work.key)
        else:
            self.progress.queued(work.stage.name, work.key)
            wait([self.ray.connect()])
            _take_back_sigterm()
        self._attempt(work, result, 0)
        return result

    def _warn_if_corrupt(self, stage: str, key: str) -> None:
        with suppress(OSError):
            if not self.force and store.has_record(stage, key):
                place = store.location(store.artefact(stage, key))
                self.progress.note(stage, f"{place}: {store.CORRUPT}; it is recomputed")

    def _attempt(self, work: Work, result: Future[Artefact], number: int) -> None:
        """Starts a stage; the first attempt has the number 0."""
        try:
            attempt = self._start(work, again=number > 0)
        except Exception as error:  # noqa: BLE001  (handled as a failure of the stage)
            attempt = Future()
            attempt.set_exception(error)
        attempt.add_done_callback(partial(self._done, work, result, number))

    def _start(self, work: Work, *, again: bool) -> Future[Artefact]:
        context = self._context()
        if work.stage.executor != "driver":
            return self.ray.call(work, context=context, again=again)
        done: Future[Artefact] = Future()
        done.set_result(call(work, context=context, again=again))
        return done

    def _done(
        self, work: Work, result: Future[Artefact], number: int, attempt: Future[Artefact]
    ) -> None:
        """Sets the result, unless the stage is tried again, whatever the display does."""
        name, error = work.stage.name, attempt.exception()
        if error is None:
            with suppress(Exception, SystemExit):  # a pipe that is closed ends rich by SystemExit
                self.progress.finished(name, work.key)
            result.set_result(attempt.result())
        elif self._is_tried_again(number, error):
            log.warning("%s failed, and is tried again", name, exc_info=error)
            pause = self.retries.before(number)
            # A thread of its own: other stages run at the same time.
            timer = threading.Timer(pause, self._again, [work, result, number + 1, error])
            timer.daemon = True
            timer.start()
            with suppress(Exception, SystemExit):
                self.progress.note(name, f"{in_one_line(error)}; tried again in {pause:g} s")
        else:
            log.error("%s failed", name, exc_info=error)
            result.set_exception(error)

    def _is_tried_again(self, number: int, error: BaseException) -> bool:
        """True if an error may pass; stages that are interrupted fail too."""
        stopping = interrupted() or self.stopped.is_set()
        return number < self.retries.count and not stopping and is_transient(error)

    def _again(
        self, work: Work, result: Future[Artefact], number: int, error: BaseException
    ) -> None:
        if self.stopped.is_set():
            result.set_exception(error)
        else:
            self._attempt(work, result, number)

    def _context(self) -> Context:
        """Returns the context of the stages that run; opens it once."""
        self.ray.connect()
        with self.lock:
            if self.context is None:
                self.context = replace(self.open_context(), show=self.progress.report)
            return self.context


def is_transient(error: BaseException) -> bool:
    """True if a failure may pass: of a disk, of the network, of MLflow, or a lost node.

    Bad input and divergence do not pass, nor a training whose workers were restarted in vain.
    """
    from mlflow.exceptions import MlflowException
    from ray.exceptions import RayError, RayTaskError, TaskCancelledError

    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return not isinstance(error, TaskCancelledError)
    cause = innermost(error)
    if isinstance(cause, MlflowException):
        return not is_permanent(cause)
    return isinstance(cause, OSError)


log = logging.getLogger("ebflow.engine")
