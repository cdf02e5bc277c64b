"""``ebflow sample``: rows sampled from a trained flow, and the contexts they are given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import torch
import tyro
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator
from ebflow.tables.batches import Batch
from pipelines.data.messages import Place
from pipelines.data.schema import encoded
from pipelines.inference import tables
from pipelines.inference.matching import context_codes
from pipelines.inference.models import Model, ModelName, load

ROWS = 10_000
"""Rows that are sampled at a time."""


@dataclass(frozen=True)
class Sample:
    """Samples rows from a trained flow, in the columns and types of its training data.

    Integers are integers. A conditional flow adds the columns of the contexts: those of a file,
    row by row, or one that is typed. The first rows do not depend on the number of rows.
    """

    model: ModelName
    output: Path
    """Parquet file to write"""
    rows: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None
    """number of rows for each context; None: 1 for each of a file, 1000 if there is only one"""
    context: tuple[str, ...] = ()
    """of a conditional flow: a file with the columns of its contexts, or name=value of each"""
    seed: int = 0
    """seed of the samples"""
    dry_run: bool = False
    """print the number of rows and the columns; write nothing"""


def sample(words: Sequence[str]) -> int:
    """Samples rows."""
    options = tyro.cli(Sample, prog="ebflow sample", args=words)
    if options.rows is not None and options.rows < 1:
        raise BadInput(option="--rows", found=options.rows, expected="at least 1")
    tables.check_output(options.output)
    model = load(options.model)
    context, kinds = _contexts(options.context, model), tables.schema(model)
    each = options.rows or (1 if context is not None and len(context) > 1 else 1000)
    count = each if context is None else each * len(context)
    print(f"{count} rows of {', '.join(kinds.names)}")
    if options.dry_run:
        return 0
    batches = enumerate(samples(model, count, options.seed, context))
    rows = (tables.table(model, *batch, first=k * ROWS) for k, batch in batches)
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
        contexts = None if context is None else context[numbers * len(context) // rows]
        shape = len(numbers) if contexts is None else ()
        yield Batch(model.flow(contexts).sample_tensor(shape, generator=noise), contexts)


def _contexts(words: Sequence[str], model: Model) -> Tensor | None:
    """Returns the contexts of ``--context``, (M, C); None for a flow without contexts.

    Raises:
        BadInput: If a column is missing or unknown, or a value is not a known level.
    """
    columns = model.context
    if columns is None:
        if words:
            expected = f"none: {model.label} is not conditional"
            raise BadInput(option="--context", found=words[0], expected=expected)
        return None
    if len(words) == 1 and "=" not in words[0]:
        return torch.from_numpy(columns.one_hot(context_codes(words[0], columns)))
    typed = dict(word.partition("=")[::2] for word in words)
    if typed.keys() != set(columns.features):
        found = " ".join(words) or "nothing"
        expected = f"a file, or name=value of {', '.join(columns.features)}"
        raise BadInput(option="--context", found=found, expected=expected)
    row = pa.table({name: [value] for name, value in typed.items()})
    return torch.from_numpy(columns.one_hot(encoded(columns, row, Place("--context", 0))))
