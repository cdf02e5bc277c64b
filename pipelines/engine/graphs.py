"""Graphs of stages: the functions that put them together, and their evaluation by redun.

redun caches nothing, as the store is the only cache.
"""

import gc
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import redun.logging
from redun import Scheduler, task
from redun.config import Config
from redun.executors.base import Executor
from redun.expression import Expression, TaskExpression, quote
from redun.scheduler import Job, catch_all, root_task
from redun.task import Task
from redun.utils import iter_nested_value, map_nested_value
from sqlalchemy import event

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.stages import Artefact, Stage, Work
from pipelines.errors import Diverged, StageFailed, failure
from pipelines.store.files import drafted

# Redun's database among the results of a run: ``redun --config .redun log``.
HISTORY = ".redun/redun.db"

EXECUTOR = "store"

FAILED = (BadInput, StageFailed)  # Errors of a stage that fails

Cell = Artefact | dict[str, Artefact]  # An artefact, or several by their names

#: Declares a function that returns a part of a graph from finished artefacts
subgraph = partial(task, namespace="ebflow", cache=False)


STAGES: dict[str, Stage] = {}  # The stages of redun's tasks by their names


@cache
def task_of(stage: Stage) -> Task:
    """Returns the redun task of a stage, whose name has its package, if any."""
    found = task(
        name=stage.name,
        namespace=stage.module.rpartition(".")[0] or "ebflow",
        version=stage.version,
        cache=False,
        config_args=["title"],
        executor=EXECUTOR,
        stage=stage,
    )(_signature)
    STAGES[found.fullname] = stage
    return found


def _signature(config: Any, inputs: Mapping[str, Any], title: str) -> Artefact:  # noqa: ANN401
    """The signature of every stage; the executor runs the stage's module instead."""
    raise NotImplementedError


def gather_cells(cells: Iterable[Cell]) -> list:
    """Returns cells, or how they diverged, as an expression. One that fails stops no other."""
    return catch_all([*cells], FAILED, without_diverged)


def all_or_fail(cells: list) -> list:
    """Returns the results of cells, as an expression that fails when all others are done."""
    return catch_all(cells, FAILED, fail)


@subgraph()
def without_diverged(cells: list) -> list:
    """Returns cells, with a message in place of the artefacts of those that diverged."""
    errors = map(_error, cells)
    pairs = zip(cells, errors, strict=True)
    found = [str(error) if isinstance(error, Diverged) else cell for cell, error in pairs]
    return fail(found) if any(map(_error, found)) else found


@subgraph()
def fail(cells: list) -> None:
    """Raises the first failure of a cell, when all other cells are done."""
    errors = [*filter(None, map(_error, cells))]
    line = f"{len(errors)} of {len(cells)} cells failed, the first: {errors[0]}"
    raise BadInput(line) if isinstance(errors[0], BadInput) else StageFailed(line)


def _error(cell: Cell | str | Exception) -> Exception | None:
    """Returns the error of a cell, if it has one."""
    return next((part for part in iter_nested_value(cell) if isinstance(part, Exception)), None)


@dataclass
class Status:
    """The number of jobs of a stage that ran, and of those that the store had."""

    ran: int = 0
    cached: int = 0

    def text(self, ran: str = "ran") -> str:
        """Returns the number of jobs of each kind; of a single job only its kind."""
        kinds = {ran: self.ran, "cached": self.cached}
        single = self.ran + self.cached == 1
        return ", ".join(k if single else f"{n} {k}" for k, n in kinds.items() if n)


