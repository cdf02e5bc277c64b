"""What a run would do, told without doing it: the graph is evaluated on a copy of the records."""

import sqlite3
import tempfile
import uuid
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from redun.executors.base import Executor
from redun.scheduler import Job

from pipelines import store
from pipelines.engine.outcome import Status
from pipelines.engine.records import database, scheduler, statuses
from pipelines.engine.stages import KEY_LENGTH
from pipelines.engine.values import Artefact


class Unmade(Exception):
    """Ends a plan where the graph itself depends on what an artefact has in it."""


class Expected(Artefact):
    """An artefact that a run would make."""

    @property
    def path(self) -> Path:
        """There is none yet."""
        raise Unmade


class Planner(Executor):
    """Runs nothing: a stage that would run gets an artefact that is expected of it.

    Arguments:
        name: What a task calls it by.
        to_run: Names of the stages that would run, by their keys.
        found: How many jobs of each stage the store has, though redun does not know them.
    """

    def __init__(self, name: str, to_run: dict[str, str], found: Counter[str]) -> None:
        super().__init__(name)
        self.to_run, self.found = to_run, found

    def submit(self, job: Job) -> None:
        """Takes note of a stage, and goes on with what follows from it."""
        assert self._scheduler is not None and job.eval_hash is not None
        key, stage = job.eval_hash[:KEY_LENGTH], job.task.name
        if artefact := Artefact.stored(stage, key):
            self.found[stage] += 1
        else:
            self.to_run[key] = stage
            artefact = Expected(stage, key, store.Record(key, 0, ""))
        self._scheduler.done_job(job, artefact)


def plan(graph: Any) -> dict[str, Status]:  # noqa: ANN401
    """Returns how many jobs of each stage a run would run, and how many it would find.

    Stages that an artefact decides on which is still to be made are not told.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, to_run, known = Path(folder) / "redun.db", {}, Counter()
        _copy(database(), path)
        planners = (Planner(name, to_run, known) for name in ("driver", "ray"))
        made, execution = scheduler(path, *planners), str(uuid.uuid4())
        with suppress(Unmade):
            made.run(graph, execution_id=execution)
        found = statuses(made, execution, known)
    counts = Counter(to_run.values())
    return {stage: Status(counts[stage], found[stage].cached) for stage in found}


def _copy(path: Path, copy: Path) -> None:
    """Copies a database; what its writers have not finished is left out."""
    if path.exists():
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
