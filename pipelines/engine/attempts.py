"""Attempts to run stages, in the driver or on Ray: again after failures that may pass."""

import itertools
import logging
import math
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import cache
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
        self.show, self.stopped = show, threading.Event()
        self.running: list[Any] = []
        self.connection: Future[Connection] | None = None
        self.listener: threading.Thread | None = None

    def connect(self) -> Future[Connection]:
        """Starts Ray, unless that is done; returns without waiting for it."""
        if self.connection is None:
            self.connection = RAY.submit(self._open)
        return self.connection

    def _open(self) -> Connection:
        connection = start()
        words = (self.show, self.stopped)
        deliver = connection.messages.deliver
        self.listener = threading.Thread(target=deliver, args=words, daemon=True)
        self.listener.start()
        return connection

    def call(self, work: Work, *, context: Context, again: bool) -> Artefact:
        """Runs a stage as a task with the resources it needs."""
        context = replace(context, show=self.connect().result().messages)
        options = ray_options(work)
        reference = _remote_call().options(**options).remote(work, context=context, again=again)
        self.running.append(reference)
        return reference.future().result()  # not by ray.get, which Ray's shutdown would break

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
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
            self._run(call, work, result)
        else:
            self.progress.queued(work.stage.name, work.key)
            wait([self.ray.connect()])
            _take_back_sigterm()
            words = (self.ray.call, work, result)
            threading.Thread(target=self._run, args=words, daemon=True).start()
        return result

    def _warn_if_corrupt(self, stage: str, key: str) -> None:
        with suppress(OSError):
            if not self.force and store.has_record(stage, key):
                place = store.location(store.artefact(stage, key))
                self.progress.note(stage, f"{place}: {store.CORRUPT}; it is made again")

    def _run(self, run: Callable[..., Artefact], work: Work, result: Future[Artefact]) -> None:
        """Runs a stage, with retries; sets its result whatever happens, as redun waits for it."""
        name = work.stage.name
        for number in itertools.count():
            try:
                artefact = run(work, context=self._context(), again=number > 0)
                break
            except Exception as error:  # noqa: BLE001  (redun raises it)
                if not self._is_tried_again(name, number, error):
                    log.error("%s failed", name, exc_info=error)
                    result.set_exception(error)
                    return
        with suppress(Exception):  # the display
            self.progress.finished(name, work.key)
        result.set_result(artefact)

    def _is_tried_again(self, name: str, number: int, error: Exception) -> bool:
        """Waits for a retry, if the error may pass; stages that are interrupted fail too."""
        stopping = interrupted() or self.stopped.is_set()
        if number == self.retries.count or stopping or not is_transient(error):
            return False
        log.warning("%s failed, and is tried again", name, exc_info=error)
        pause = self.retries.before(number)
        self.progress.note(name, f"{in_one_line(error)}; tried again in {pause:g} s")
        return not self.stopped.wait(pause)

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
