"""Stages that are not cached, run in the driver or as tasks of Ray, which starts for the first."""

import logging
import math
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.connection import Connection, cancel, largest_node, leave, start
from pipelines.engine.calls import Context, call
from pipelines.engine.stages import Artefact, Work

if TYPE_CHECKING:
    from pipelines.reporting.terminal import Progress

RAY = ThreadPoolExecutor(1, "ray")
"""Starts and leaves Ray, whose processes end with the thread that started them. A process has one
connection to Ray at a time.
"""


class Tasks:
    """Starts the stages of a run, and cancels those that still run at its end.

    Arguments:
        open_context: Called once, before the first stage that runs, while Ray starts.
        progress: Displays the stages that run.
    """

    def __init__(self, open_context: Callable[[], Context], progress: "Progress") -> None:
        self.open_context, self.progress = open_context, progress
        self.running: list[Any] = []
        self.connection: Future[Connection] | None = None
        self.stopped = threading.Event()

    def __enter__(self) -> "Tasks":
        return self

    def __exit__(self, *error: object) -> None:
        """Cancels what still runs, and leaves Ray."""
        self.stopped.set()
        if self.connection is not None:
            try:
                cancel(self.running)
            finally:
                RAY.submit(self._leave, self.connection)

    @cached_property
    def context(self) -> Context:
        """The settings of the stages; Ray starts at the same time."""
        self.connection = RAY.submit(self._connect)
        return replace(self.open_context(), show=self.progress.report)

    def __call__(self, work: Work) -> Future[Artefact]:
        """Starts a stage; returns the future of its artefact.

        Raises:
            Exception: If MLflow or Ray cannot be reached, which ends the run.
        """
        self._prepare(work)
        context = self.context
        if work.stage.executor == "driver":
            self.progress.started(work.stage.name, work.key)
            future = _call_here(work, context)
        else:
            self.progress.queued(work.stage.name, work.key)
            assert self.connection is not None
            context = replace(context, show=self.connection.result().messages)
            _take_back_sigterm()
            options = ray_options(work, context.retries.count)
            reference = _remote_call().options(**options).remote(work, context)
            self.running.append(reference)
            future = reference.future()  # not by ray.get, which Ray's shutdown would break
        future.add_done_callback(partial(self._show_end, work))
        return future

    def _prepare(self, work: Work) -> None:
        """Removes the work of a stage that is forced; notes an artefact that is corrupt.

        The stage itself does neither: Ray calls it again if its process dies.
        """
        stage, key = work.stage.name, work.key
        if self.context.force:
            line = "another process runs it: waiting for it"
            with store.lock(f"{stage}-{key}", waiting=lambda: self.progress.note(stage, line)):
                store.forget(work.folder)
            return
        with suppress(OSError):
            if store.has_record(stage, key):
                place = store.location(store.artefact(stage, key))
                self.progress.note(stage, f"{place}: {store.CORRUPT}; it is recomputed")

    def _show_end(self, work: Work, future: Future[Artefact]) -> None:
        if error := future.exception():
            log.error("%s failed", work.stage.name, exc_info=error)
            return
        with suppress(Exception, SystemExit):  # a pipe that is closed ends rich by SystemExit
            self.progress.finished(work.stage.name, work.key)

    def _connect(self) -> Connection:
        connection = start()
        arguments = (self.progress.report, self.stopped)
        self.listener = threading.Thread(target=connection.messages.deliver, args=arguments)
        self.listener.daemon = True
        self.listener.start()
        return connection

    def _leave(self, connection: Future[Connection]) -> None:
        """Leaves Ray. References in ``running`` stay: one that is dropped ends the process."""
        if connection.exception() is None:
            self.listener.join()
            leave(connection.result())


def _call_here(work: Work, context: Context) -> Future[Artefact]:
    future: Future[Artefact] = Future()
    try:
        future.set_result(call(work, context))
    except Exception as error:  # noqa: BLE001  (redun hands it to the graph)
        future.set_exception(error)
    return future


def _take_back_sigterm() -> None:
    """Installs Python's handler again: that of Ray aborts, so nothing would be saved."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@cache
def _remote_call() -> Any:  # noqa: ANN401
    """Returns the remote function of all stages: Ray exports each remote function to all nodes."""
    import ray

    return ray.remote(call)


def ray_options(work: Work, retries: int = 0) -> dict[str, Any]:
    """Returns the options of a stage's task in Ray, which calls it again if its process dies.

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
        "max_retries": retries,
    }
    return amounts | (_driver_node() if work.stage.on_driver_node else {})


def _driver_node() -> dict[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


log = logging.getLogger("ebflow.engine")
