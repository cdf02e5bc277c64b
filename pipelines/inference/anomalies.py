"""``ebflow detect``: the rows of a source that are unlikely, and the reasons."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import tyro
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.explanation import Explanation
from ebflow.flow import Flow
from pipelines.data.messages import as_bad_input
from pipelines.data.reader import Reader
from pipelines.inference import tables
from pipelines.inference.models import Model, ModelName, load
from pipelines.inference.reference import p_values

BLOCK = 16_384
"""Rows at a time."""

COMPLETIONS = 4
"""Samples of the missing values of a row, over which its p-value is averaged."""


@dataclass(frozen=True)
class Found:
    """Anomalous rows.

    Attributes:
        rows: Their numbers in the source.
        p_value: Their p-values.
        log_prob: Log-densities of their observed values, −∞ if a value is impossible.
        error: The standard errors of these, 0 for complete rows.
        values: The rows: a table, or numbers without names.
        context: The contexts of rows without names, or None.
    """

    rows: np.ndarray
    p_value: np.ndarray
    log_prob: np.ndarray
    error: np.ndarray
    values: pa.Table | Tensor
    context: Tensor | None


def detect(
    model: ModelName,
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    alpha: float = 0.01,
    output: Path | None = None,
    most: int = 20,
    dry_run: bool = False,
) -> None:
    """Prints the anomalous rows of a table, with p-values and reasons, the least likely first.

    The p-value is the share of the run's test rows that are at most as likely: at most --alpha of
    new normal rows are reported. Missing values are sampled for it. Each reason is a column whose
    value is unlikely given all others. New levels, values outside known bounds, and rows that
    differ from a constant or a linear function of the training rows are always reported.

    Arguments:
        data: the rows: any source that --data.source of `ebflow run density` takes
        alpha: largest p-value of an anomaly; at least 1 / (1 + test rows) is used
        output: Parquet or CSV file to write, with all anomalies, instead of printing them
        most: anomalies that are printed
        dry_run: print the number of rows; report nothing
    """
    if not 0 < alpha < 1:
        raise BadInput(option="--alpha", found=alpha, expected="a number between 0 and 1")
    if output is not None:
        tables.check_output(output)
    flow = load(model)
    if flow.reference is None:
        expected = "the folder of a run, which has log-densities of test rows"
        raise BadInput(option="MODEL", found=repr(model), expected=expected)
    reader = tables.match(data, flow, missing="impute", new_levels=True)
    print(f"{reader.label}: {reader.rows} rows")
    if dry_run:
        return
    torch.set_num_threads(1)
    least = 1 / (1 + len(flow.reference.test))
    if alpha < least:
        print(f"warning       --alpha is {least:.2g}, the least p-value among "
              f"{len(flow.reference.test)} test rows")  # fmt: skip
        alpha = least
    with as_bad_input():
        found = [_anomalies(flow, alpha, *block) for block in _blocks(flow, reader)]
        report(flow, found, alpha, output, most)


def report(
    model: Model, blocks: list[Found], alpha: float, output: Path | None, most: int
) -> None:
    """Prints or writes the anomalies of blocks of rows."""
    count = sum(len(b.rows) for b in blocks)
    print(f"anomalies     {count}: p ≤ {alpha:.2g} among {len(model.reference.test)} test rows, "
          "or impossible values")  # fmt: skip
    order = sorted(
        (b.p_value[k], b.log_prob[k], i, k) for i, b in enumerate(blocks)
        for k in range(len(b.rows))
    )  # fmt: skip
    shown = order if output is not None else order[:most]
    parts = [_explained(model.flow, b, sorted(k for *_, j, k in shown if j == i))
             for i, b in enumerate(blocks)]  # fmt: skip
    table = pa.concat_tables(parts).sort_by([("p_value", "ascending"), ("log_prob", "ascending")])
    if output is not None:
        tables.write(output, iter([table]))
        print(f"written to    {output}")
        return
    for row in table.to_pylist():
        error = f" ± {row['log_prob_error']:.2g}" if row["log_prob_error"] else ""
        print(
            f"\nrow {row['row']}: p = {row['p_value']:.2g}, log p = {row['log_prob']:.4g}{error}"
        )
        for reason in filter(None, row["reasons"].split("; ")):
            print(f"  {reason}")
    if len(order) > most:
        print(f"\n… and {len(order) - most} more: --most, or --output")


def _blocks(
    model: Model, reader: Reader
) -> Iterator[tuple[int, pa.Table | Tensor, Tensor | None]]:
    """Yields the numbers of the first rows of blocks, the rows, and contexts without names."""
    first = 0
    if model.columns is None:
        for x, context in tables.batches(reader):
            yield first, x, context
            first += len(x)
        return
    columns = [*model.columns, *(model.context or ())]
    for part in reader.parts:
        names = [c.name for c in columns if c.name in part.schema.names]
        for batch, _ in part.batches(names, BLOCK):
            yield first, pa.table(batch), None
            first += len(batch)


def _anomalies(
    model: Model, alpha: float, first: int, values: pa.Table | Tensor, context: Tensor | None
) -> Found:
    flow = model.flow
    x, context_rows = flow.as_events(values), flow.as_context(flow.context_of(values, context))
    log_p, error = (t.detach() for t in flow(context_rows).log_prob_and_error(values))
    log_p = torch.where(log_p.isnan(), -torch.inf, log_p).double()
    p = p_values(model.reference.test, log_p)
    some = (x.isnan().any(1) & log_p.isfinite()).nonzero().flatten()
    if len(some):
        own = None if context_rows is None else context_rows[some]
        p[some] = _of_completions(flow, x[some], own, model.reference.test)
    chosen = ((p <= alpha) | log_p.isinf()).nonzero().flatten()
    rows = values.take(chosen.numpy()) if isinstance(values, pa.Table) else values[chosen]
    numbers = (t[chosen].double().numpy() for t in (p, log_p, error))
    return Found((first + chosen).numpy(), *numbers, rows,
                 None if context is None else context[chosen])  # fmt: skip


def _of_completions(flow: Flow, x: Tensor, context: Tensor | None, test: Tensor) -> Tensor:
    """Returns the mean p-values of samples of the missing values."""
    copies = flow.impute(x, context=context, draws=COMPLETIONS)
    p = [p_values(test, flow(context).log_prob(copy).detach().double()) for copy in copies]
    return torch.stack(p).mean(0)


def _explained(flow: Flow, block: Found, chosen: list[int]) -> pa.Table:
    """Returns the table of some anomalies of a block."""
    reasons: list[str] = []
    if chosen:
        table = isinstance(block.values, pa.Table)
        values = block.values.take(chosen) if table else block.values[chosen]
        context = None if block.context is None else block.context[chosen]
        found = flow.explain(values, context=context)
        reasons = ["; ".join(_reasons(found, row)) for row in range(len(chosen))]
    numbers = {
        "row": block.rows[chosen], "p_value": block.p_value[chosen],
        "log_prob": block.log_prob[chosen], "log_prob_error": block.error[chosen],
    }  # fmt: skip
    return pa.table({**numbers, "reasons": pa.array(reasons, pa.string())})


def _reasons(found: Explanation, row: int) -> list[str]:
    """Returns the reasons of a row: the likely ones, or else the column of the least p-value."""
    return found.reasons(row) or found.reasons(row, most=1, at_most=math.inf)
