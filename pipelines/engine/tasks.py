"""Functions that put stages together into a graph, as tasks of redun.

redun evaluates the graph; it caches nothing, as the store is the only cache.
"""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from redun import task
from redun.scheduler import catch, catch_all
from redun.task import Task

from ebflow.errors import BadInput
from pipelines.engine.values import Artefact
from pipelines.errors import Diverged, StageFailed

if TYPE_CHECKING:
    from pipelines.engine.stages import Stage

subgraph = partial(task, namespace="ebflow", cache=False)
"""Declares a function that returns a part of a graph from finished artefacts."""


@cache
def task_of(stage: "Stage") -> Task:
    """Returns the redun task of a stage, whose name has the package of the stage."""
    return task(
        name=stage.name,
        namespace=stage.module.rpartition(".")[0],
        version=stage.version,
        cache=False,
        config_args=["title"],
        executor=stage.executor,
        stage=stage,
    )(_run)


def _run(config: Any, inputs: Sequence[Any] = (), title: str = "") -> Artefact:  # noqa: ANN401
    """The signature of every stage; executors run the stage's module instead."""
    raise NotImplementedError


FAILED = (BadInput, StageFailed)
"""Errors of a stage that fails."""


def gather_cells(cells: Iterable[tuple[Artefact, ...] | list[Artefact]]) -> list:
    """Returns the artefacts of each cell, or how a cell diverged, as an expression.

    A cell that fails stops no other.
    """
    found = [catch(gather(cell), Diverged, diverged) for cell in cells]
    return catch_all(found, FAILED, fail)


@subgraph()
def gather(stages: tuple[Artefact, ...]) -> tuple[Artefact, ...]:
    """Returns the artefacts of a cell, once all of them are there."""
    return stages


@subgraph()
def diverged(error: Diverged) -> str:
    """Returns the message of a cell that diverged, in place of its artefacts."""
    return str(error)


@subgraph()
def fail(results: list) -> None:
    """Raises the first failure of a cell, when all other cells are done."""
    errors = [cell for cell in results if isinstance(cell, Exception)]
    line = f"{len(errors)} of {len(results)} cells failed, the first: {errors[0]}"
    raise BadInput(line) if isinstance(errors[0], BadInput) else StageFailed(line)
