"""Evaluation of a graph of stages by redun, and its outcome."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redun.logging
from redun import Scheduler
from redun.config import Config

from ebflow.errors import BadInput
from pipelines.engine.executors import DryExecutor, RayExecutor, StageExecutor, StoreExecutor
from pipelines.engine.retries import Retries
from pipelines.engine.stages import Context
from pipelines.engine.values import Artefact, Unmade
from pipelines.errors import StageFailed, failure

if TYPE_CHECKING:
    from pipelines.reporting.terminal import Progress

HISTORY = ".redun"
"""The folder of redun's database among the results of a run: ``redun --config .redun log``."""


@dataclass(frozen=True)
class Status:
    """The number of jobs of a stage that ran, and of those that the store had."""

    ran: int = 0
    cached: int = 0

    def __str__(self) -> str:
        if self.ran + self.cached == 1:
            return "ran" if self.ran else "cached"
        return f"{self.ran} ran, {self.cached} cached"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an evaluation.

    Arguments:
        value: The value of the graph, with artefacts in place of expressions.
        statuses: The statuses of its stages by their names, in the order of their start.
    """

    value: Any
    statuses: dict[str, Status]

    @property
    def artefacts(self) -> list[Artefact]:
        """All artefacts of the value, once each."""
        return list({(a.stage, a.key): a for a in _artefacts(self.value)}.values())


def _artefacts(value: Any) -> Iterator[Artefact]:  # noqa: ANN401
    if isinstance(value, Artefact):
        yield value
    elif isinstance(value, Mapping):
        yield from _artefacts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _artefacts(item)


@dataclass(kw_only=True)
class Engine:
    """Evaluates graphs of stages.

    Arguments:
        open_context: Called once, before the first stage that runs.
        progress: Displays the stages that run.
        force: True if all stages run again.
        retries: How often a stage is tried again after a failure that may pass.
    """

    open_context: Callable[[], Context]
    progress: "Progress"
    force: bool = False
    retries: Retries = Retries()
    ray: RayExecutor = field(init=False, repr=False)

    @cached_property
    def context(self) -> Context:
        """The context of the stages that run; it is opened while Ray starts."""
        self.ray.connect()
        return self.open_context()

    def run(self, graph: Any, output: Path | None = None) -> Outcome:  # noqa: ANN401
        """Evaluates a graph: an expression of redun, or a nest of them.

        Arguments:
            graph: The graph.
            output: The folder of results, which gets redun's database as the history of the run.

        Raises:
            KeyboardInterrupt: At Ctrl-C, when running stages have been interrupted.
            BadInput: As a stage raised it; then there is no history.
            StageFailed: If a stage failed; its cause is the stage's error.
        """
        self.ray = RayExecutor("ray", self)
        try:
            return _evaluate(graph, StageExecutor("driver", self), self.ray, output=output)
        except SystemExit as stop:
            raise KeyboardInterrupt from stop
        except (BadInput, StageFailed):
            raise
        except Exception as error:
            log.exception("the pipeline failed")
            raise failure(error) from error


def plan(graph: Any, *, force: bool = False) -> Outcome:  # noqa: ANN401
    """Evaluates a graph without running a stage: a stage has run if it would.

    The value is None if the graph depends on the content of an artefact that is not there; then
    the stages that follow from it are not among the statuses.
    """
    executors = DryExecutor("driver", force=force), DryExecutor("ray", force=force)
    try:
        return _evaluate(graph, *executors)
    except Unmade:
        return Outcome(None, _statuses(*executors))


def _evaluate(graph: Any, *executors: StoreExecutor, output: Path | None = None) -> Outcome:  # noqa: ANN401
    """Evaluates a graph; saves its history unless the input is bad.

    redun writes to a temporary folder, as SQLite must not be on a network's disk.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-redun-") as folder:
        database = Path(folder) / "redun.db"
        try:
            value = _scheduler(database, *executors).run(graph)
        except BadInput:
            output = None
            raise
        finally:
            if output is not None:
                _save_history(database, output / HISTORY)
    return Outcome(value, _statuses(*executors))


def _scheduler(database: Path, *executors: StoreExecutor) -> Scheduler:
    redun.logging.logger.removeHandler(redun.logging.log_handler)
    made = Scheduler(Config({"backend": {"db_uri": f"sqlite:///{database}"}}))
    for executor in executors:
        made.add_executor(executor)
    made.load(migrate=True)
    return made


def _save_history(database: Path, folder: Path) -> None:
    with suppress(OSError):  # a history that a full disk does not take fails no run
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(database, folder / database.name)


def _statuses(*executors: StoreExecutor) -> dict[str, Status]:
    names = dict.fromkeys(name for one in executors for name in (*one.cached, *one.started))
    return {
        name: Status(
            sum(one.started[name] for one in executors), sum(one.cached[name] for one in executors)
        )
        for name in names
    }


log = logging.getLogger("ebflow.engine")
