"""An MLflow run, to which a stage or a pipeline logs."""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.data.manifest import Manifest
from pipelines.errors import in_one_line
from pipelines.tracking.backend import is_permanent

if TYPE_CHECKING:
    from pipelines.tracking.reporter import Reporter

ITS_OWN = ("mlflow.log", "mlflow.note", "mlflow.parentRunId", "mlflow.runName", "ebflow.stage",
           "ebflow.key")  # fmt: skip
"""Beginnings of the tags of a run that its children do not share."""

LOOKS = 5
"""The most times that a run is completed."""

MOST_METRICS = 1000
MOST_PARAMS = 100
MOST_CHARACTERS = 6000
DIGEST_LENGTH = 36
SAMPLE_S = 2.0
PAUSES_S = (1.0, 2.0, 4.0)


class StageRun:
    """An MLflow run of a stage or a pipeline.

    Arguments:
        client: The client of MLflow.
        id: Id of the run.

    Attributes:
        command: The command that reproduces it, or empty.
        output: The new folder that a stage fills.
        work: The folder of a stage that outlives a failure.
        reporter: Reports the progress and the metrics of a stage.
        final: The finite final metrics.
    """

    output: Path
    work: Path
    reporter: "Reporter"

    def __init__(self, client: MlflowClient, id: str) -> None:
        self.client, self.id, self.command = client, id, ""
        self.final: dict[str, float] = {}

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Logs nested parameters under dotted names."""
        params = [Param(name, str(v)[:MOST_CHARACTERS]) for name, v in _flat(config)]
        for some in _chunks(params, MOST_PARAMS):
            self._send(params=some)

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Logs those final metrics that are finite."""
        finite = {k: v for k, v in metrics.items() if v is not None and math.isfinite(v)}
        self.final |= finite
        self.log_rows([{"step": 0, "time": time.time(), "metrics": finite}])

    def log_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Logs metrics with their steps and times (seconds since 1970)."""
        for some in _chunks(_points(rows), MOST_METRICS):
            self._send(metrics=some)

    def send(self, rows: Iterable[Mapping[str, Any]], tags: Mapping[str, str]) -> None:
        """Logs rows and tags from a thread of the client, and does not wait for it.

        What does not arrive is lost here; ``complete`` sends the rows again.
        """
        for some in _chunks(_points(rows), MOST_METRICS):
            self.client.log_batch(self.id, metrics=some, synchronous=False)
        if tags:
            self.client.log_batch(self.id, tags=_tags(tags), synchronous=False)

    def complete(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs those metrics of the rows that the run does not have, and waits for it.

        A batch that is still on its way can undo a part of another that has the same points, so
        the run is looked at again after points were missing.
        """
        points = _points(rows)
        for _ in range(LOOKS):
            if not (missing := self._missing(points)):
                return
            for some in _chunks(missing, MOST_METRICS):
                self._send(metrics=some)

    def _missing(self, points: Sequence[Metric]) -> list[Metric]:
        present = {
            (name, point.step)
            for name in {point.key for point in points}
            for point in self.client.get_metric_history(self.id, name)
        }
        return [point for point in points if (point.key, point.step) not in present]

    def renew(self) -> None:
        """Continues as a new run without metrics; the old run ends as failed."""
        old = self.client.get_run(self.id)
        tags, name = old.data.tags, old.info.run_name
        kept = {tag: value for tag, value in tags.items() if not tag.startswith("mlflow.log")}
        made = self.client.create_run(old.info.experiment_id, run_name=name, tags=kept)
        self.client.set_tag(
            self.id,
            "ebflow.discarded",
            f"the training went back; run {made.info.run_id} has the curve",
        )
        self.client.set_terminated(self.id, "FAILED")
        self.id = made.info.run_id
        parent, stage = tags.get("mlflow.parentRunId"), tags.get("ebflow.stage")
        if parent and stage:
            self.client.set_tag(parent, f"ebflow.stage.{stage}", self.id)
        self.log_params(old.data.params)
        self.client.log_inputs(self.id, old.inputs.dataset_inputs)

    def log_input(self, manifest: Manifest, context: str) -> None:
        """Logs a prepared data set as an input of the run."""
        profile = {"counts": manifest.counts, "sha256": manifest.digest}
        shape = {"shape": manifest.shape, "dtype": manifest.dtype, "levels": manifest.levels}
        dataset = Dataset(
            name=manifest.name,
            digest=manifest.digest[:DIGEST_LENGTH],
            source_type="ebflow",
            source=json.dumps(manifest.source),
            schema=json.dumps(shape),
            profile=json.dumps(profile),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.id, [DatasetInput(dataset, tags)])

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Logs a file, or the files of a folder."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Logs the use of processors, memory, disk, network and GPUs as ``system/…``.

        Costs less than 1 % of a core. The first sample is logged at once: a training may end
        before the monitor's first interval does.
        """
        monitor = SystemMetricsMonitor(
            self.id,
            sampling_interval=SAMPLE_S,
            tracking_uri=self.client.tracking_uri,
        )
        monitor.collect_metrics()
        first = {f"system/{k}": value for k, value in monitor.aggregate_metrics().items()}
        with suppress(MlflowException):  # an outage of MLflow ends no training
            self.log_rows([{"step": 0, "time": time.time(), "metrics": first}])
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        self._send(tags=_tags(tags))

    def _send(self, **batch: Sequence[Any]) -> None:
        """Logs a batch; tries again, after a pause, if MLflow is away or overloaded.

        Equal points are stored once, so a batch may arrive twice.
        """
        for pause in PAUSES_S:
            try:
                return self.client.log_batch(self.id, **batch)
            except MlflowException as error:
                if is_permanent(error):
                    raise
                reason = in_one_line(error)
                log.warning("MLflow took no batch, tried again in %g s: %s", pause, reason)
                time.sleep(pause)
        return self.client.log_batch(self.id, **batch)

    def child(self, name: str, tags: Mapping[str, str]) -> "StageRun":
        """Starts a run below this one, of the same pipeline; whoever asks for it ends it."""
        me = self.client.get_run(self.id)
        kept = {tag: v for tag, v in me.data.tags.items() if not tag.startswith(ITS_OWN)}
        tags = {**kept, "mlflow.parentRunId": self.id, **tags}
        made = self.client.create_run(me.info.experiment_id, run_name=name, tags=tags)
        return StageRun(self.client, made.info.run_id)

    def adopt(self, run_id: str) -> None:
        """Puts a run below this one."""
        self.client.set_tag(run_id, "mlflow.parentRunId", self.id)

    def begin(self) -> None:
        """Lets a run that had ended go on."""
        self.client.update_run(self.id, "RUNNING")

    def end(self, status: str) -> None:
        """Gives the run its true end: ``FINISHED``, ``KILLED`` or ``FAILED``."""
        self.client.set_terminated(self.id, status)


def _points(rows: Iterable[Mapping[str, Any]]) -> list[Metric]:
    return [
        Metric(name, float(value), int(row["time"] * 1000), row["step"])
        for row in rows
        for name, value in row["metrics"].items()
    ]


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


log = logging.getLogger("ebflow.tracking")
