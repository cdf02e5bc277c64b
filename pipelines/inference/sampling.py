"""``ebflow sample``: rows sampled from a trained flow, and the contexts they are given."""

import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import torch
import tyro
from torch import Tensor

from ebflow.checks import LEAST
from ebflow.checks import check as compare
from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator
from ebflow.refinement import LEAST as FEWEST
from ebflow.refinement import refine as refine_flow
from ebflow.tables import Columns
from ebflow.tables.batches import Batch, regrouped
from pipelines.data.messages import Place
from pipelines.data.reader import encoded
from pipelines.inference import tables
from pipelines.inference.models import Model, ModelName, load

ROWS = 10_000  # Rows that are sampled at a time


def sample(
    model: ModelName,
    output: Path | None = None,
    rows: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None,
    context: tuple[str, ...] = (),
    check: tuple[str, ...] = (),
    refine: bool = False,
    seed: int = 0,
    dry_run: bool = False,
) -> None:
    """Samples rows from a trained flow, in the columns and types of its training data.

    Integers are integers. A conditional flow adds the columns of the contexts: those of a file,
    row by row, or one that is typed. The first rows do not depend on the number of rows.
    The option --refine rejects samples that boosted trees distinguish from training rows. The
    option --check compares with real rows: column shapes, pair trends, predictions learned from
    samples, and C2ST, whether boosted trees distinguish them.

    Arguments:
        output: Parquet or CSV file to write; None with --check: none
        rows: rows for each context; None: 1000, or 1 for each of a file, or as many as --check
        context: a file with the contexts of a conditional flow, or name=value of each
        check: held-out rows to compare with, then training rows, in which to find copies
        refine: let boosted trees reject samples; they learn from 10,000 training rows at most
        seed: seed of the samples
        dry_run: print the number of rows and the columns; write nothing
    """
    if rows is not None and rows < 1:
        raise BadInput(option="--rows", found=rows, expected="at least 1")
    if output is None and not check:
        raise BadInput(option="--output", found="none", expected="a file to write, or --check")
    if len(check) > 2:
        raise BadInput(option="--check", found=f"{len(check)} sources", expected="one or two")
    if output is not None:
        tables.check_output(output, sources=[*check, *context])
    flow = load(model)
    if refine:
        _check_refinable(flow)
    real = [_real(flow, source) for source in check]
    context = context or (check[:1] if flow.context is not None else ())
    contexts, kinds = _contexts(context, flow), tables.schema(flow)
    each = rows or (1 if _is_file(context) else 1000)
    total = each if contexts is None else each * len(contexts)
    total = min(len(real[0]), ROWS) if real and rows is None else total
    if real and total < LEAST:
        raise BadInput(option="--rows", found=total, expected=f"{LEAST} or more with --check")
    print(f"{total} rows of {', '.join(kinds.names)}")
    if dry_run:
        return
    found = refined(flow, total, seed) if refine else samples(flow, total, seed, contexts)
    batches = enumerate(found)
    parts = (tables.table(flow, *batch, first=k * ROWS).cast(kinds) for k, batch in batches)
    parts = [*parts] if real else parts
    if output is not None:
        tables.write(output, iter(parts))
        print(f"written to    {output}")
    if real:
        columns = Columns([*(flow.columns or ()), *(flow.context or ())], "arrow") or None
        print(compare(*real[:1], pa.concat_tables(parts), train=(*real, None)[1], columns=columns))


def _real(model: Model, source: str) -> pa.Table:
    """Returns the rows of a source in the columns of a model and its contexts.

    Raises:
        BadInput: If it has images, or too few rows.
    """
    reader = tables.match(source, model)
    if reader.levels is not None or len(model.flow.event_shape) != 1:
        raise BadInput(file=reader.label, found="images", expected="a table of numbers")
    if reader.rows < LEAST:
        raise BadInput(file=reader.label, found=f"{reader.rows} rows", expected=f"{LEAST} or more")
    parts = tables.sources(reader, ROWS, reader.layout.reads)
    return pa.concat_tables(parts, promote_options="permissive")


def samples(model: Model, rows: int, seed: int, context: Tensor | None = None) -> Iterator[Batch]:
    """Yields samples and their contexts in batches.

    Each context of a conditional flow, with shape (M, C), is that of ``rows`` / M rows.
    """
    for first in range(0, rows, ROWS):
        numbers = torch.arange(first, min(first + ROWS, rows))
        noise = RowGenerator(seed, "sample", first=first)
        contexts = None if context is None else context[numbers * len(context) // rows]
        shape = len(numbers) if contexts is None else ()
        yield Batch(model.flow(contexts).sample_tensor(shape, generator=noise), contexts)


def refined(model: Model, rows: int, seed: int) -> Iterator[Batch]:
    """Yields samples that boosted trees accept, in batches."""
    trees = refine_flow(model.flow, model.reference.rows, seed=seed)

    def accepted() -> Iterator[Batch]:
        for first in count(0, ROWS):
            noise = (RowGenerator(seed, purpose, first=first) for purpose in ("sample", "accept"))
            candidates = model.flow().sample_tensor(ROWS, generator=next(noise))
            yield Batch(trees.accepted(candidates, next(noise)), None)

    for batch in regrouped(accepted(), ROWS):
        yield batch.cut(slice(rows))
        rows -= len(batch.x)
        if rows <= 0:
            return


def _check_refinable(model: Model) -> None:
    """Raises BadInput unless a model has training rows of a table, and no contexts."""
    expected = ""
    if model.flow.context or len(model.flow.event_shape) != 1:
        expected = "a flow of a table, without contexts"
    elif model.reference is None:
        expected = "the folder of a run, which has training rows"
    elif len(model.reference.rows) < FEWEST:
        expected = f"a run with {FEWEST} training rows or more"
    if expected:
        raise BadInput(option="--refine", found=model.label, expected=expected)


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
    if _is_file(words):
        return torch.from_numpy(columns.one_hot(tables.context_codes(words[0], columns)))
    typed = dict(word.partition("=")[::2] for word in words)
    if typed.keys() != set(columns.features):
        found = " ".join(words) or "nothing"
        expected = f"a file, or name=value of {', '.join(columns.features)}"
        raise BadInput(option="--context", found=found, expected=expected)
    row = pa.table({name: [value] for name, value in typed.items()})
    return torch.from_numpy(columns.one_hot(encoded(columns, row, Place("--context", 0))))


def _is_file(words: Sequence[str]) -> bool:
    """Returns True if ``--context`` is a file of contexts, whose name may contain ``=``."""
    return len(words) == 1 and ("=" not in words[0] or os.path.exists(words[0]))  # noqa: PTH110
