"""``ebflow detect``: the anomalous rows of a source, and the reasons."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import tyro
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ebflow.bijections import Cells
from ebflow.detection import p_values
from ebflow.detector import FlowDetector
from ebflow.errors import BadInput
from ebflow.tables.adapter import differing
from ebflow.tables.frames import read
from pipelines.data.messages import as_bad_input
from pipelines.data.reader import Reader
from pipelines.inference import tables
from pipelines.inference.models import Model, ModelName, load
from pipelines.inference.reference import p_values as ranked

BLOCK = 16_384  # Rows at a time


@dataclass(frozen=True)
class Detection:
    """The detector of a run, and the columns that it compares."""

    model: Model  #: The run's flow, which gives the reasons
    detector: FlowDetector  #: The detector, fitted to training rows of the run
    names: list[str]  #: The columns of a table that it compares; empty for rows without names
    never_missing: list[str]  #: Those in which none of these rows lacks a value

    @classmethod
    def of(cls, model: Model, reader: Reader) -> "Detection":
        """Fits a detector to the training rows of a run, by the columns that a source has.

        Identifiers are ignored, because all of theirs are new.
        """
        reference, detector = model.reference, FlowDetector()
        if model.columns is None:
            both = torch.cat([reference.rows, reference.context], 1).double()
            return cls(model, detector.fit(both.numpy()), [], [])
        rows = tables.decoded(model.columns, reference.rows.double().numpy())
        if model.context is not None:
            rows = tables.with_contexts(rows, model.context, reference.context)
        # Restored columns lack no value in these rows: some training rows may have lacked theirs.
        others = {c.name for c in model.columns
                  if c.is_ignored or (c.dropped and c.missing)}  # fmt: skip
        present = set.intersection(*(set(part.schema.names) for part in reader.parts))
        rows = rows.select([name for name in rows.column_names if name in present - others])
        never = [name for name in rows.column_names if not rows[name].null_count]
        return cls(model, detector.fit(rows), rows.column_names, never)

    @property
    def held_out(self) -> int:
        """The number of held-out rows that the detector compares with."""
        return len(self.detector.held_out_scores_)

    @property
    def least(self) -> float:
        """The least p-value."""
        return 2 / (1 + self.held_out)

    def scores(self, values: pa.Table | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores of rows, higher for normal ones, and their p-values, (N,) each.

        The p-value is twice the smaller one of the detector's and of the log-density's. Incomplete
        rows have that of the detector alone.
        """
        flow, (x, context) = self.model.flow, self._divided(values)
        context = flow.as_context(flow.context_of(x, context))  # raises errors at unknown levels
        rows = values.select(self.names) if self.names else values.double().numpy()
        scores, x = self.detector.score_samples(rows), flow.as_events(x)
        complete, log_p = ~x.flatten(1).isnan().any(1), torch.zeros(len(x)).double()
        those = None if context is None else context[complete]
        log_p[complete] = flow.log_prob(x[complete], context=those).detach().double()
        scores[(log_p.isnan() | log_p.isneginf() | self._impossible(values, x)).numpy()] = -np.inf
        p = p_values(-scores, self.detector.held_out_scores_)
        other = ranked(self.model.reference.test, log_p).where(complete, 1.0).numpy()
        return scores, np.minimum(1.0, 2 * np.minimum(p, other))

    def _impossible(self, values: pa.Table | Tensor, x: Tensor) -> Tensor:
        """Returns True for rows that break a rule of the training rows, or a known bound."""
        flow = self.model.flow
        broken, cells = differing(values, flow.columns), flow.dequantizer
        if not isinstance(cells, Cells):
            return broken
        outside = cells.outside(flow.dequantize(x)).cpu() & ~x.isnan().cpu()
        return broken | outside.any(1)

    def _divided(self, values: pa.Table | Tensor) -> tuple[pa.Table | Tensor, Tensor | None]:
        """Returns rows, and the contexts of rows without names."""
        if isinstance(values, pa.Table):
            return values, None
        width = values.shape[1] - self.model.flow.context
        return values[:, :width], values[:, width:] if self.model.flow.context else None

    def reasons(self, values: pa.Table | Tensor) -> list[str]:
        """Returns the reasons of rows: missing values of whole columns, and unlikely values.

        Images have none.
        """
        flow = self.model.flow
        if len(self.model.arrays.get("shape") or flow.event_shape) > 1:
            return [""] * len(values)
        x, context = self._divided(values)
        found = flow.explain(x, context=context)
        reasons = [found.reasons(row) or found.reasons(row, most=1, at_most=math.inf)
                   for row in range(len(found))]  # fmt: skip
        return ["; ".join([*self._missing(values, row), *own]) for row, own in enumerate(reasons)]

    def _missing(self, values: pa.Table | Tensor, row: int) -> list[str]:
        return [f"{name} is missing: expected a value, as all compared training rows have"
                for name in self.never_missing
                if read(values[name][row : row + 1], name).missing[0]]  # fmt: skip


