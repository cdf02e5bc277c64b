"""``ebflow impute``: what rows lack, drawn from its law given the rest of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines.answers import OfRows
from pipelines.cli.parsing import parse

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from pipelines.answers.matching import Match
    from pipelines.answers.models import Model

ROWS = 250
"""Rows of a block."""

BESIDE = ("_row", "_draw", "_acceptance", "_r_hat")
"""Columns of the output beside those of the data."""


@dataclass(frozen=True)
class Impute(OfRows):
    """Fills in the missing entries of a table, nulls and NaN, by draws given the rest of the row.

    The output has every row as often as it is drawn, in the columns and types of the data that
    the flow was trained on: entries that are there stay as they are; a conditional flow's
    contexts must be whole, and stand behind. Beside them stand _row (its
    number in the source), _draw, and of its Markov chains _acceptance (the share of steps by which
    they moved) and _r_hat (near 1 if the draws have forgotten where they began; rows above 1.1 are
    drawn again by more steps, in the end with leapfrogs). Complete rows have 1 and 1. Interrupted,
    the same command goes on where it stopped.
    """

    draws: int = 5
    """draws of each row"""
    steps: int = 40
    """steps of every chain, an even number"""


def run(words: Sequence[str]) -> int:
    """Fills in a table."""
    options = parse(Impute, words, "ebflow impute")
    if options.draws < 1:
        raise BadInput(f"--draws: found {options.draws}, expected at least 1")
    if options.steps < 4 or options.steps % 2:
        raise BadInput(f"--steps: found {options.steps}, expected an even number of at least 4")
    from pipelines.answers.blocks import Work, answered

    settings = {"draws": options.draws, "steps": options.steps, "seed": options.seed}

    def work(model: "Model", found: "Match") -> Work:
        _check(model, found)
        return Work(model, found, imputations, settings, ROWS)

    return answered(options, work, _tell)


def imputations(
    model: "Model", found: "Match", first: int, last: int, *, draws: int, steps: int, seed: int
) -> "pa.Table":
    """Returns draws of rows ``first`` … ``last`` − 1 of a source, those of a row together."""
    import pyarrow as pa
    import torch

    from ebflow.imputation import impute
    from ebflow.randomness import generator
    from pipelines.answers.contexts import window
    from pipelines.answers.files import columns_table

    x = torch.from_numpy(found.reader.window(first, last, missing=True))
    context, noise = window(found.reader, model, first, last), generator(seed, "impute", first)
    chains = {"draws": draws, "steps": steps, "warmup": steps // 2}
    made = impute(model.flow, x, context=context, generator=noise, **chains)
    given = None if context is None else context.repeat_interleave(draws, 0)
    table = columns_table(model, made.draws.flatten(0, 1), given)
    numbers = torch.arange(first, last).repeat_interleave(draws)
    beside = (
        numbers,
        torch.arange(draws).repeat(last - first),
        made.acceptance.repeat_interleave(draws),
        made.r_hat.repeat_interleave(draws),
    )
    columns = {name: pa.array(values.numpy()) for name, values in zip(BESIDE, beside, strict=True)}
    for place, (name, column) in enumerate(columns.items()):
        table = table.add_column(place, name, column)
    return table


def _check(model: "Model", found: "Match") -> None:
    if found.reader.layout.levels is not None or len(model.flow.event_shape) != 1:
        raise BadInput(f"{found.reader.label}: found images, expected a table of numbers")
    if clash := set(BESIDE) & set(found.reader.layout.reads):
        raise BadInput(
            f"{found.reader.label}: found column {min(clash)}, which the output has for itself, "
            "expected another name"
        )


def _tell(console: "Console", output: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from ebflow.imputation import MIXED

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