@dataclass(frozen=True)
class Outcome:
    """The outcome of an evaluation."""

    value: Any  #: The value of the graph, with artefacts in place of expressions
    #: The statuses of its stages by their names, in the order of their start
    statuses: dict[str, Status]
    started: list[Work]  #: The stages that were not cached
    keys: Collection[str]  #: The keys of all stages

    @property
    def ready(self) -> list[Work]:
        """The stages that were not cached, and whose inputs were."""
        return [
            work for work in self.started
            if not any(isinstance(v, _Expected) for v in iter_nested_value(dict(work.inputs)))
        ]  # fmt: skip

    @property
    def is_cached(self) -> bool:
        """True if no stage ran."""
        return not any(status.ran for status in self.statuses.values())

    def by_stage(self, field: str) -> dict[str, list[str]]:
        """Returns a field of all artefacts of the value, once each, in a list for each stage."""
        values = reversed([*iter_nested_value(self.value)])
        artefacts = {(a.stage, a.key): a for a in values if isinstance(a, Artefact)}
        texts: dict[str, list[str]] = {}
        for artefact in artefacts.values():
            texts.setdefault(artefact.stage, []).append(getattr(artefact, field))
        return texts


class StoreExecutor(Executor):
    """Finds stages in the store; those that are not there it starts, each once.

    Arguments:
        start: Starts a stage; returns the future of its artefact. None: nothing runs, and the
            result is the artefact that is expected.
        force: True if it finds nothing.
        dry: True if it only plans; otherwise it marks what it finds as used.

    Attributes:
        statuses: The statuses of the stages by their names, in the order of their start.
    """

    def __init__(
        self, start: Callable[[Work], Future[Artefact]] | None, *, force: bool, dry: bool
    ) -> None:
        super().__init__(EXECUTOR)
        self.start_stage, self.force, self.dry = start, force, dry
        self.started: list[Work] = []
        self.results: dict[str, Future[Artefact]] = {}
        self.statuses: dict[str, Status] = {}
        self.reduced: dict[int, Any] = {}

    def reduce(self, graph: Any) -> Any:  # noqa: ANN401
        """Returns a graph with artefacts in place of the stages that do not run.

        redun takes milliseconds for each expression, and would record stages that were cached.
        """
        return map_nested_value(self._reduce_one, graph)

    def _reduce_one(self, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, TaskExpression):
            return value
        if id(value) not in self.reduced:  # stages that share an input share its expression
            self.reduced[id(value)] = self._reduce_task(value)
        return self.reduced[id(value)]

    def _reduce_task(self, value: TaskExpression) -> Any:  # noqa: ANN401
        args, kwargs = self.reduce((value.args, value.kwargs))
        stage = STAGES.get(value.task_name)
        if stage and not any(isinstance(one, Expression) for one in iter_nested_value(args)):
            work = Work(stage, *args, **kwargs)
            result = self.result(work) if self.start_stage is None else self._find(work)
            if result is not None:
                return result.result()
        options = value._options, value._export_options, value._length  # noqa: SLF001
        return type(value)(value.task_name, args, kwargs, *options)

    def submit(self, job: Job) -> None:
        """Finds or starts the stage of a job, unless it has come up before."""
        args, kwargs = job.args
        result = self.result(Work(job.get_option("stage"), *args, **kwargs))
        result.add_done_callback(partial(self._hand_on, job))

    def result(self, work: Work) -> Future[Artefact]:
        """Returns the artefact of a stage, which is found or started."""
        if (result := self._find(work)) is None:
            self._status(work).ran += 1
            self.started.append(work)
            result = _expected(work) if self.start_stage is None else self.start_stage(work)
            self.results[work.key] = result
        return result

    def _find(self, work: Work) -> Future[Artefact] | None:
        """Returns the artefact of a stage that has come up before, or that is in the store."""
        name, key = work.stage.name, work.key
        if key not in self.results:
            found = None
            with suppress(OSError):  # the stage asks the store again
                found = None if self.force else store.find(name, key)
            if found is None:
                return None
            self._status(work).cached += 1
            if not self.dry:
                with suppress(OSError):  # a mark that cannot be written fails no run
                    store.mark_used(name, key)
            self.results[key] = _finished(found)
        return self.results[key]

    def _status(self, work: Work) -> Status:
        return self.statuses.setdefault(work.stage.name, Status())

    def _hand_on(self, job: Job, future: Future[Artefact]) -> None:
        """Passes the result of a stage to redun."""
        assert self._scheduler is not None
        if error := future.exception():
            self._scheduler.reject_job(job, failure(error))
        else:
            self._scheduler.done_job(job, future.result())


