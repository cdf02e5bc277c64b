"""Cells that are run side by side: one that fails stops no other, one that diverges is told."""

from collections.abc import Iterable

from redun.scheduler import catch, catch_all

from ebflow.errors import BadInput
from pipelines.engine.tasks import glue
from pipelines.engine.values import Artefact
from pipelines.errors import Diverged, StageFailed

FAILED = (BadInput, StageFailed)
"""What a stage that fails raises; a graph that a dry run cannot follow raises something else."""


def gathered(cells: Iterable[tuple[Artefact, ...] | list[Artefact]]) -> list:
    """Returns what the stages of all cells made, or how a cell diverged, as an expression."""
    found = [catch(together(cell), Diverged, diverged) for cell in cells]
    return catch_all(found, FAILED, fail)


@glue()
def together(stages: tuple[Artefact, ...]) -> tuple[Artefact, ...]:
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
