"""Evaluates graphs by redun: what is not found runs as a task of Ray."""

import logging
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy.exc import IntegrityError

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.executors import Progress, RayExecutor, StageExecutor
from pipelines.engine.outcome import Outcome
from pipelines.engine.records import database, scheduler, statuses
from pipelines.engine.retries import SOME, Retries
from pipelines.engine.stages import Context
from pipelines.errors import StageFailed, failure

RACES = 3
"""How often a graph is evaluated anew because two processes recorded the same call at once, which
redun does not foresee. What is finished is found, unless it is forced; the rest goes on."""


class Engine:
    """Evaluates stage graphs, remembering every finished stage.

    Arguments:
        open_context: Called once, before the first stage that runs.
        progress: Is told of the stages that run.
        force: Whether to run every stage again.
        retries: How often a stage is tried again after a failure that may pass.
        launches, meanwhile: As of :class:`Pipeline`.
    """

    def __init__(
        self,
        *,
        open_context: Callable[[], Context],
        progress: Progress,
        force: bool = False,
        retries: Retries = SOME,
        launches: bool = True,
        meanwhile: Sequence[str] = (),
    ) -> None:
        self._open_context, self._launches = open_context, launches
        self._meanwhile = meanwhile
        self.progress, self.force, self.retries = progress, force, retries

    @cached_property
    def _context(self) -> Context:
        self.ray.begin()
        return self._open_context()

    def context(self) -> Context:
        """Returns the context of the stages that run; opened at the first call."""
        return self._context

    def run(self, graph: Any) -> Outcome:  # noqa: ANN401
        """Evaluates a graph: an expression of redun, or a nest of them.

        Raises:
            KeyboardInterrupt: At Ctrl-C, when what ran has been told to stop.
            BadInput: As a stage raised it.
            StageFailed: If a stage failed; its cause holds the whole story.
        """
        for _ in range(RACES):
            try:
                return self._evaluate(graph)
            except IntegrityError:
                log.warning("another process recorded the same call", exc_info=True)
        try:
            return self._evaluate(graph)
        except IntegrityError as error:
            raise failure(error) from error

    def _evaluate(self, graph: Any) -> Outcome:  # noqa: ANN401
        self.ray = RayExecutor("ray", self, dashboard=self._launches, meanwhile=self._meanwhile)
        executors = StageExecutor("driver", self), self.ray
        execution = str(uuid.uuid4())
        with store.lock("redun"):
            made = scheduler(database(), *executors)
        try:
            value = made.run(graph, cache=not self.force, execution_id=execution)
        except SystemExit as stop:
            raise KeyboardInterrupt from stop
        except (BadInput, IntegrityError, StageFailed):
            raise
        except Exception as error:
            log.exception("the pipeline failed")
            raise failure(error) from error
        return Outcome(value, statuses(made, execution))


log = logging.getLogger("ebflow.engine")
