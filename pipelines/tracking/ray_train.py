"""A callback of Ray Train that tracks any training loop in MLflow.

Its requirements, quoted below, are those of three issues:

* https://github.com/ray-project/ray/issues/64179 "Add native MLflow integration for Ray Train v2"
* https://github.com/ray-project/ray/issues/64253 "Add native MLflowLoggerCallback for Train v2"
* https://github.com/mlflow/mlflow/issues/12532 "Support for distributed training"
"""

import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Real
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import ray.train
from mlflow import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from ray.train.v2._internal.execution.callback import ControllerCallback

from pipelines import metrics_log
from pipelines.errors import in_one_line, root, without_login
from pipelines.tracking.meter import Meter
from pipelines.tracking.run import NOTE, Reporter, StageRun, flat
from pipelines.tracking.tracker import experiment_id

__all__ = ["MLflowCallback", "Meter", "by_rank", "failures"]

OF_RANKS = ("time/", "memory/")  # Beginnings of the names of metrics that are logged of each rank
HOOKS = "RAY_TRAIN_CALLBACKS"  # Ray Train's variable of callbacks that every controller gets
REFUSED = re.compile(r"[^\w\-./: ]")  # Characters that MLflow does not allow in a name

# Ends a run as killed if this process ends before it writes a line. A shell waits, as Python
# would need memory. It is no child of this process, so Ray does not end both.
WATCH = 'exec 3<&0; (read -r _ <&3 || exec "$@") >/dev/null 2>&1 &'
KILLED = "import mlflow, sys; mlflow.MlflowClient().set_terminated(*sys.argv[1:])"

logger = logging.getLogger(__name__)


class MLflowCallback(ray.train.UserCallback):
    """Tracks a training of Ray Train as one run of MLflow, from Ray Train's controller.

    * The run ends as finished, failed or killed ("full run lifecycle", 64253). Restarted workers,
      and a later ``fit`` with the same name and storage, continue it ("duplicate MLflow runs
      created on failure restart", 64179).
    * A thread talks to MLflow, whose absence delays nothing ("graceful degradation", 64253).
    * Parameters are ``train_loop_config`` ("nested dict flattening", 64253), metrics those of rank
      0 by the number of the report. Values that are not finite become notes ("NaN/Inf filtering",
      64253). Times and memory are of each rank ("per rank metric collection", MLflow 12532).
    * The last and the best of the checkpoints that Ray Train saves are artefacts ("missing system
      tags and checkpoint artifacts", 64179).

    Arguments:
        experiment: Name of the experiment.
        metric: Metric of the best checkpoint; None: only the last is an artefact.
        mode: ``min`` or ``max``.
    """

    def __init__(
        self, experiment: str = "ray-train", *, metric: str | None = None, mode: str = "min"
    ) -> None:
        self.experiment, self.metric, self.mode = experiment, metric, mode
        self.uri, self.tags, self.id = mlflow.get_tracking_uri(), resolve_tags(), uuid4().hex
        hooks = {*os.environ.get(HOOKS, "").split(","), f"{__name__}.LifeCycle"}
        os.environ[HOOKS] = ",".join(sorted(filter(None, hooks)))

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object
    ) -> None:
        """Logs what all workers reported."""
        tracked(self, run_context).do("report", metrics, checkpoint is not None)

    def after_exception(
        self, run_context: object, worker_exceptions: dict[int, Exception]
    ) -> None:
        """Notes the failure of workers."""
        tracked(self, run_context).do("note", failures(worker_exceptions))


class LifeCycle(ControllerCallback):
    """Starts and ends runs: these hooks are missing in ``UserCallback`` (Ray issue 64252)."""

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401
        """Starts the runs."""
        callbacks = train_run_context.run_config.callbacks
        ours = (one for one in callbacks if isinstance(one, MLflowCallback))
        self.runs = [tracked(one, train_run_context) for one in ours]

    def before_controller_execute_resize_decision(self, resize_decision: object) -> None:
        """Goes back to the last checkpoint, as new workers do."""
        for run in self.runs:
            run.do("restart")

    def after_controller_finish(self, result: ray.train.Result) -> None:
        """Ends the runs."""
        for run in self.runs:
            run.end("FINISHED" if result.error is None else "FAILED", result)

    def before_controller_abort(self) -> None:
        """Ends the runs of a driver that was interrupted."""
        for run in self.runs:
            run.end("KILLED")


RUNS: dict[tuple[str, str], "TrackedRun"] = {}


def tracked(settings: MLflowCallback, context: Any) -> "TrackedRun":  # noqa: ANN401
    """Returns the run of a callback and a training, of which the controller has copies."""
    key = (settings.id, context.run_id)
    if key not in RUNS:
        RUNS[key] = TrackedRun(settings, context)
    return RUNS[key]


