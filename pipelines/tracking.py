"""MLflow, as it is written to; ``history.py`` reads it, ``model.py`` is the model that it keeps.

A pipeline is a run; each stage that runs is a child of it. Without ``MLFLOW_TRACKING_URI`` the
store is ``mlflow.db`` and ``mlartifacts/`` under ``EBFLOW_HOME``.

Metrics reach the store from a file of rows that the training appends to (:class:`Follower`): a
store that stays away loses nothing, and slows nothing down.
"""

__all__ = ["Follower", "Sender", "StageRun", "Tracker", "connect", "default_store", "lasting",
           "reaching", "serve", "store_uri", "uri"]  # fmt: skip

import json
import logging
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import mlflow
import numpy as np
import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import Schema, TensorSpec

import ebflow
from ebflow.data.schema import Manifest
from ebflow.errors import BadInput
from ebflow.provenance import code
from ebflow.urls import without_password
from pipelines import rows, store
from pipelines.faults import StageFailed
from pipelines.views import EXPERIMENT_TAGS

ITS_OWN = ("mlflow.log", "mlflow.note", "mlflow.parentRunId", "mlflow.runName", "ebflow.stage",
           "ebflow.key")  # fmt: skip
"""Tags of a run that its children do not share."""

MOST_METRICS = 1000
MOST_PARAMS = 100
MOST_CHARACTERS = 6000
DIGEST_LENGTH = 36
SAMPLE_S = 5.0
PAUSES_S = (1.0, 2.0, 4.0)
LASTING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that no second try mends."""

NEEDED = ("mlflow", "numpy", "pyarrow", "safetensors", "torch")


@dataclass(frozen=True)
class Tracker:
    """One experiment of a tracking store; goes to other processes as it is.

    Arguments:
        uri: Where the store is.
        experiment: Id of the experiment.
        key: The pipeline's key, on all its runs as tag ``ebflow.pipeline_key``.
        home: Id of the store that the runs come from, on all of them as tag ``ebflow.store``:
            another store's runs of an equal pipeline are not this one's to end or to show.
        system: More tags of all its runs: the pipeline's name, the user, the code.
    """

    uri: str
    experiment: str
    key: str
    home: str
    system: Mapping[str, str]

    @cached_property
    def client(self) -> MlflowClient:
        """The client of the store."""
        return MlflowClient(self.uri)

    def start(self, name: str, tags: Mapping[str, str]) -> str:
        """Creates a run and returns its id."""
        mine = {"ebflow.pipeline_key": self.key, "ebflow.store": self.home}
        tags = {**self.system, **mine, **tags}
        return self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id

    def finished(self) -> str | None:
        """Returns the id of the newest finished run of this pipeline, if there is one."""
        found = self._runs("tags.`ebflow.role` = 'pipeline' AND attributes.status = 'FINISHED'")
        return found[0].info.run_id if found else None

    def reclaim(self, key: str | None = None) -> None:
        """Marks as killed what killed processes left running: the pipeline's lock is to be held.

        Arguments:
            key: Of the stage, if only that one's lock is.
        """
        mine = f" AND tags.`ebflow.key` = '{key}'" if key else ""
        for run in self._runs(f"attributes.status = 'RUNNING'{mine}"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    @contextmanager
    def run(self, run_id: str) -> Iterator["StageRun"]:
        """Gives a run its true end: finished, failed or killed; bad input leaves none."""
        status, wanted = "KILLED", True
        try:
            yield StageRun(self.client, run_id)
            status = "FINISHED"
        except Exception as error:
            status, wanted = "FAILED", not isinstance(error, BadInput)
            raise
        finally:
            self._end(run_id, status, wanted)

    @contextmanager
    def stage(self, stage: str, key: str, *, parent: str, title: str = "") -> Iterator["StageRun"]:
        """Tracks a stage as a child of the pipeline's run, by its title if any; hold its lock."""
        self.reclaim(key)
        tags = {"mlflow.parentRunId": parent, "ebflow.stage": stage, "ebflow.key": key}
        run_id = self.start(" · ".join(filter(None, (stage, title))), tags)
        self.client.set_tag(parent, f"ebflow.stage.{stage}", run_id)
        with self.run(run_id) as run:
            yield run

    def _end(self, run_id: str, status: str, wanted: bool) -> None:
        try:
            self.client.set_terminated(run_id, status)
            if not wanted:
                self.client.delete_run(run_id)
        except MlflowException as error:
            if status == "FINISHED":
                raise
            log.warning("run %s ended %s, which MLflow was not told: %s", run_id, status, error)

    def _runs(self, condition: str) -> list[Any]:
        mine = f"tags.`ebflow.pipeline_key` = '{self.key}' AND tags.`ebflow.store` = '{self.home}'"
        return self.client.search_runs([self.experiment], f"{mine} AND {condition}")


