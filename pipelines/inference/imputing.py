"""``ebflow impute``: missing values, sampled given the observed ones."""

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
from pipelines.inference import matching, rows, tables
from pipelines.inference.commands import Impute
from pipelines.inference.models import Model

ROWS = 250
"""Rows of a block."""

ADDED = ("_row", "_draw", "_acceptance", "_r_hat")
"""Columns that the output has in addition to those of the data."""


def run(options: Impute) -> int:
    """Imputes a table."""
    settings = {"draws": options.draws, "steps": options.steps, "seed": options.seed}
    job = rows.Job(options.model, options.data, imputations, settings, ROWS)
    return rows.run(job, options, _report, _check)


def imputations(
    model: Model, reader: Reader, first: int, last: int, *, draws: int, steps: int, seed: int
) -> pa.Table:
    """Returns samples of rows ``first`` … ``last`` − 1 of a source, those of a row together."""
    x, context = matching.rows(reader, first, last, missing=True)
    chains = {"draws": draws, "steps": steps, "warmup": steps // 2}
    noise = generator(seed, "impute", first)
    imputed = impute(model.flow, x, context=context, generator=noise, **chains)
    contexts = None if context is None else context.repeat_interleave(draws, 0)
    table = tables.table(model, imputed.draws.flatten(0, 1), contexts)
    numbers, draw = torch.arange(first, last), torch.arange(draws).repeat(last - first)
    of_rows = [t.repeat_interleave(draws) for t in (numbers, imputed.acceptance, imputed.r_hat)]
    added = (of_rows[0], draw, *of_rows[1:])
    for place, (name, values) in enumerate(zip(ADDED, added, strict=True)):
        table = table.add_column(place, name, pa.array(values.numpy()))
    return table


def _check(model: Model, reader: Reader) -> None:
    """Raises BadInput for images, and for columns whose names the output needs."""
    if reader.levels is not None or len(model.flow.event_shape) != 1:
        raise BadInput(file=reader.label, found="images", expected="a table of numbers")
    if clash := set(ADDED) & set(reader.layout.reads):
        raise BadInput(
            file=reader.label,
            found=f"column {min(clash)}, which the output adds",
            expected="another name",
        )


def _report(console: Console, output: Path) -> None:
    found = pq.read_table(output, columns=list(ADDED)).to_pandas().drop_duplicates("_row")
    imputed = found[found["_r_hat"] != 1]
    console.print(f"rows          {len(found)}, {len(imputed)} of which had missing values")
    if not len(imputed):
        return
    apart = int((imputed["_r_hat"] > MIXED).sum())
    console.print(f"acceptance    {np.mean(imputed['_acceptance']):.2f}")
    console.print(f"R̂             at most {imputed['_r_hat'].max():.3f}")
    if apart:
        console.print(f"warning       {apart} rows have R̂ above {MIXED}: give more --steps")
