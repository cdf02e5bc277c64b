"""``ebflow impute``: what rows lack, drawn from its law given the rest of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from ebflow.errors import BadInput
from ebflow.imputation import MIXED, impute
from ebflow.randomness import generator
from pipelines.data.reader import Reader
from pipelines.inference import matching, tables
from pipelines.inference.blocks import Question, answered
from pipelines.inference.commands import Impute
from pipelines.inference.models import Model, opened

ROWS = 250
"""Rows of a block."""

BESIDE = ("_row", "_draw", "_acceptance", "_r_hat")
"""Columns of the output beside those of the data."""


def run(options: Impute) -> int:
    """Fills in a table."""
    settings = {"draws": options.draws, "steps": options.steps, "seed": options.seed}
    with opened(options.model) as model:
        question = Question(model, options.data, imputations, settings, ROWS)
        _check(question)
        return answered(question, options, _tell)


def imputations(
    model: Model, reader: Reader, first: int, last: int, *, draws: int, steps: int, seed: int
) -> pa.Table:
    """Returns draws of rows ``first`` … ``last`` − 1 of a source, those of a row together."""
    x, context = matching.rows(reader, first, last, missing=True)
    chains = {"draws": draws, "steps": steps, "warmup": steps // 2}
    noise = generator(seed, "impute", first)
    made = impute(model.flow, x, context=context, generator=noise, **chains)
    given = None if context is None else context.repeat_interleave(draws, 0)
    table = tables.table(model, made.draws.flatten(0, 1), given)
    numbers, draw = torch.arange(first, last), torch.arange(draws).repeat(last - first)
    of_rows = [t.repeat_interleave(draws) for t in (numbers, made.acceptance, made.r_hat)]
    beside = (of_rows[0], draw, *of_rows[1:])
    for place, (name, values) in enumerate(zip(BESIDE, beside, strict=True)):
        table = table.add_column(place, name, pa.array(values.numpy()))
    return table


def _check(question: Question) -> None:
    reader = question.reader
    if reader.levels is not None or len(question.model.flow.event_shape) != 1:
        raise BadInput(f"{reader.label}: found images, expected a table of numbers")
    if clash := set(BESIDE) & set(reader.layout.reads):
        raise BadInput(
            f"{reader.label}: found column {min(clash)}, which the output has for itself, "
            "expected another name"
        )


def _tell(console: Console, output: Path) -> None:
    found = pq.read_table(output, columns=list(BESIDE)).to_pandas().drop_duplicates("_row")
    drawn = found[found["_r_hat"] != 1]
    console.print(f"rows          {len(found)}, {len(drawn)} of which lacked entries")
    if not len(drawn):
        return
    apart = int((drawn["_r_hat"] > MIXED).sum())
    console.print(f"acceptance    {np.mean(drawn['_acceptance']):.2f}")
    console.print(f"R̂             at most {drawn['_r_hat'].max():.3f}")
    if apart:
        console.print(f"warning       {apart} rows have R̂ above {MIXED}: give more --steps")
