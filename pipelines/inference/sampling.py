"""``ebflow sample``: rows drawn from a trained flow."""

from collections.abc import Iterator
from itertools import count as count_from

import torch

from ebflow.randomness import RowGenerator
from ebflow.tables.batches import Batch
from pipelines.inference import tables
from pipelines.inference.commands import Sample
from pipelines.inference.contexts import in_file, parse_contexts
from pipelines.inference.models import Model, opened

ROWS = 10_000
"""Rows that are drawn at a time."""


def run(options: Sample) -> int:
    """Draws rows."""
    with opened(options.model) as model:
        context, kinds = parse_contexts(options.context, model), tables.schema(model)
        each = options.rows or (1 if in_file(options.context) else 1000)
        count = each if context is None else each * len(context)
        print(f"{count} rows of {', '.join(kinds.names)}")
        if options.dry_run:
            return 0
        draws = drawn(model, count, options.seed, context)
        numbered = zip(count_from(0, ROWS), draws, strict=False)
        rows = (tables.table(model, *some, first=first) for first, some in numbered)
        tables.write(options.output, kinds, rows)
    print(f"written to    {options.output}")
    return 0


def drawn(
    model: Model, rows: int, seed: int, context: torch.Tensor | None = None
) -> Iterator[Batch]:
    """Yields samples and their contexts, so many rows together.

    Arguments:
        model: The flow.
        rows: How many; a multiple of the contexts'.
        seed: Where they come from.
        context: Contexts with shape (M, C), the same number of rows of each in turn; None of a
            flow without.
    """
    for first in range(0, rows, ROWS):
        numbers = torch.arange(first, min(first + ROWS, rows))
        noise = RowGenerator(seed, "sample", first=first)
        given = None if context is None else context[numbers * len(context) // rows]
        shape = len(numbers) if given is None else ()
        yield Batch(model.flow(given).sample_tensor(shape, generator=noise), given)