class TrackedRun:
    """The run of a training, in its controller; a thread does in turn what it is asked to.

    The folder of the training has the rows as of its last checkpoint, with the id of the run.
    """

    def __init__(self, settings: MLflowCallback, context: Any) -> None:  # noqa: ANN401
        self.settings, self.context, self.run, self.notes = settings, context, None, []
        self.odd: set[str] = set()
        storage = context.run_config.storage_context
        self.files, place = storage.storage_filesystem, storage.experiment_fs_path
        self.place = f"{place}/{metrics_log.FILE}"
        self.thread = ThreadPoolExecutor(1)
        self.do("start")

    def do(self, task: str, *words: object) -> Future:
        """Lets the thread do something; an error becomes a warning."""

        def warn(done: Future) -> None:
            if error := done.exception():
                logger.warning("MLflow: %s", without_login(str(root(error))))

        future = self.thread.submit(getattr(self, task), *words)
        future.add_done_callback(warn)
        return future

    def start(self) -> None:
        """Reads the rows of an earlier controller, and connects."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        file = Path(tempfile.mkdtemp(prefix="ray-train-")) / metrics_log.FILE
        if self.files.get_file_info(self.place).is_file:
            with self.files.open_input_stream(self.place) as stream:
                file.write_bytes(stream.read())
        self.reporter, rows = Reporter(file), metrics_log.read(file)
        last = rows[-1] if rows else {"saved": 0, "run": None}
        self.reports, self.saved, self.run_id = last["saved"], last["saved"], last["run"]
        self.connect()

    def connect(self) -> None:
        """Starts the run, or continues that of an earlier controller if MLflow still has it."""
        client, name = MlflowClient(self.settings.uri), self.context.run_config.name
        experiment = experiment_id(client, self.settings.experiment)
        if not client.search_runs([experiment], f"attributes.run_id = '{self.run_id}'"):
            run = client.create_run(experiment, run_name=name, tags=self.settings.tags)
            self.run_id = run.info.run_id
        client.update_run(self.run_id, status="RUNNING")
        run, data = StageRun(client, self.run_id), client.get_run(self.run_id).data
        self.notes[:0] = filter(None, data.tags.get(NOTE, "").split("\n\n"))
        params = {_name(name): v for name, v in flat(self.context.train_loop_config or {})}
        run.log_params({name: v for name, v in params.items() if name not in data.params})
        run.complete(metrics_log.read(self.reporter.file), renew=False)
        command = ["sh", "-c", WATCH, "sh", sys.executable, "-c", KILLED, run.id, "KILLED"]
        options = {"stdin": subprocess.PIPE, "start_new_session": True}
        env = {**os.environ, "MLFLOW_TRACKING_URI": self.settings.uri}  # no password in a list
        self.watch = subprocess.Popen(command, env=env, **options)
        self.watch.wait()  # the shell behind it waits for the pipe
        self.run = self.reporter.run = run

    def report(self, metrics: Sequence[Mapping[str, Any]], saved: bool) -> None:
        """Logs a report of all ranks."""
        self.reports += 1
        self.saved = self.reports if saved else self.saved
        values = by_rank(metrics)
        for name in [name for name, value in values.items() if not math.isfinite(value)]:
            value = values.pop(name)
            if name not in self.odd:  # the first of each metric
                self.odd.add(name)
                self.do("note", f"step {self.reports}: {name} is {value}")
        more = {"metrics": values, "saved": self.saved, "run": self.run_id}
        self.reporter.log([metrics_log.row("log", self.reports, 0.0, **more)])
        if saved:
            self.save()

    def note(self, line: str) -> None:
        """Adds a line to the description of the run."""
        logger.warning(line)
        self.notes.append(line)
        if self.run is not None:
            self.run.describe(*self.notes)

    def restart(self) -> None:
        """Goes back to the last checkpoint."""
        self.reports = self.saved

    def save(self) -> None:
        """Writes the rows into the folder of the training."""
        with self.files.open_output_stream(self.place) as stream:
            stream.write(self.reporter.file.read_bytes())

    def end(self, status: str, result: ray.train.Result | None = None) -> None:
        """Ends the run when the thread has done all else."""
        failed = self.do("close", status, result).exception()
        if self.run is not None and failed is None:
            self.watch.stdin.write(b"ended\n")
        if self.run is not None:
            self.watch.stdin.close()
        shutil.rmtree(self.reporter.file.parent, ignore_errors=True)

    def close(self, status: str, result: ray.train.Result | None) -> None:
        """Sends what MLflow lacks, and ends the run."""
        if self.run is None:
            self.connect()
        try:
            self.save()
            self.run.complete(metrics_log.read(self.reporter.file), renew=False)
            for name, checkpoint in self._checkpoints(result):
                with checkpoint.as_directory() as folder:
                    self.run.log_artifacts(Path(folder), f"checkpoints/{name}")
            self.run.describe(*self.notes)
        finally:
            self.run.client.set_terminated(self.run.id, status)

    def _checkpoints(self, result: Any) -> Iterator[tuple[str, ray.train.Checkpoint]]:  # noqa: ANN401
        """Yields the last checkpoint, and the best of those that Ray Train saved."""
        if result is not None and result.checkpoint is not None:
            yield "last", result.checkpoint
            best = min if self.settings.mode == "min" else max
            found = [(m.get(self.settings.metric), kept) for kept, m in result.best_checkpoints]
            scored = {x: kept for x, kept in found if x is not None and math.isfinite(x)}
            if scored:
                yield "best", scored[best(scored)]


def by_rank(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the numbers that rank 0 reported, and times and memory of each rank, flat."""
    named = {n: v for n, v in flat(reports[0]) if not n.startswith(OF_RANKS)}
    for rank, report in enumerate(reports):
        named |= {f"rank_{rank}/{n}": v for n, v in flat(report) if n.startswith(OF_RANKS)}
    return {_name(name): float(v) for name, v in named.items() if isinstance(v, Real)}


def failures(errors: Mapping[int, Exception]) -> str:
    """Returns the errors of workers that failed together, in one line."""
    return "; ".join(f"worker {rank}: {in_one_line(errors[rank])}" for rank in sorted(errors))


def _name(name: str) -> str:
    """Returns a name that MLflow allows."""
    return REFUSED.sub("_", name)[:250]
