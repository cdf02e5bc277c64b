"""The runs that a store keeps, read without MLflow where the store is the embedded one.

Importing MLflow takes longer than all else that a command does which only reads. Its database is
read by SQL instead, of tables that MLflow has had since version 1; any other store answers through
MLflow's own client.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.backend import database, store_uri, uri

if TYPE_CHECKING:
    from mlflow.entities import Run

MOST = 50_000
"""Runs at most that are read at a time: as many as MLflow gives."""

WAIT_S = 20.0
"""How long a reader waits for a writer."""

Tags = Mapping[str, str | None]
"""Tags that a run is to have; None: that it is not to have."""


@dataclass(frozen=True)
class TrackedRun:
    """A run that is not deleted.

    Attributes:
        id: Its id.
        experiment: The id of its experiment.
        name: Its name in MLflow.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        started: Milliseconds since 1970.
        tags: Its tags.
        metrics: The last value of each metric.
    """

    id: str
    experiment: str
    name: str
    status: str
    started: int
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def is_finished_pipeline(self) -> bool:
        """Whether it is of a whole pipeline, and ended well."""
        return self.status == "FINISHED" and self.tags.get("ebflow.role") == "pipeline"


RUNS = """
SELECT run_uuid, experiment_id, name, status, start_time FROM runs
WHERE lifecycle_stage = 'active'
AND (:experiments IS NULL
     OR CAST(experiment_id AS TEXT) IN (SELECT value FROM json_each(:experiments)))
AND NOT EXISTS (
    SELECT 1 FROM json_each(:tags) AS wanted
    LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = wanted.key
    WHERE tags.value IS NOT wanted.value)
ORDER BY start_time DESC, run_uuid LIMIT :limit
"""
"""Those of which no tag differs from the wanted one; a tag that is not there is NULL."""

TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"

METRICS = """
SELECT key, CASE WHEN is_nan THEN 'nan' ELSE value END FROM latest_metrics WHERE run_uuid = ?
"""


class Database:
    """The embedded store's database; one that is not there is empty.

    Arguments:
        path: The file.

    Raises:
        sqlite3.Error: By each method, if it is none of MLflow's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def experiments(self) -> dict[str, str]:
        """Returns the ids of experiments that are not deleted, by their names."""
        found = self._rows(
            "SELECT name, CAST(experiment_id AS TEXT) FROM experiments "
            "WHERE lifecycle_stage = 'active'"
        )
        return dict(found)

    def runs(
        self, tags: Tags, experiments: Sequence[str] | None = None, limit: int = MOST
    ) -> list[TrackedRun]:
        """Returns runs, the newest first.

        Arguments:
            tags: What they have, and have not.
            experiments: Ids of theirs; None: any.
            limit: How many at most.
        """
        chosen = None if experiments is None else json.dumps(list(experiments))
        wanted = {"tags": json.dumps(dict(tags)), "experiments": chosen, "limit": limit}
        return [self._run(*row) for row in self._rows(RUNS, wanted)]

    def _run(
        self, run_id: str, experiment: int, name: str, status: str, started: int
    ) -> TrackedRun:
        tags = dict(self._rows(TAGS, (run_id,)))
        metrics = {name: float(value) for name, value in self._rows(METRICS, (run_id,))}
        return TrackedRun(run_id, str(experiment), name, status, started, tags, metrics)

    def _rows(self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
        if not self.path.exists():
            return []
        # Not read-only: what a killed writer left half done is to be rolled back first.
        with closing(self._connection()) as connection:
            return connection.execute(query, values).fetchall()

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=WAIT_S)


class Server:
    """Any other store, by MLflow's client.

    Arguments:
        place: Its URI.

    Raises:
        MlflowException: By each method, if it cannot be reached.
    """

    def __init__(self, place: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(place)

    def experiments(self) -> dict[str, str]:
        """As :meth:`Database.experiments`."""
        return {one.name: one.experiment_id for one in self.client.search_experiments()}

    def runs(
        self, tags: Tags, experiments: Sequence[str] | None = None, limit: int = MOST
    ) -> list[TrackedRun]:
        """As :meth:`Database.runs`."""
        if experiments is None:
            experiments = list(self.experiments().values())
        wanted = " AND ".join(
            f"tags.`{tag}` IS NULL" if value is None else f"tags.`{tag}` = '{value}'"
            for tag, value in tags.items()
        )
        found = self.client.search_runs(list(experiments), wanted, max_results=limit)
        return [_read(run) for run in found]


Reader = Database | Server


def opened() -> Reader:
    """Returns the store that is in use."""
    return Database(database()) if uri() == store_uri() else Server(uri())


def _read(run: "Run") -> TrackedRun:
    info, data = run.info, run.data
    identity = (info.run_id, info.experiment_id, info.run_name, info.status, info.start_time)
    return TrackedRun(*identity, data.tags, data.metrics)
