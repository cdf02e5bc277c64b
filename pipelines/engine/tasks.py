"""Stages, and what puts them together, as redun knows them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from redun import task
from redun.task import Task

from pipelines.engine import hashes  # noqa: F401  (registers how redun compares what stages read)
from pipelines.engine.values import Artefact

if TYPE_CHECKING:
    from pipelines.engine.stages import Stage

NAMESPACE = "ebflow"

glue = partial(task, namespace=NAMESPACE, cache=False)
"""Declares what only puts stages together: called anew whenever a graph is evaluated."""


def declared(stage: "Stage") -> Task:
    """Returns the task of a stage."""
    return task(
        name=stage.name,
        namespace=NAMESPACE,
        version=stage.version,
        config_args=["title"],
        module=stage.module,
        executor=stage.executor,
        needs=stage.needs,
        follows=stage.follows,
    )(_declared)


def _declared(config: Any, inputs: Sequence[Any] = (), title: str = "") -> Artefact:  # noqa: ANN401
    """What redun knows every stage by. Executors run the module instead."""
    raise NotImplementedError
