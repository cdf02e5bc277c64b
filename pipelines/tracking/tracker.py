"""The runs of an experiment: one of each pipeline run, with its stages as children."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipelines import store
from pipelines.tracking.backend import EXISTS, database, mlflow_errors, store_uri, uri
from pipelines.tracking.provenance import code
from pipelines.tracking.run import StageRun


@dataclass(frozen=True)
class Tracker:
    """An experiment in MLflow; other processes may use a copy."""

    client: MlflowClient
    experiment: str
    key: str  #: The pipeline's key, the tag ``ebflow.pipeline_key`` of all its runs
    #: Id of the store of artefacts, the tag ``ebflow.store`` of all its runs: runs of an equal
    #: pipeline in another store are neither ended nor shown
    home: str
    #: Further tags of all its runs: the pipeline's name, the user, the code
    system: Mapping[str, str]

    @property
    def _own(self) -> dict[str, str]:
        return {"ebflow.pipeline_key": self.key, "ebflow.store": self.home}

    def start(self, name: str, tags: Mapping[str, str]) -> str:
        """Creates a run and returns its id."""
        tags = {**self.system, **self._own, **tags}
        return self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id

    def runs(self, status: str, tags: Mapping[str, str]) -> Sequence[Run]:
        """Returns the runs of the pipeline in a state that have some tags, the newest first."""
        tags = {**self._own, **tags}
        conditions = f"{_conditions(tags)} AND attributes.status = '{status}'"
        return self.client.search_runs([self.experiment], conditions)

    def reclaim(self, key: str | None = None) -> None:
        """Marks the runs that killed processes left running; the caller holds their lock.

        Arguments:
            key: Key of a stage whose runs are marked; None: those of the whole pipeline.
        """
        for run in self.runs("RUNNING", {"ebflow.key": key} if key else {}):
            self.client.set_terminated(run.info.run_id, "KILLED")

    def reclaim_last(self, name: str) -> None:
        """Marks what the last run of a name left running, unless it still runs."""
        tags = {"ebflow.name": name, "ebflow.role": "pipeline", "ebflow.store": self.home}
        for last in self.client.search_runs([self.experiment], _conditions(tags), max_results=1):
            key = last.data.tags["ebflow.pipeline_key"]
            lock = store.lock(f"run-{key}", waiting=None)
            with suppress(BlockingIOError), nullcontext() if key == self.key else lock:
                replace(self, key=key).reclaim()

    @contextmanager
    def run(self, run_id: str, command: str = "") -> Iterator[StageRun]:
        """Ends a run as finished, failed or killed, and then its children that were killed."""
        run = StageRun(self.client, run_id, command)
        try:
            yield run
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            with suppress(MlflowException):  # the first error is the one to report
                self.client.set_terminated(run.id, status)
                for child in self.runs("RUNNING", {"mlflow.parentRunId": run.id}):
                    self.client.set_terminated(child.info.run_id, "KILLED")
            raise
        self.client.set_terminated(run.id, "FINISHED")

    @contextmanager
    def stage(
        self, stage: str, key: str, *, parent: str, title: str = "", command: str = ""
    ) -> Iterator[StageRun]:
        """Tracks a stage as a child of the pipeline's run; the caller holds the stage's lock."""
        self.reclaim(key)
        tags = {"mlflow.parentRunId": parent, "ebflow.stage": stage, "ebflow.key": key}
        run_id = self.start(" · ".join(filter(None, (stage, title))), tags)
        with self.run(run_id, command) as run:
            yield run


def _conditions(tags: Mapping[str, str]) -> str:
    return " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())


def connect(experiment: str, key: str) -> Tracker:
    """Returns the tracker of a pipeline; one process at a time creates MLflow's database."""
    place = uri()
    with mlflow_errors(), store.lock("mlflow"):
        if place == store_uri():
            database().touch()  # SQLite would let only its owner write to it
        client = MlflowClient(place)
        found = experiment_id(client, experiment)
        return Tracker(client, found, key, store.identity(), _system(experiment))


def experiment_id(client: MlflowClient, name: str) -> str:
    """Returns the id of an experiment; creates it, unless another process does so first."""
    if (found := client.get_experiment_by_name(name)) is not None:
        return found.experiment_id
    embedded = client.tracking_uri == store_uri()
    location = (store.home() / "mlartifacts").as_uri() if embedded else None
    try:
        return client.create_experiment(name, location)
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise
        return client.get_experiment_by_name(name).experiment_id


def _system(experiment: str) -> dict[str, str]:
    """Returns MLflow's own tags, which only its fluent functions would set, and the pipeline."""
    versions = code()
    commit = versions["commit"]
    commit_tag = {} if commit is None else {"mlflow.source.git.commit": commit}
    return {
        "ebflow.pipeline": experiment,
        "mlflow.user": psutil.Process().username(),
        "mlflow.source.name": f"ebflow {versions['ebflow']}",
        "mlflow.source.type": "LOCAL",
        **commit_tag,
    }
