"""``ebflow sample``: rows sampled from a trained flow, and the contexts they are given."""

from collections.abc import Iterator, Sequence
from itertools import count as count_from

import pyarrow as pa
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator, normal
from ebflow.tables import Columns
from ebflow.tables.batches import Batch
from pipelines.data.messages import Place
from pipelines.data.schema import encoded
from pipelines.inference import tables
from pipelines.inference.commands import Sample
from pipelines.inference.matching import context_codes
from pipelines.inference.models import Model, opened
from pipelines.inference.tables import codes_of

ROWS = 10_000
"""Rows that are sampled at a time."""


def run(options: Sample) -> int:
    """Samples rows."""
    with opened(options.model) as model:
        context, kinds = parse_contexts(options.context, model), tables.schema(model)
        each = options.rows or (1 if in_file(options.context) else 1000)
        count = each if context is None else each * len(context)
        print(f"{count} rows of {', '.join(kinds.names)}")
        if options.dry_run:
            return 0
        batches = samples(model, count, options.seed, context)
        numbered = zip(count_from(0, ROWS), batches, strict=False)
        rows = (tables.table(model, *batch, first=first) for first, batch in numbered)
        tables.write(options.output, kinds, rows)
    print(f"written to    {options.output}")
    return 0


def samples(model: Model, rows: int, seed: int, context: Tensor | None = None) -> Iterator[Batch]:
    """Yields samples and their contexts in batches.

    Arguments:
        model: The flow.
        rows: The number of rows, a multiple of that of the contexts.
        seed: Seed of the noise.
        context: Contexts with shape (M, C), each for the same number of rows; None for a flow
            without contexts.
    """
    for first in range(0, rows, ROWS):
        numbers = torch.arange(first, min(first + ROWS, rows))
        noise = RowGenerator(seed, "sample", first=first)
        given = None if context is None else context[numbers * len(context) // rows]
        shape = len(numbers) if given is None else ()
        yield Batch(model.flow(given).sample_tensor(shape, generator=noise), given)


def in_file(words: Sequence[str]) -> bool:
    """Returns True if the words are the name of a file of contexts."""
    return len(words) == 1 and "=" not in words[0]


def parse_contexts(words: Sequence[str], model: Model) -> Tensor | None:
    """Returns the contexts of ``--context``, (M, C); None for a flow without contexts.

    Arguments:
        words: A file, or ``name=value`` of every column.
        model: The flow.

    Raises:
        BadInput: If a column is missing or unknown, or a value is not a known level.
    """
    if model.context is None:
        if words:
            raise BadInput(
                option="--context",
                found=words[0],
                expected=f"none: {model.label} is not conditional",
            )
        return None
    columns = model.context
    if in_file(words):
        codes = context_codes(words[0], columns)
    else:
        codes = encoded(columns, _typed(words, columns), Place("--context", 0))
    return torch.from_numpy(columns.one_hot(codes))


def _typed(words: Sequence[str], columns: Columns) -> pa.Table:
    """Returns the table of one row from ``name=value`` of its columns."""
    typed = dict(word.partition("=")[::2] for word in words)
    names = [column.name for column in columns.modelled]
    if typed.keys() != set(names):
        raise BadInput(
            option="--context",
            found=" ".join(words) or "nothing",
            expected=f"a file, or name=value of {', '.join(names)}",
        )
    return pa.table({name: [value] for name, value in typed.items()})


def spread(model: Model, count: int) -> Tensor | None:
    """Returns contexts spread as those of the training rows, with shape (count, C).

    Each category has its likeliest level. The result is None for a flow without contexts.
    """
    if model.context is None:
        return None
    flow = model.flow
    like = torch.zeros((), dtype=flow.dtype)
    noise = normal((count, flow.context), like, RowGenerator(0, "context"))
    contexts = (flow.context_mean + noise / flow.context_scale).double().numpy()
    return torch.from_numpy(model.context.one_hot(codes_of(model.context, contexts)))
