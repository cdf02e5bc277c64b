"""Evaluates graphs by redun: what is not found runs as a task of Ray."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IntegrityError

from ebflow.errors import BadInput
from pipelines import store
from pipelines.engine.executors import RayExecutor, StageExecutor
from pipelines.engine.outcome import Outcome
from pipelines.engine.records import database, scheduler, statuses
from pipelines.engine.retries import Retries
from pipelines.engine.stages import Context
from pipelines.errors import StageFailed, failure

if TYPE_CHECKING:
    from pipelines.reporting.progress import Progress

RACES = 3
"""How often a graph is evaluated anew because two processes recorded the same call at once, which
redun does not foresee. What is finished is found, unless it is forced; the rest goes on."""


@dataclass(kw_only=True)
class Engine:
    """Evaluates stage graphs, remembering every finished stage.

    Arguments:
        open_context: Called once, before the first stage that runs.
        progress: Is told of the stages that run.
        force: Whether to run every stage again.
        retries: How often a stage is tried again after a failure that may pass.
        launches, meanwhile: As of :class:`Pipeline`.
    """

    open_context: Callable[[], Context]
    progress: "Progress"
    force: bool = False
    retries: Retries = Retries()
    launches: bool = True
    meanwhile: Sequence[str] = ()
    ray: StageExecutor = field(init=False, repr=False)

    @cached_property
    def context(self) -> Context:
        """That of the stages that run; opened when it is first asked for, as Ray starts."""
        self.ray.begin()
        return self.open_context()

    def run(self, graph: Any) -> Outcome:  # noqa: ANN401
        """Evaluates a graph: an expression of redun, or a nest of them.

        Raises:
            KeyboardInterrupt: At Ctrl-C, when what ran has been told to stop.
            BadInput: As a stage raised it.
            StageFailed: If a stage failed; its cause holds the whole story.
        """
        races = 0
        while True:
            try:
                return self._evaluate(graph)
            except IntegrityError as error:
                races += 1
                if races > RACES:
                    raise failure(error) from error
                log.warning("another process recorded the same call", exc_info=True)

    def _evaluate(self, graph: Any) -> Outcome:  # noqa: ANN401
        self.ray = RayExecutor("ray", self, dashboard=self.launches, meanwhile=self.meanwhile)
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
        found = executors[0].found + executors[1].found
        return Outcome(value, statuses(made, execution, found))


log = logging.getLogger("ebflow.engine")
