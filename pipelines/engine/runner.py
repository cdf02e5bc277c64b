"""One run of a pipeline: checked, planned, or executed, with its results in one folder."""

import hashlib
import json
import logging
import math
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.connection import Connection, cancel, largest_node, leave, start, this_node
from pipelines.cluster.environment import log_to
from pipelines.config.files import dump
from pipelines.engine.pipeline import Run
from pipelines.engine.reasons import reasons
from pipelines.engine.stages import Artefact, Context, Work, call
from pipelines.errors import StageFailed, TransientFailure, in_one_line
from pipelines.reporting.result import markdown
from pipelines.reporting.terminal import Progress
from pipelines.store import bucket
from pipelines.store.files import check_writable, without_password, write_json
from pipelines.tracking import backend

if TYPE_CHECKING:
    from pipelines.engine.graphs import Outcome
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker

# Names that results have.
RESULTS = ("summary.json", "checkpoint", "figures", "report.html", "config.yaml", "best.yaml",
           "trials.json")  # fmt: skip
DRAFT = ".draft-"  # The start of the name of a folder of results that is being written

REPORT = "ebflow.report"  # The tag of a command's run that has the key of its report

# Starts and leaves Ray, whose processes end with the thread that started them. A process has one
# connection to Ray at a time.
RAY = ThreadPoolExecutor(1, "ray")

log = logging.getLogger("ebflow.engine")


class Session:
    """A run in progress.

    The first stage that is not cached creates the MLflow run, and starts Ray at the same time.

    Attributes:
        tracked: The MLflow run; None: it is not created.
    """

    def __init__(self, run: Run, key: str, progress: Progress) -> None:
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
        return Context(self.tracker, parent, run.command, run.name, run.force, show)

    @cached_property
    def tracker(self) -> "Tracker":
        """The experiment in MLflow."""
        from pipelines.tracking.tracker import connect

        with backend.announced(self.progress.console.print):
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
        tracker.reclaim_last(run.name)
        tags = {"ebflow.role": "pipeline", "ebflow.name": run.name, **description.tags}
        if run.recipe:
            tags["ebflow.recipe"] = run.recipe
        run_id = tracker.start(title(run, description.parts), tags)
        self.tracked = self.stack.enter_context(tracker.run(run_id, run.command))
        line = f"MLflow run {run_id} at {without_password(tracker.client.tracking_uri)}"
        log.info(line)  # `ebflow logs` searches for it
        self.progress.console.print(line, soft_wrap=True)
        self.tracked.describe(description.about)
        return self.tracked


def title(run: Run, parts: Iterable[str]) -> str:
    """Returns the name in MLflow, each part of which is there once."""
    recipe = [] if run.recipe in (None, run.name, *parts) else [f"recipe {run.recipe}"]
    return " · ".join([run.name, *(part for part in [*parts, *recipe] if part not in run.name)])


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

    Ray calls it again if its process dies, or after a transient error of a disk, the network or
    MLflow.
    This machine cannot grow: here, a stage gets no more CPUs than there are.
    """
    needs = work.needs
    cpus = needs["CPU"]
    if environment.embedded() or math.isinf(cpus):
        cpus = min(cpus, largest_node())
    options = {
        "num_cpus": cpus,
        "num_gpus": needs.get("GPU", 0),
        "memory": needs.get("memory", 0),
        "resources": {kind: n for kind, n in needs.items() if kind.startswith("accelerator")},
        "max_retries": retries,
        "retry_exceptions": [OSError, TransientFailure],
    }
    if work.stage.on_driver_node:
        options["scheduling_strategy"] = this_node()
    return options


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks a run without writing anything; returns the inputs of its graph.

    Raises:
        BadInput: At the first option, variable or file that is wrong.
    """
    for option, folder in (("--output", run.output), ("EBFLOW_HOME", store.home())):
        check_writable(option, folder)
    _check_replaceable(run.output)
    (backend.shared_uri if "RAY_ADDRESS" in os.environ else backend.uri)()
    bucket.check(store.home(), run.output)
    return run.pipeline.check(run.config)