def detect(
    model: ModelName,
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    alpha: float = 0.01,
    output: Path | None = None,
    most: int = 20,
    dry_run: bool = False,
) -> None:
    """Prints the anomalous rows of a table, with p-values and reasons, the most anomalous first.

    A detector (ebflow.sklearn.FlowDetector) compares them with at most 10,000 training rows, and
    the flow's log-density compares complete rows with test rows. At most about a share --alpha of
    normal rows is reported. Each reason is a column whose value is unlikely given all others. Rows
    with a new level in a column without rare ones, or a first missing value of a column, are
    reported unless many held-out rows have such values. New values of a column in which every
    value is repeated, values outside known bounds, and rows that differ from a constant or a
    linear function of the training rows are always reported.

    Arguments:
        data: the rows: any source that --data.source of `ebflow run density` takes
        alpha: largest p-value of an anomaly; at least 2 / (1 + held-out rows) is used
        output: Parquet or CSV file to write, with all anomalies, instead of printing them
        most: anomalies that are printed
        dry_run: print the number of rows; report nothing
    """
    if not 0 < alpha <= 1:
        raise BadInput(option="--alpha", found=alpha, expected="a number above 0, at most 1")
    if output is not None:
        tables.check_output(output, sources=[data])
    trained = load(model)
    if trained.reference is None:
        expected = "the folder of a run, which has training rows to compare with"
        raise BadInput(option="MODEL", found=repr(model), expected=expected)
    reader = tables.match(data, trained, new_levels=True)
    print(f"{reader.label}: {reader.rows} rows")
    if dry_run:
        return
    torch.set_num_threads(1)
    with as_bad_input(reader.label), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of one of several scores
        detection = Detection.of(trained, reader)
        if alpha < detection.least:
            print(f"warning       --alpha is {detection.least:.2g}, the least p-value among "
                  f"{detection.held_out} held-out rows")  # fmt: skip
        report(detection, reader, max(alpha, detection.least), output, most)


def report(
    detection: Detection, reader: Reader, alpha: float, output: Path | None, most: int
) -> None:
    """Prints or writes the anomalies of a source."""
    found, values = _anomalies(detection, alpha, reader)
    order = np.lexsort([found["row"], found["score"], found["p_value"]])
    print(f"anomalies     {len(found)}: p ≤ {alpha:.2g} among {detection.held_out} held-out rows, "
          "or impossible values")  # fmt: skip
    shown = order if output is not None else order[:most]
    reasons = detection.reasons(_taken(values, shown)) if len(shown) else []
    table = found.take(shown).append_column("reasons", pa.array(reasons, pa.string()))
    if output is not None:
        tables.write(output, iter([table]))
        print(f"written to    {output}")
        return
    for row in table.to_pylist():
        print(f"\nrow {row['row']}: p = {row['p_value']:.2g}, score {row['score']:.4g}")
        for reason in filter(None, row["reasons"].split("; ")):
            print(f"  {reason}")
    if len(found) > most:
        print(f"\n… and {len(found) - most} more: --most, or --output")


def _anomalies(
    detection: Detection, alpha: float, reader: Reader
) -> tuple[pa.Table, pa.Table | Tensor]:
    """Returns the numbers of the anomalies of a source, and their values."""
    first, numbers, rows = 0, [], []
    for values in _blocks(detection.model, reader):
        scores, p = detection.scores(values)
        chosen = np.flatnonzero(p <= alpha)
        found = {"row": first + chosen, "p_value": p[chosen], "score": scores[chosen]}
        numbers.append(pa.table(found))
        rows.append(_taken(values, chosen))
        first += len(values)
    values = pa.concat_tables(rows, promote_options="permissive") if detection.names \
        else torch.cat(rows)  # fmt: skip
    return pa.concat_tables(numbers), values


def _blocks(model: Model, reader: Reader) -> Iterator[pa.Table | Tensor]:
    """Returns blocks of rows; rows without names (N, D + C) are followed by their contexts."""
    if model.columns is not None:
        names = [column.name for column in (*model.columns, *(model.context or ()))]
        return tables.sources(reader, BLOCK, names)
    batches = tables.batches(reader)
    return (x.flatten(1) if c is None else torch.cat([x.flatten(1), c], 1) for x, c in batches)


def _taken(values: pa.Table | Tensor, rows: np.ndarray) -> pa.Table | Tensor:
    return values.take(rows) if isinstance(values, pa.Table) else values[rows]
