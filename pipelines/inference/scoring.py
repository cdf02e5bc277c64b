"""``ebflow score``: the log-density of every row, and how unlikely it is."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from ebflow.evaluation import log_probs
from ebflow.tables.rows import Rows
from pipelines.data.reader import Reader
from pipelines.inference import matching, rows
from pipelines.inference.commands import Score
from pipelines.inference.models import Model
from pipelines.inference.reference import p_values, ranks

ROWS = 16_384
"""Rows of a block."""

LOW = 0.05
"""The p-value up to which rows are counted as unlikely."""


def run(options: Score) -> int:
    """Scores a source."""
    job = rows.Job(options.model, options.data, scores, {"seed": options.seed}, ROWS)
    return rows.run(job, options, _report)


def scores(model: Model, reader: Reader, first: int, last: int, *, seed: int) -> pa.Table:
    """Returns the scores of rows ``first`` … ``last`` − 1 of a source.

    If the flow overflows, the log-density is −∞.
    """
    found = Rows(*matching.rows(reader, first, last), levels=reader.levels)
    nats = log_probs(model.flow, found, seed=seed)
    nats = nats.where(~nats.isnan(), -math.inf)
    columns = {"log_prob": nats}
    if found.levels is not None:
        columns["bits_per_dim"] = -nats / (found.width * math.log(2))
    if model.reference is not None:
        train, test = model.reference.train, model.reference.test
        columns["rank"] = ranks(train, nats)
        columns["p_value"], columns["p_value_test"] = p_values(train, nats), p_values(test, nats)
    return pa.table({name: column.numpy() for name, column in columns.items()})


def _report(console: Console, output: Path) -> None:
    found = pq.read_table(output)
    console.print(f"mean log p    {pc.mean(found['log_prob']).as_py():.4f} nats")
    if "p_value_test" not in found.column_names:
        console.print("p-values      none: the checkpoint has no log-densities of training rows")
        return
    for name in ("p_value", "p_value_test"):
        low = pc.sum(pc.less_equal(found[name], LOW)).as_py()
        console.print(f"{name:<13} {low} of {len(found)} rows have at most {LOW}")
