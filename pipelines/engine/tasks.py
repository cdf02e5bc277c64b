"""Stages as redun knows them, and what a graph puts them together by.

Of cells side by side, one that fails stops no other; one that diverges is told.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from redun import task
from redun.scheduler import catch, catch_all
from redun.task import Task

from ebflow.errors import BadInput
from pipelines.engine import hashes  # noqa: F401  (registers how redun compares what stages read)
from pipelines.engine.values import Artefact
from pipelines.errors import Diverged, StageFailed

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


FAILED = (BadInput, StageFailed)
"""What a stage that fails raises; a graph that a dry run cannot follow raises something else."""


def gather_cells(cells: Iterable[tuple[Artefact, ...] | list[Artefact]]) -> list:
    """Returns what the stages of all cells made, or how a cell diverged, as an expression."""
    found = [catch(gather(cell), Diverged, diverged) for cell in cells]
    return catch_all(found, FAILED, fail)


@glue()
def gather(stages: tuple[Artefact, ...]) -> tuple[Artefact, ...]:
    """Returns what a cell's stages made, once all of them have."""
    return stages


@glue()
def diverged(error: Diverged) -> str:
    """Returns what to tell of a cell instead of its numbers."""
    return str(error)


@glue()
def fail(results: list) -> None:
    """Ends the pipeline with the first failure, when all other cells are done."""
    errors = [cell for cell in results if isinstance(cell, Exception)]
    line = f"{len(errors)} of {len(results)} cells failed, the first: {errors[0]}"
    raise BadInput(line) if isinstance(errors[0], BadInput) else StageFailed(line)
