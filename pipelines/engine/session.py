"""A run in progress: its MLflow run, its connection to Ray, and the stages that it starts."""

import logging
import math
import signal
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.connection import (
    Connection,
    cancel,
    largest_node,
    leave,
    start,
    this_node,
)
from pipelines.engine.calls import Context, call
from pipelines.engine.pipeline import Run
from pipelines.engine.stages import Artefact, Work
from pipelines.store.files import without_password

if TYPE_CHECKING:
    from pipelines.reporting.terminal import Progress
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker

REPORT = "ebflow.report"
"""The tag of a command's run that has the key of its report."""

RAY = ThreadPoolExecutor(1, "ray")
"""Starts and leaves Ray, whose processes end with the thread that started them. A process has one
connection to Ray at a time.
"""


class Session:
    """A run in progress.

    The first stage that is not cached creates the MLflow run, and starts Ray at the same time.

    Arguments:
        run: The run, as the user asks for it.
        key: Its key.
        progress: Displays the stages that run.

    Attributes:
        tracked: The MLflow run; None: it is not created.
    """

    def __init__(self, run: Run, key: str, progress: "Progress") -> None:
        self.run, self.key, self.progress = run, key, progress
        self.tracked: StageRun | None = None
        self.connection: Future[Connection] | None = None
        self.running: list[Any] = []
        self.stack = ExitStack()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        """Leaves Ray, and ends the MLflow run."""
        try:
            self.leave()
        finally:
            self.stack.__exit__(*error)

    def leave(self) -> None:
        """Cancels the stages that still run, and leaves Ray beside what this process does next."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                cancel(self.running)
            finally:
                RAY.submit(self._leave, connection)

    def _leave(self, connection: Future[Connection]) -> None:
        """Leaves Ray. References in ``running`` stay: one that is dropped ends the process."""
        leave(connection.result())

    def start(self, work: Work) -> Future[Artefact]:
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
            context = replace(context, show=self.connection.result().send)
            _take_back_sigterm()
            options = ray_options(work, self.run.retries)
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
        if self.run.force:
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

    @cached_property
    def context(self) -> Context:
        """The settings of the stages."""
        run, show = self.run, self.progress.report
        self.connection = RAY.submit(start, show)
        parent = self._track().id
        return Context(self.tracker, parent, run.command, run.force, show)

    @cached_property
    def tracker(self) -> "Tracker":
        """The experiment in MLflow."""
        from pipelines.tracking.tracker import connect

        tracker = connect(self.run.pipeline.name, self.key)
        tracker.reclaim()
        return tracker

    def run_id(self, report: Artefact | None) -> str:
        """Returns the id of the MLflow run: that of an earlier, equal command if all is cached."""
        if self.tracked is None and report is not None:
            tags = {"ebflow.role": "pipeline", REPORT: report.key}
            if earlier := self.tracker.runs("FINISHED", tags):
                return earlier[0].info.run_id
        return (self.tracked or self._track()).id

    def _track(self) -> "StageRun":
        """Creates the MLflow run."""
        run, tracker = self.run, self.tracker
        description = run.pipeline.describe(run.config)
        tags = {"ebflow.role": "pipeline", "ebflow.name": run.name, **description.tags}
        if run.recipe:
            tags["ebflow.recipe"] = run.recipe
        run_id = tracker.start(title(run, description.parts), tags)
        line = f"MLflow run {run_id} at {without_password(tracker.client.tracking_uri)}"
        self.progress.console.print(line, soft_wrap=True)
        self.tracked = self.stack.enter_context(tracker.run(run_id, run.command))
        self.tracked.describe(description.about)
        return self.tracked


def title(run: Run, parts: Iterable[str]) -> str:
    """Returns the name in MLflow, with each word once."""
    recipe = [] if run.recipe in (None, run.name, *parts) else [f"recipe {run.recipe}"]
    return " · ".join(dict.fromkeys([run.name, *parts, *recipe]))


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
    """Returns the options of a stage's task in Ray.

    Ray calls it again if its process dies, or after an error of a disk, the network or MLflow.
    This machine cannot grow: here, a stage gets no more CPUs than there are.
    """
    from mlflow.exceptions import MlflowException

    needs = work.needs
    cpus = needs["CPU"]
    if environment.embedded() or math.isinf(cpus):
        cpus = min(cpus, largest_node())
    options = {
        "num_cpus": cpus,
        "num_gpus": needs.get("GPU", 0),
        "memory": needs.get("memory", 0),
        "max_retries": retries,
        "retry_exceptions": [OSError, MlflowException],
    }
    if work.stage.on_driver_node:
        options["scheduling_strategy"] = this_node()
    return options


log = logging.getLogger("ebflow.engine")
