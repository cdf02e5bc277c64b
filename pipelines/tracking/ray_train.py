"""A callback of Ray Train that tracks any training loop in MLflow, and a meter for its workers.

The requirements are those of two issues of Ray and one of MLflow, quoted where they are met:

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
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Real
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import ray.train
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH
from pyarrow import fs
from ray.train.v2._internal.execution.callback import ControllerCallback

from pipelines import metrics_log
from pipelines.errors import in_one_line, root, without_login
from pipelines.store.files import without_password
from pipelines.tracking.backend import is_permanent
from pipelines.tracking.meter import Meter
from pipelines.tracking.run import NOTE, Reporter, StageRun, flat
from pipelines.tracking.tracker import experiment_id

PER_RANK = ("time/", "memory/")

HOOKS = "RAY_TRAIN_CALLBACKS"  # Ray Train's variable of callbacks that every controller gets

RETRY_S = 30.0  # Seconds between attempts to start a run while MLflow is away

REFUSED = re.compile(r"[^\w\-./: ]")  # Characters that MLflow does not allow in a name

# Ends a run as killed if this process ends before it writes a line. A shell waits, as Python
# would need memory. It is no child of this process, so Ray does not end both.
WATCH = 'exec 3<&0; (read -r _ <&3 || exec "$@") >/dev/null 2>&1 &'
KILLED = (
    "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).set_terminated(sys.argv[2], 'KILLED')"
)

__all__ = ["MLflowCallback", "Meter", "by_rank", "failures"]

logger = logging.getLogger(__name__)


class MLflowCallback(ray.train.UserCallback):
    """Tracks a training of Ray Train as one run of MLflow.

    Give it to ``ray.train.RunConfig(callbacks=[MLflowCallback("mine")])``. It runs in Ray Train's
    controller. A thread talks to MLflow, so that an absent server delays no step and fails no
    training ("graceful degradation", 64253). What did not arrive is sent at the end.

    * The run starts, ends as finished or failed, and ends as killed if Ctrl-C or a signal ends the
      driver ("full run lifecycle", 64253; "handle failure states", 64179).
    * Restarted workers, and a later ``fit`` with the same ``name`` and ``storage_path``, continue
      the same run ("duplicate MLflow runs created on failure restart", 64179).
    * Parameters are ``train_loop_config`` ("nested config dicts crash", 64179), under dotted names
      ("nested dict flattening", 64253), as long as MLflow allows ("param length protection").
    * The metrics are those of rank 0. Values that are not finite are left out, and noted in the
      run's description ("NaN/Inf filtering", 64253).
    * Times and memory are logged of each rank, as ``rank_1/time/step_ms`` ("per rank metric
      collection, analysis, and visualization", MLflow 12532).
    * The last and the best checkpoint that Ray Train keeps become artefacts ("missing system tags
      and checkpoint artifacts", 64179; "upload only when metric improves", 64253).

    Arguments:
        experiment: Name of the experiment.
        uri: Tracking URI; None: that of this process. Passwords belong into
            ``MLFLOW_TRACKING_PASSWORD`` on the node of the driver.
        metric: Reported metric by which a checkpoint is the best; None: that of the
            ``CheckpointConfig``, if it has one.
        mode: ``min`` or ``max``.
        step: Reported metric that counts the steps; None: the number of reports, which goes back
            to that of the checkpoint if workers restart.
        per_rank: Beginnings of the names of metrics that are logged of each rank.
        tags: Further tags of the run.
    """

    def __init__(
        self,
        experiment: str = "ray-train",
        *,
        uri: str | None = None,
        metric: str | None = None,
        mode: str = "min",
        step: str | None = None,
        per_rank: Sequence[str] = PER_RANK,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.experiment, self.metric, self.mode, self.step = experiment, metric, mode, step
        self.uri, self.per_rank = uri or mlflow.get_tracking_uri(), tuple(per_rank)
        self.tags, self.id = resolve_tags(dict(tags or {})), uuid4().hex
        hooks = os.environ.get(HOOKS, "").split(",")
        name = f"{LifeCycle.__module__}.{LifeCycle.__name__}"
        os.environ[HOOKS] = ",".join(dict.fromkeys(filter(None, (*hooks, name))))

    def before_run(self, run_context: Any) -> "TrackedRun":  # noqa: ANN401
        """Returns the run; starts it at the first call.

        The controller has several copies of this object, and of the context.
        """
        key = (self.id, run_context.run_id)
        if key not in RUNS:
            RUNS[key] = TrackedRun(self, run_context)
        return RUNS[key]

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object
    ) -> None:
        """Logs what all workers reported."""
        self.before_run(run_context).do("report", metrics, checkpoint is not None)

    def after_exception(
        self, run_context: object, worker_exceptions: dict[int, Exception]
    ) -> None:
        """Notes the failure of workers."""
        self.before_run(run_context).do("note", failures(worker_exceptions))

    def before_restart(self, run_context: object) -> None:
        """Counts reports from the last checkpoint on, as new workers do."""
        self.before_run(run_context).do("restart")

    def after_run(self, run_context: object, result: ray.train.Result) -> None:
        """Uploads checkpoints, and ends the run."""
        status = "FINISHED" if result.error is None else "FAILED"
        self.before_run(run_context).end(status, result)

    def after_abort(self, run_context: object) -> None:
        """Ends the run as killed."""
        self.before_run(run_context).end("KILLED")


class LifeCycle(ControllerCallback):
    """Calls the hooks of callbacks that ``UserCallback`` lacks, as Ray issue 64252 proposes."""

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401
        """Starts runs."""
        self.context = train_run_context
        self._each("before_run")

    def before_controller_execute_resize_decision(self, resize_decision: object) -> None:
        """Prepares for new workers."""
        self._each("before_restart")

    def after_controller_finish(self, result: ray.train.Result) -> None:
        """Ends runs."""
        self._each("after_run", result)

    def before_controller_abort(self) -> None:
        """Ends runs that are interrupted."""
        self._each("after_abort")

    def _each(self, hook: str, *words: object) -> None:
        for callback in self.context.run_config.callbacks:
            if isinstance(callback, MLflowCallback):
                getattr(callback, hook)(self.context, *words)


RUNS: dict[tuple[str, str], "TrackedRun"] = {}


class TrackedRun:
    """The run of a training, in the controller; one thread does in turn what it is asked to.

    The folder of the training has its run's id and its rows as of the last checkpoint, from which
    a later controller continues.
    """

    def __init__(self, settings: MLflowCallback, context: Any) -> None:  # noqa: ANN401
        self.settings, self.context, self.tried = settings, context, -math.inf
        self.storage = context.run_config.storage_context
        self.folder = Path(tempfile.mkdtemp(prefix="ray-train-"))
        self.notes: list[str] = []
        self.ended = False
        self.reports = self.saved = 0
        self.run: StageRun | None = None
        self.watch: subprocess.Popen | None = None
        self.thread = ThreadPoolExecutor(1)
        self.do("start")

    def do(self, task: str, *words: object) -> Future:
        """Lets the thread do something; an error becomes a warning."""
        future = self.thread.submit(getattr(self, task), *words)
        future.add_done_callback(self._warn)
        return future

    def _warn(self, done: Future) -> None:
        if error := done.exception():
            reason = without_login(str(root(error)))
            logger.warning("MLflow at %s: %s", without_password(self.settings.uri), reason)

    def start(self) -> None:
        """Reads what an earlier controller left, and starts or continues its run."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        self.load(metrics_log.FILE)
        self.reporter = Reporter(self.folder / metrics_log.FILE)
        rows = metrics_log.read(self.reporter.file)
        self.reports = self.saved = rows[-1]["saved"] if rows else 0
        self.connect()

    def connect(self) -> None:
        """Starts or continues the run, unless that was tried and failed a moment ago."""
        if self.run is None and time.monotonic() - self.tried > RETRY_S:
            self.tried = time.monotonic()
            client = MlflowClient(self.settings.uri)
            run = StageRun(client, self._existing(client) or self._new(client))
            client.update_run(run.id, status="RUNNING")
            self._log_params(run)
            run.complete(metrics_log.read(self.reporter.file), renew=False)
            command = ["sh", "-c", WATCH, "sh", sys.executable, "-c", KILLED]
            self.watch = subprocess.Popen(
                [*command, self.settings.uri, run.id],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self.run = self.reporter.run = run

    def _existing(self, client: MlflowClient) -> str | None:
        """Returns the id of the run that an earlier controller started, if MLflow still has it."""
        run_id = self.load("mlflow_run_id")
        try:
            found = client.get_run(run_id) if run_id else None
        except MlflowException as error:
            if not is_permanent(error):
                raise
            return None
        return run_id if found and found.info.lifecycle_stage == "active" else None

    def _new(self, client: MlflowClient) -> str:
        experiment = experiment_id(client, self.settings.experiment)
        tags = {**self.settings.tags, "ray.version": ray.__version__}
        name = self.context.run_config.name
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        (self.folder / "mlflow_run_id").write_text(run_id)
        self.store("mlflow_run_id")
        return run_id

    def _log_params(self, run: StageRun) -> None:
        """Logs parameters; MLflow lets none change, so those that did are notes."""
        data = run.client.get_run(run.id).data
        self.notes[:0] = data.tags.get(NOTE, "").split("\n\n") if NOTE in data.tags else []
        params = {_valid(name): v for name, v in flat(self.context.train_loop_config or {})}
        run.log_params({name: v for name, v in params.items() if name not in data.params})
        for name, old in data.params.items():
            if name in params and str(params[name])[: len(old)] != old:
                self.note(f"parameter {name}: {old}, then {params[name]}")

    def report(self, metrics: Sequence[Mapping[str, Any]], saved: bool) -> None:
        """Logs a report of all ranks."""
        self.reports += 1
        values = by_rank(metrics, self.settings.per_rank)
        step = int(values.get(self.settings.step, self.reports))
        for name in [name for name, value in values.items() if not math.isfinite(value)]:
            self.note(f"step {step}: {name} is {values.pop(name)}")
        self.saved = self.reports if saved else self.saved
        # One step may have several reports; a restart repeats those with the same names.
        row = metrics_log.row(",".join(values), step, 0.0, metrics=values, saved=self.saved)
        self.reporter.log([row])
        if saved:
            self.store(metrics_log.FILE)
        self.connect()

    def note(self, line: str) -> None:
        """Adds a line to the description of the run."""
        logger.warning(line)
        self.notes.append(line)
        if self.run is not None:
            self.run.describe(*self.notes)

    def restart(self) -> None:
        """Goes back to the last checkpoint."""
        self.reports = self.saved

    def end(self, status: str, result: ray.train.Result | None = None) -> None:
        """Ends the run, once; waits for the thread."""
        if not self.ended:
            self.ended = True
            if self.do("close", status, result).exception() is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            if self.watch is not None:
                self.watch.communicate(b"ended\n")

    def close(self, status: str, result: ray.train.Result | None) -> None:
        """Sends what MLflow lacks, and ends the run."""
        self.store(metrics_log.FILE)
        self.tried = -math.inf
        self.connect()
        self.run.complete(metrics_log.read(self.reporter.file), renew=False)
        for name, checkpoint in self._checkpoints(result):
            with checkpoint.as_directory() as folder:
                self.run.log_artifacts(Path(folder), f"checkpoints/{name}")
        if self.notes:
            self.run.describe(*self.notes)
        self.run.client.set_terminated(self.run.id, status)

    def _checkpoints(
        self, result: ray.train.Result | None
    ) -> Iterator[tuple[str, ray.train.Checkpoint]]:
        """Yields the last checkpoint, and the best of those that Ray Train kept."""
        if result is not None and result.checkpoint is not None:
            yield "last", result.checkpoint
            metric, mode = self.settings.metric, self.settings.mode
            if metric is None:
                rule = self.context.run_config.checkpoint_config
                metric, mode = rule.checkpoint_score_attribute, rule.checkpoint_score_order
            scored = {m[metric]: one for one, m in result.best_checkpoints if _finite(m, metric)}
            if scored:
                yield "best", scored[(min if mode == "min" else max)(scored)]

    def load(self, name: str) -> str:
        """Returns a text in the folder of the training, and copies it; empty if there is none."""
        source, place = f"{self.storage.experiment_fs_path}/{name}", self.folder / name
        files = self.storage.storage_filesystem
        if files.get_file_info(source).type is not fs.FileType.File:
            return ""
        fs.copy_files(source, str(place), source_filesystem=files, use_threads=False)
        return place.read_text()

    def store(self, name: str) -> None:
        """Copies a text to the folder of the training."""
        target, files = self.storage.experiment_fs_path, self.storage.storage_filesystem
        files.create_dir(target)
        place = str(self.folder / name)
        fs.copy_files(place, f"{target}/{name}", destination_filesystem=files, use_threads=False)


def by_rank(
    reports: Sequence[Mapping[str, Any]], per_rank: tuple[str, ...] = PER_RANK
) -> dict[str, float]:
    """Returns the numbers that rank 0 reported, and some of each rank, under dotted names."""
    ranks = [dict(flat(report)) for report in reports]
    named = {name: value for name, value in ranks[0].items() if not name.startswith(per_rank)}
    for rank, values in enumerate(ranks):
        own = (name for name in values if name.startswith(per_rank))
        named |= {f"rank_{rank}/{name}": values[name] for name in own}
    return {_valid(name): float(v) for name, v in named.items() if isinstance(v, Real)}


def failures(errors: Mapping[int, Exception]) -> str:
    """Returns the errors of workers that failed together, in one line."""
    return "; ".join(f"worker {rank}: {in_one_line(errors[rank])}" for rank in sorted(errors))


def _valid(name: str) -> str:
    return REFUSED.sub("_", name)[:MAX_ENTITY_KEY_LENGTH]


def _finite(metrics: Mapping[str, Any], name: str | None) -> bool:
    return isinstance(value := metrics.get(name), Real) and math.isfinite(value)