def _check_replaceable(output: Path) -> None:
    """Raises BadInput if a folder has files with the names of results that no run left."""
    wrong = [output / name for name in RESULTS if (output / name).exists()]
    with suppress(OSError, RecursionError, TypeError, ValueError):
        if "mlflow_run_id" in json.loads((output / "summary.json").read_text()):
            return
    if wrong:
        found = f"{wrong[0]}, which no run left"
        raise BadInput(option="--output", found=found, expected="none")


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage if it would run or is cached; writes nothing."""
    from pipelines.engine import graphs  # bad input must not wait for redun

    found = graphs.plan(run.pipeline.graph(run.config, inputs), force=run.force)
    planned = {stage: status.text("run") for stage, status in found.statuses.items()}
    for stage, reason in reasons(found.started, run.name, found.keys).items():
        planned[stage] += f": {reason}"
    others = {} if found.value is not None else {"others": "depend on the results of these"}
    return planned | others


def execute(run: Run, inputs: object, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    key, line = run.key(inputs), "another process runs the same pipeline: waiting for it"
    with (
        store.lock(f"run-{key}", waiting=lambda: console.print(line)),
        backend.mlflow_errors(),
        Progress(console) as progress,
        Session(run, key, progress) as session,
    ):
        log_to(log_file(run))
        outcome = _evaluated(session, inputs)
        session.leave()
        progress.started("track", "")
        with _locked(run.output):
            summary = publish(session, outcome)
            progress.finished("track", "")
            if bucket.url():
                console.print(f"results also at {_upload(run)}", soft_wrap=True)
        return summary


def _evaluated(session: Session, inputs: object) -> "Outcome":
    """Returns the outcome of the graph of a run; runs nothing if all is cached."""
    from pipelines.engine import graphs

    run = session.run
    with store.lock("prune", shared=True):  # it sees all marks of this run, or deletes before
        found = graphs.plan(run.pipeline.graph(run.config, inputs), force=run.force, dry=False)
    if found.is_cached:
        return found
    works = found.ready if run.resume else found.started
    for stage, reason in reasons(works, run.name, found.keys).items():
        if run.resume:
            changed, expected = f"stage {stage}: {reason}", "no change since the interruption"
            raise BadInput(option="--resume", found=changed, expected=expected)
        session.progress.note(stage, f"runs again: {reason}")
    graph = run.pipeline.graph(run.config, inputs)
    try:
        return graphs.evaluate(graph, session.start, force=run.force, output=run.output)
    except StageFailed:
        with suppress(OSError):  # the stage's own error is the one to report
            _save_without_report(session, run.pipeline.graph(run.config, inputs))
        raise


def _save_without_report(session: Session, graph: Mapping[str, Any]) -> None:
    """Writes the other files of a run whose report failed, such as the checkpoint."""
    from pipelines.engine import graphs

    others = {name: stage for name, stage in graph.items() if name != "report"}
    found = graphs.plan(others)
    if others and found.is_cached:
        with _locked(session.run.output):
            publish(session, found)


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Holds the lock of a folder of results; deletes the drafts of processes that were killed."""
    place = hashlib.sha256(str(output.resolve()).encode()).hexdigest()
    with store.lock(f"output-{place}"):
        for draft in output.glob(DRAFT + "*"):
            shutil.rmtree(draft)
        yield


def publish(session: Session, outcome: "Outcome") -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary.

    A run whose report failed has a summary without results.
    """
    run, report = session.run, outcome.value.get("report")
    summary = {
        **(json.loads((report.path / "summary.json").read_text()) if report else {}),
        "name": run.name,
        "artefacts": {
            stage: places[0] if len(places) == 1 else places
            for stage, places in outcome.by_stage("location").items()
        },
        "config": run.config.model_dump(mode="json"),
        "command": run.command,
        "mlflow_run_id": session.run_id(report),
    }
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=run.output) as folder:
        draft = Path(folder) / "results"
        draft.mkdir()
        if report:
            shutil.copytree(report.path, draft, dirs_exist_ok=True)
        run.pipeline.add_files(outcome.value, draft)
        (draft / "summary.json").unlink(missing_ok=True)
        files = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", {**summary, **files})
        places = _moved(draft, run.output)
    if report and session.tracked is not None:
        _log(session, session.tracked, outcome, summary, places)
    stages = {stage: status.text() for stage, status in outcome.statuses.items()}
    return {**summary, **files, "stages": stages, "files": files}


def _moved(draft: Path, output: Path) -> list[Path]:
    """Moves the results to their places, in place of earlier ones; returns these places.

    The summary is first: it shows that a run left the files, even if a kill ends this.
    """
    names = sorted((one.name for one in draft.iterdir()), key=lambda n: (n != "summary.json", n))
    places = [output / name for name in names]
    for place in places:
        if place.is_dir():
            shutil.rmtree(place)
        (draft / place.name).replace(place)
    return places


def _log(
    session: Session,
    tracked: "StageRun",
    outcome: "Outcome",
    summary: Mapping[str, Any],
    places: Iterable[Path],
) -> None:
    """Logs stages, configuration, numbers and files to MLflow; the model has the checkpoint."""
    run, metrics = session.run, summary["metrics"]
    stages = outcome.by_stage("run_id").items()
    tags = {f"ebflow.stage.{stage}": " ".join(run_ids) for stage, run_ids in stages}
    tracked.set_tags({REPORT: outcome.value["report"].key, **tags})
    tracked.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, tracked)
    for path in places:
        if path.name != "checkpoint":
            tracked.log_artifacts(path, path.name if path.is_dir() else None)
    tracked.log_metrics({name: summary[name] for name in metrics})
    numbers = {name: n for name, n in summary.items() if isinstance(n, int | float)}
    tracked.log_params({name: n for name, n in numbers.items() if name not in metrics})
    tracked.describe(run.pipeline.describe(run.config).about, markdown(summary))


def _upload(run: Run) -> str:
    """Copies the results to where all nodes see them; returns the place."""
    place = store.home() / "runs" / run.pipeline.name / run.name
    try:
        bucket.remove(place)
        bucket.upload(run.output, place)
    except OSError as error:
        raise StageFailed(f"{store.location(place)}: {in_one_line(error)}") from error
    return store.location(place)


def log_file(run: Run) -> Path:
    """Returns the file that what happens is written to."""
    return store.home() / "logs" / f"{run.name}.log"