class StageRun:
    """One MLflow run: what a stage or a pipeline logs goes here.

    Arguments:
        client: Client of the store.
        id: Id of the run.
    """

    def __init__(self, client: MlflowClient, id: str) -> None:
        self.client, self.id = client, id
        self.final: dict[str, float] = {}

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Logs nested parameters under dotted names."""
        params = [Param(name, str(v)[:MOST_CHARACTERS]) for name, v in _flat(config)]
        for some in _chunks(params, MOST_PARAMS):
            self._send(params=some)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs final metrics, and keeps them as ``final``."""
        self.final |= metrics
        self.log_rows([{"step": 0, "time": time.time(), "metrics": metrics}])

    def log_rows(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Logs metrics with their steps and times (seconds since 1970)."""
        metrics = [
            Metric(name, float(value), int(row["time"] * 1000), row["step"])
            for row in told
            for name, value in row["metrics"].items()
        ]
        for some in _chunks(metrics, MOST_METRICS):
            self._send(metrics=some)

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
        """Logs a file, or what is in a folder."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Logs use of processors, memory, disk, network and GPUs as ``system/…`` meanwhile.

        Costs less than 1 % of a core. Ends early where the store goes away.
        """
        monitor = SystemMetricsMonitor(
            self.id, sampling_interval=SAMPLE_S, tracking_uri=self.client.tracking_uri
        )
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        self._send(tags=[RunTag(key, value) for key, value in tags.items()])

    def _send(self, **batch: Sequence[Any]) -> None:
        """Logs a batch; tries again, after a pause, where the store is away or overrun.

        A batch that arrived while its answer did not does no harm: equal points are kept once.
        """
        for pause in PAUSES_S:
            try:
                return self.client.log_batch(self.id, **batch)
            except MlflowException as error:
                if lasting(error):
                    raise
                log.warning("MLflow did not take a batch, tried again in %g s: %s", pause, error)
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

    def log_model(self, checkpoint: Path, example: np.ndarray) -> str:
        """Logs a checkpoint as an MLflow model whose ``predict`` gives log-densities in nats.

        The model is code and safetensors: no pickle.

        Arguments:
            checkpoint: Folder of the checkpoint.
            example: A few rows of raw data, with shape (N, *event).

        Returns:
            The model's URI.
        """
        inputs = Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))])
        outputs = Schema([TensorSpec(np.dtype("float64"), (-1,))])
        with default_store(self.client.tracking_uri), mlflow.start_run(run_id=self.id):
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("model.py")),
                artifacts={"checkpoint": str(checkpoint)},
                signature=ModelSignature(inputs, outputs),
                input_example=example,
                code_paths=[str(Path(ebflow.__file__).parent)],
                pip_requirements=_requirements(),
            )
        return model.model_uri


class Sender(ABC):
    """Sends what is new to the store, from a thread; what the store refuses is tried again.

    Arguments:
        interval: Seconds between looks.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    @abstractmethod
    def send(self) -> None:
        """Sends what is new, and what was refused before.

        Raises:
            MlflowException: If the store is away; what was not sent stays pending.
        """

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stopped.set()
        self.thread.join()
        if kind is None:
            self.send()
        else:
            self._try()

    def _try(self) -> None:
        try:
            self.send()
        except MlflowException as error:
            log.warning("metrics wait for MLflow: %s", error)

    def _follow(self) -> None:
        while not self.stopped.wait(self.interval):
            self._try()


class Follower(Sender):
    """Sends the rows of a growing file to a run, each once.

    A row of a kind is sent if its step is beyond the last one sent of that kind, so what a
    restarted training repeats is not sent twice. Failures of workers become tags:
    ``ebflow.failure.1``, … and ``ebflow.restarts``.

    Arguments:
        path: File of rows (``rows.py``).
        run: Where they go.
        interval: Seconds between looks.
    """

    def __init__(self, path: Path, run: StageRun, interval: float = 1.0) -> None:
        super().__init__(interval)
        self.path, self.run = path, run
        self.offset = 0
        self.sent: dict[str, int] = {}
        self.pending: list[rows.Row] = []
        self.failures: list[str] = []
        self.restarts = 0
        self.tagged: dict[str, str] = {}

    def send(self) -> None:
        """Sends what is new, and what was refused before; raises as :meth:`Sender.send`."""
        self.pending += self._new()
        self.run.log_rows(self.pending)
        self.pending = []
        if (tags := self._tags()) != self.tagged:
            self.run.set_tags(tags)
            self.tagged = tags

    def _tags(self) -> dict[str, str]:
        told = {f"ebflow.failure.{i}": note for i, note in enumerate(self.failures, 1)}
        return {**told, "ebflow.restarts": str(self.restarts)} if told else {}

    def _new(self) -> Iterator[rows.Row]:
        """Reads on; what follows a failure was told by workers that had been restarted."""
        found, self.offset = rows.read(self.path, self.offset)
        for row in found:
            self.restarts = len(self.failures)
            if row["kind"] == rows.FAILURE:
                self.failures.append(row["note"])
            elif row["step"] > self.sent.get(row["kind"], -1):
                self.sent[row["kind"]] = row["step"]
                yield row


@contextmanager
def reaching() -> Iterator[None]:
    """Turns a store that cannot be reached into one line."""
    try:
        yield
    except MlflowException as error:
        line = " ".join(str(error).split())[:300]
        raise StageFailed(f"MLflow at {without_password(uri())}: {line}") from error


def lasting(error: MlflowException) -> bool:
    """Whether the store will refuse the same again."""
    return error.error_code in LASTING


def connect(experiment: str, key: str) -> Tracker:
    """Opens the tracking store, making it if need be, once for all processes."""
    place = uri()
    with reaching(), store.lock("mlflow"):
        client = MlflowClient(place)
        found = client.get_experiment_by_name(experiment)
        made = found.experiment_id if found is not None else _create(client, experiment)
        return Tracker(place, made, key, store.identity(), _system(experiment))


def _create(client: MlflowClient, experiment: str) -> str:
    embedded = client.tracking_uri == store_uri()
    location = (store.home() / "mlartifacts").as_uri() if embedded else None
    return client.create_experiment(experiment, location, EXPERIMENT_TAGS)


def _system(experiment: str) -> dict[str, str]:
    """Returns MLflow's own tags, which only its fluent functions would set, and the pipeline."""
    known = code()
    commit = {} if known["commit"] is None else {"mlflow.source.git.commit": known["commit"]}
    return {
        "ebflow.pipeline": experiment,
        "mlflow.user": psutil.Process().username(),
        "mlflow.source.name": f"ebflow {known['ebflow']}",
        "mlflow.source.type": "LOCAL",
        **commit,
    }


def uri() -> str:
    """Returns the URI of the store that is in use."""
    return os.environ.get("MLFLOW_TRACKING_URI") or store_uri()


def store_uri() -> str:
    """Returns the URI of the embedded store."""
    return f"sqlite:///{store.home() / 'mlflow.db'}"


def serve(port: int, log_file: Path) -> subprocess.Popen:
    """Starts MLflow's server on loopback, in a process group of its own; it tells a file all.

    It answers only requests whose ``Host`` is this machine's loopback, as MLflow does by default.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", store_uri()]
    command += ["--artifacts-destination", str(store.home() / "mlartifacts")]
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("ab") as told:
        return subprocess.Popen(command, start_new_session=True, stdout=told, stderr=told)


def _requirements() -> list[str]:
    """Returns what the library, which goes with the model as code, needs of other packages."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Points MLflow's fluent functions at a store for a while."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


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
