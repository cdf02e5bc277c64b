"""What redun records of calls, and what became of a run's stages by it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import redun.logging
from redun import Scheduler
from redun.backends.db import Job as JobRow
from redun.config import Config
from redun.executors.base import Executor

from pipelines import store
from pipelines.engine.outcome import Status
from pipelines.engine.tasks import NAMESPACE


def database() -> Path:
    """Returns the file of the store's records."""
    return store.home() / "redun.db"


def scheduler(path: Path, *executors: Executor) -> Scheduler:
    """Returns a scheduler that keeps its records in a file, made if need be."""
    redun.logging.logger.removeHandler(redun.logging.log_handler)
    # SQLite would give it no more than its owner may write; a store may be a group's.
    path.touch()
    made = Scheduler(Config({"backend": {"db_uri": f"sqlite:///{path}"}}))
    for executor in executors:
        made.add_executor(executor)
    made.load(migrate=True)
    return made


def statuses(scheduler: Scheduler, execution: str, found: Mapping[str, int]) -> dict[str, Status]:
    """Returns what became of the stages of an execution, by their names.

    Arguments:
        scheduler: Whose records tell it.
        execution: Its id.
        found: How many jobs of each stage did not run, though redun did not know them.
    """
    rows = scheduler.backend.session.query(JobRow).filter_by(execution_id=execution)
    counts = Counter(
        (row.task.name, bool(row.cached)) for row in rows if row.task.namespace == NAMESPACE
    )
    for stage, count in found.items():
        counts[stage, False] -= count
        counts[stage, True] += count
    stages = {stage for stage, _ in counts}
    return {stage: Status(counts[stage, False], counts[stage, True]) for stage in stages}
