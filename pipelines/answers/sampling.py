"""``ebflow sample``: rows drawn from a trained flow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ebflow.errors import BadInput
from pipelines.answers import OfModel, check_output
from pipelines.cli.parsing import parse

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.answers.models import Model

ROWS = 10_000
"""Rows that are drawn at a time."""


@dataclass(frozen=True)
class Sample(OfModel):
    """Draws rows from a trained flow, in the columns and types of the data that it was trained on.

    Integers are integers. A conditional flow's rows have their contexts' columns behind: those of
    a file, row by row, or one that is typed. The first rows are the same however many are drawn.
    """

    output: Path
    """Parquet file for the rows"""
    rows: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None
    """how many, of each row of a file of contexts; None: 1000, or one of each"""
    context: tuple[str, ...] = ()
    """of a conditional flow: a file that has its contexts' columns, or name=value of each"""
    seed: int = 0
    """where they come from"""
    dry_run: bool = False
    """tell what would be drawn; write nothing"""


def run(words: Sequence[str]) -> int:
    """Draws rows."""
    options = parse(Sample, words, "ebflow sample")
    if options.rows is not None and options.rows < 1:
        raise BadInput(f"--rows: found {options.rows}, expected at least 1")
    check_output(options.output)
    from pipelines.answers.contexts import parse_contexts
    from pipelines.answers.files import columns_table, schema, write
    from pipelines.answers.models import opened

    with opened(options.model) as model:
        context, kinds = parse_contexts(options.context, model), schema(model)
        each = options.rows or (
            1000 if len(options.context) != 1 or "=" in options.context[0] else 1
        )
        count = each if context is None else each * len(context)
        print(f"{count} rows of {', '.join(kinds.names)}")
        if options.dry_run:
            return 0
        draws = drawn(model, count, options.seed, context)
        write(options.output, kinds, (columns_table(model, *some) for some in draws))
    print(f"written to    {options.output}")
    return 0


def drawn(
    model: "Model", rows: int, seed: int, context: "Tensor | None" = None
) -> "Iterator[tuple[Tensor, Tensor | None]]":
    """Yields samples and their contexts, so many rows together.

    Arguments:
        model: The flow.
        rows: How many; a multiple of the contexts'.
        seed: Where they come from.
        context: Contexts with shape (M, C), the same number of rows of each in turn; None of a
            flow without.
    """
    import torch

    from ebflow.randomness import RowGenerator

    for first in range(0, rows, ROWS):
        numbers = torch.arange(first, min(first + ROWS, rows))
        noise = RowGenerator(seed, "sample", first=first)
        given = None if context is None else context[numbers * len(context) // rows]
        shape = len(numbers) if given is None else ()
        yield model.flow.sample(shape, noise, context=given), given
