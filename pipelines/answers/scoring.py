"""``ebflow score``: the log-density of every row, and how unlikely it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.answers import OfRows
from pipelines.cli.parsing import parse

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from pipelines.answers.matching import Match
    from pipelines.answers.models import Model

ROWS = 16_384
"""Rows of a block."""

LOW = 0.05
"""The p-value up to which rows are counted as unlikely."""


@dataclass(frozen=True)
class Score(OfRows):
    """Scores rows by a trained flow, in the order of the source.

    The output has the columns log_prob (nats, of the raw data), bits_per_dim (of integer data),
    and of a flow that `ebflow run density` trained: rank, the number of training rows (of 10,000
    at most) that are as unlikely or more so; p_value, (1 + rank) / (1 + training rows), too small
    if the flow over-fits; and p_value_test, the same among the test rows, which is exact. Columns
    are matched by name, arrays by position. Interrupted, the same command goes on where it
    stopped. With RAY_ADDRESS set, a cluster scores.
    """


def run(words: Sequence[str]) -> int:
    """Scores a source."""
    options = parse(Score, words, "ebflow score")
    from pipelines.answers.blocks import Work, answered

    def work(model: "Model", found: "Match") -> Work:
        return Work(model, found, scores, {"seed": options.seed}, ROWS)

    return answered(options, work, _tell)


def scores(model: "Model", found: "Match", first: int, last: int, *, seed: int) -> "pa.Table":
    """Returns the scores of rows ``first`` … ``last`` − 1 of a source.

    Where the flow overflows, the log-density is −∞.
    """
    import pyarrow as pa
    import torch

    from ebflow.data.memory import Rows
    from ebflow.evaluation import log_probs
    from pipelines.answers.contexts import window
    from pipelines.answers.reference import p_values, ranks

    rows = Rows(
        torch.from_numpy(found.reader.window(first, last)),
        window(found.reader, model, first, last),
        levels=found.reader.layout.levels,
    )
    nats = log_probs(model.flow, rows, seed=seed, first=first)
    nats = nats.where(~nats.isnan(), -math.inf)
    columns = {"log_prob": nats}
    if rows.levels is not None:
        columns["bits_per_dim"] = -nats / (rows.width * math.log(2))
    if model.reference is not None:
        train, test = model.reference.train, model.reference.test
        columns["rank"] = ranks(train, nats)
        columns["p_value"], columns["p_value_test"] = p_values(train, nats), p_values(test, nats)
    return pa.table({name: column.numpy() for name, column in columns.items()})


def _tell(console: "Console", output: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = pq.read_table(output)
    console.print(f"mean log p    {pc.mean(found['log_prob']).as_py():.4f} nats")
    if "p_value_test" in found.column_names:
        for name in ("p_value", "p_value_test"):
            low = pc.sum(pc.less_equal(found[name], LOW)).as_py()
            console.print(f"{name:<13} {low} of {len(found)} rows have one up to {LOW}")
    else:
        console.print("p-values      none: the checkpoint has no log-densities of training rows")
