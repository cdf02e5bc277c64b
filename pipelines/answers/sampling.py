"""``ebflow sample``: rows drawn from a trained flow."""

__all__ = ["Sample", "run"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ebflow.errors import BadInput
from pipelines.cli.parsing import parse

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.answers.models import Model

ROWS = 10_000
"""Rows that are drawn at a time."""


@dataclass(frozen=True)
class Sample:
    """Draws rows from a trained flow, in the columns and types of the data that it was trained on.

    Integers are integers. The first rows are the same however many are drawn.
    """

    model: Annotated[str, tyro.conf.Positional]
    """folder of a run or of a checkpoint, or a registered model: models:/NAME@ALIAS"""
    output: Path
    """Parquet file for the rows"""
    rows: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 1000
    """how many"""
    seed: int = 0
    """where they come from"""
    dry_run: bool = False
    """tell what would be drawn; write nothing"""


def run(words: Sequence[str]) -> int:
    """Draws rows."""
    options = parse(Sample, words, "ebflow sample")
    if options.rows < 1:
        raise BadInput(f"--rows: found {options.rows}, expected at least 1")
    from pipelines.answers.files import check_output, schema, write
    from pipelines.answers.models import opened

    check_output(options.output)
    with opened(options.model) as model:
        kinds = schema(model)
        print(f"{options.rows} rows of {', '.join(kinds.names)}")
        if options.dry_run:
            return 0
        write(options.output, kinds, drawn(model, options.rows, options.seed))
    print(f"written to    {options.output}")
    return 0


def drawn(model: "Model", rows: int, seed: int) -> "Iterator[pa.Table]":
    """Yields tables of samples, which have so many rows together."""
    from ebflow.randomness import RowGenerator
    from pipelines.answers.files import columns_table

    for first in range(0, rows, ROWS):
        noise = RowGenerator(seed, "sample", first=first)
        yield columns_table(model, model.flow.sample(min(ROWS, rows - first), noise))