def _finished(artefact: Artefact) -> Future[Artefact]:
    future: Future[Artefact] = Future()
    future.set_result(artefact)
    return future


def evaluate(
    graph: Any,  # noqa: ANN401
    start: Callable[[Work], Future[Artefact]] | None,
    *,
    force: bool = False,
    output: Path | None = None,
    dry: bool = False,
) -> Outcome:
    """Evaluates a graph: an expression of redun, or a nest of them.

    Arguments:
        start: Starts a stage that the store does not have; None: a stage has run if it would.
        force: True if all stages run again.
        output: The folder of results, which gets redun's database as the history of the run; None:
            nothing is recorded.
        dry: True if what the store has is not marked as used.

    Raises:
        KeyboardInterrupt: At Ctrl-C.
        BadInput: As a stage raised it; then there is no history.
        StageFailed: If a stage failed; its cause is the stage's error.
    """
    executor = StoreExecutor(start, force=force, dry=dry)
    try:
        with _database(output and output / HISTORY) as database:
            rest = executor.reduce(graph)
            root = root_task.options(prov=output is not None)(quote(rest))
            value = _scheduler(database, executor).run(root)
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    except (BadInput, StageFailed):
        raise
    except _Unmade:
        value = None
    except Exception as error:
        if not dry:  # a dry run has no log
            log.exception("the pipeline failed")
        raise failure(error) from error
    return Outcome(value, executor.statuses, executor.started, executor.results)


@contextmanager
def _database(history: Path | None) -> Iterator[Path | str]:
    """Yields the place of redun's database; copies it to the history unless the input is bad.

    It has the earlier runs of the history, too. redun writes to a temporary folder, as SQLite must
    not be on a network's disk.
    """
    if history is None:
        yield ":memory:"
        return
    with tempfile.TemporaryDirectory(prefix="ebflow-redun-") as folder:
        database = Path(folder) / "redun.db"
        if history.is_file():
            shutil.copyfile(history, database)
        try:
            yield database
        except BadInput:
            history = None
            raise
        finally:
            if history is not None:
                with suppress(OSError):  # a history that a full disk does not take fails no run
                    history.parent.mkdir(parents=True, exist_ok=True)
                    with drafted(history) as draft:
                        shutil.copyfile(database, draft)


def _scheduler(database: Path | str, executor: StoreExecutor) -> Scheduler:
    redun.logging.logger.removeHandler(redun.logging.log_handler)
    scheduler = Scheduler(Config({"backend": {"db_uri": f"sqlite:///{database}"}}))
    scheduler.add_executor(executor)
    scheduler.load(migrate=True)
    event.listen(scheduler.backend.engine, "checkout", _trust_disk)
    gc.freeze()  # otherwise each collection visits all modules, as often as a large graph asks
    return scheduler


def _trust_disk(connection: Any, *_: object) -> None:  # noqa: ANN401
    """Commits without waiting for the disk: a crash loses the temporary file anyway."""
    for mode in ("synchronous=OFF", "journal_mode=MEMORY"):
        connection.execute(f"PRAGMA {mode}")


class _Unmade(Exception):
    """Raised in a dry run if the graph itself depends on the content of a missing artefact."""


class _Expected(Artefact):
    """An artefact that a run would make; it has no folder yet."""

    @property
    def path(self) -> Path:
        raise _Unmade


def plan(graph: Any, *, force: bool = False, dry: bool = True) -> Outcome:  # noqa: ANN401
    """Evaluates a graph without running a stage: a stage has run if it would.

    The value is None if the graph depends on the content of an artefact that is not there; then
    the stages that follow from it are not among the statuses.
    """
    return evaluate(graph, None, force=force, dry=dry)


def _expected(work: Work) -> Future[Artefact]:
    name, key = work.stage.name, work.key
    return _finished(_Expected(stage=name, key=key, digest=key, size=0, run_id=""))


log = logging.getLogger("ebflow.engine")
