"""Rows of cells that are compared test row by test row."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ebflow.inference import student
from pipelines.paper.experiments.cell import Cell, Folders, Row

LOG_PROBS = "log_probs"
"""Key of the test rows' log-densities, which a row has until it is shown."""

Measured = tuple[Folders, Row]
"""What a cell's stages wrote, and its row with log-densities."""


def measured(cells: Sequence[Cell], folders: Sequence[Folders]) -> Iterator[Measured]:
    """Yields folders and rows of the cells that are for such data."""
    for cell, found in zip(cells, folders, strict=True):
        row = cell.row(found)
        if "test/nll" in row:
            with np.load(found[-1] / "log_probs.npz") as file:
                yield found, {**row, LOG_PROBS: file["test"]}


def with_gains(
    rows: Sequence[Row], is_reference: Callable[[Mapping[str, str]], bool], *same: str
) -> list[Row]:
    """Returns rows as they are shown, with what each gains over a reference.

    Arguments:
        rows: The rows, with log-densities.
        is_reference: Whether labels are those of a reference.
        same: The labels that a row and its reference have in common, besides their seed.
    """

    def key(row: Row) -> tuple[object, ...]:
        return (row["seed"], *(row["labels"][name] for name in same))

    references = {key(row): row for row in rows if is_reference(row["labels"])}
    return [with_gain(row, references.get(key(row))) for row in rows]


def with_gain(row: Row, reference: Row | None, name: str = "gain") -> Row:
    """Returns a row as it is shown, with its gain over another of the same test rows."""
    shown = {key: value for key, value in row.items() if key != LOG_PROBS}
    if reference is not None:
        gain = student(row[LOG_PROBS] - reference[LOG_PROBS])
        shown |= {name: gain.value, f"{name}_se": gain.se}
    return shown
