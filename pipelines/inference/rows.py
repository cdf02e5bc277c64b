"""``ebflow score`` and ``ebflow impute``: tables about all rows of a source, block by block.

This process reads the source. It computes the blocks itself, or sends their rows to tasks of Ray.
Every process uses one thread and loads the same model, so the results are the same to the bit.
"""

import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import tyro
from rich.console import Console
from rich.progress import track

from ebflow.errors import BadInput
from ebflow.evaluation import log_probs
from ebflow.imputation import MIXED
from ebflow.imputation import impute as imputed_rows
from ebflow.randomness import generator
from ebflow.tables.batches import Batch, regrouped
from ebflow.tables.rows import Rows
from pipelines.cluster import connection
from pipelines.data.reader import Reader
from pipelines.errors import failure
from pipelines.inference import tables
from pipelines.inference.matching import batches, match
from pipelines.inference.models import REGISTERED, Model, ModelName, load
from pipelines.inference.reference import p_values, ranks
from pipelines.reporting.terminal import terminal

MOST_TASKS = 100
"""Tasks of Ray at a time, if the user does not limit them; a cluster starts nodes for them."""

LOW = 0.05
"""The p-value up to which rows are counted as unlikely."""

ADDED = ("_row", "_draw", "_acceptance", "_r_hat")
"""Columns of imputed rows in addition to those of the data."""


@dataclass(frozen=True)
class Command(ABC):
    """A command that reads rows, and its options."""

    model: ModelName
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """the rows: any source that --data.source of `ebflow run density` takes"""
    output: Path
    """Parquet file to write"""
    seed: int = 0
    """seed of samples, and of the dequantization noise of integers"""
    workers: int | None = None
    """tasks of Ray at a time, one core each; None: this process, or the cluster at RAY_ADDRESS"""
    dry_run: bool = False
    """print the rows and columns; write nothing"""

    SIZE: ClassVar[int]
    """Rows of a block."""
    MISSING: ClassVar[str | None] = None
    """The policy of the reader for missing values."""

    def check(self, model: Model, reader: Reader) -> None:
        """Raises BadInput if the command cannot be run on these rows."""
        if self.workers is not None and self.workers < 1:
            raise BadInput(option="--workers", found=self.workers, expected="at least 1")

    @abstractmethod
    def table(self, model: Model, first: int, rows: Batch) -> pa.Table:
        """Returns the table about a block of rows, the first of which has a number."""

    @abstractmethod
    def report(self, console: Console) -> None:
        """Prints a summary of the output."""


@dataclass(frozen=True)
class Score(Command):
    """Scores rows by a trained flow, in the order of the source.

    The output has the columns log_prob (nats, of the raw data) and bits_per_dim (integer data).
    A flow trained by `ebflow run density` adds rank, the number of training rows (10,000 at most)
    that are at least as unlikely; p_value, (1 + rank) / (1 + training rows), which is too small
    if the flow overfits; and p_value_test, the same for test rows, which is exact. Columns are
    matched by name. If RAY_ADDRESS is set, a cluster scores.
    """

    SIZE: ClassVar[int] = 16_384

    def table(self, model: Model, first: int, rows: Batch) -> pa.Table:
        """Returns the scores; if the flow overflows, the log-density is −∞."""
        rows = Rows(*rows, levels=model.arrays.get("levels"))
        nats = log_probs(model.flow, rows, seed=self.seed)
        nats = nats.where(~nats.isnan(), -math.inf)
        columns = {"log_prob": nats}
        if rows.levels is not None:
            columns["bits_per_dim"] = -nats / (rows.width * math.log(2))
        if model.reference is not None:
            train, test = model.reference.train, model.reference.test
            columns["rank"], columns["p_value"] = ranks(train, nats), p_values(train, nats)
            columns["p_value_test"] = p_values(test, nats)
        return pa.table({name: column.numpy() for name, column in columns.items()})

    def report(self, console: Console) -> None:
        """Prints the mean log-density, and how many rows are unlikely."""
        scores = pq.read_table(self.output)
        console.print(f"mean log p    {pc.mean(scores['log_prob']).as_py():.4f} nats")
        for name in scores.column_names:
            if name.startswith("p_value"):
                low = pc.sum(pc.less_equal(scores[name], LOW)).as_py()
                console.print(f"{name:<13} {low} of {len(scores)} rows have at most {LOW}")


@dataclass(frozen=True)
class Impute(Command):
    """Samples missing values (nulls and NaN) of a table given the observed ones, by MCMC.

    The output has --draws copies of every row, in the columns and types of the data that the flow
    was trained on, and then the contexts of a conditional flow, which must be complete. Observed
    values stay as they are. Further columns are _row (the number in the source), _draw,
    _acceptance (the share of steps by which the row's Markov chains moved) and _r_hat (near 1 if
    the chains have mixed; rows above 1.1 are resampled with more steps, and then by Hamiltonian
    Monte Carlo). Complete rows have 1 and 1.
    """

    draws: int = 5
    """samples of each row"""
    steps: int = 40
    """steps of each Markov chain, an even number"""

    SIZE: ClassVar[int] = 250
    MISSING: ClassVar[str | None] = "impute"

    def check(self, model: Model, reader: Reader) -> None:
        """Raises BadInput for images, and for columns whose names the output needs."""
        super().check(model, reader)
        if self.draws < 1:
            raise BadInput(option="--draws", found=self.draws, expected="at least 1")
        if self.steps < 4 or self.steps % 2:
            expected = "an even number of at least 4"
            raise BadInput(option="--steps", found=self.steps, expected=expected)
        if reader.levels is not None or len(model.flow.event_shape) != 1:
            raise BadInput(file=reader.label, found="images", expected="a table of numbers")
        if clash := set(ADDED) & set(reader.layout.reads):
            found = f"column {min(clash)}, which the output adds"
            raise BadInput(file=reader.label, found=found, expected="another name")

    def table(self, model: Model, first: int, rows: Batch) -> pa.Table:
        """Returns samples, those of a row together."""
        x, context = rows
        chains = {"draws": self.draws, "steps": self.steps, "warmup": self.steps // 2}
        noise = generator(self.seed, "impute", first)
        imputed = imputed_rows(model.flow, x, context=context, generator=noise, **chains)
        contexts = None if context is None else context.repeat_interleave(self.draws, 0)
        table = tables.table(model, imputed.draws.flatten(0, 1), contexts)
        of_rows = (first + torch.arange(len(x)), imputed.acceptance, imputed.r_hat)
        number, acceptance, r_hat = (t.repeat_interleave(self.draws) for t in of_rows)
        draw = torch.arange(self.draws).repeat(len(x))
        added = zip(ADDED, (number, draw, acceptance, r_hat), strict=True)
        for place, (name, values) in enumerate(added):
            table = table.add_column(place, name, pa.array(values.numpy()))
        return table

    def report(self, console: Console) -> None:
        """Prints how many rows had missing values, and how well their chains have mixed."""
        rows = pq.read_table(self.output, columns=list(ADDED)).to_pandas().drop_duplicates("_row")
        imputed = rows[rows["_r_hat"] != 1]
        console.print(f"rows          {len(rows)}, {len(imputed)} of which had missing values")
        if len(imputed):
            console.print(f"acceptance    {imputed['_acceptance'].mean():.2f}")
            console.print(f"R̂             at most {imputed['_r_hat'].max():.3f}")
        if apart := int((imputed["_r_hat"] > MIXED).sum()):
            console.print(f"warning       {apart} rows have R̂ above {MIXED}: give more --steps")


def score(words: Sequence[str]) -> int:
    """Scores a source."""
    return _run(tyro.cli(Score, prog="ebflow score", args=words))


def impute(words: Sequence[str]) -> int:
    """Imputes a table."""
    return _run(tyro.cli(Impute, prog="ebflow impute", args=words))


def _run(command: Command) -> int:
    """Writes the table about all rows into the output; returns the exit code."""
    tables.check_output(command.output)
    console = terminal(soft_wrap=True)
    model = load(command.model)
    reader = match(command.data, model, missing=command.MISSING)
    command.check(model, reader)
    names = reader.parts[0].schema.names
    unused = ", ".join(name for name in names if name not in reader.layout.reads)
    rows = f"{reader.label}: {reader.rows} rows"
    console.print(f"{rows}; columns not used: {unused}" if unused else rows)
    if command.dry_run:
        return 0
    blocks = enumerate(regrouped(batches(reader), command.SIZE))
    if command.workers in (None, 1) and "RAY_ADDRESS" not in os.environ:
        torch.set_num_threads(1)
        finished = (command.table(model, k * command.SIZE, rows) for k, rows in blocks)
    else:
        finished = _on_ray(command, blocks)
    total = math.ceil(reader.rows / command.SIZE)
    shown = track(finished, "rows", total, console=console, disable=not console.is_terminal)
    table = next(shown)
    tables.write(command.output, table.schema, chain([table], shown))
    command.report(console)
    console.print(f"written to    {command.output}")
    return 0


def _on_ray(command: Command, blocks: Iterable[tuple[int, Batch]]) -> Iterator[pa.Table]:
    """Yields the tables of the blocks in their order, from tasks of Ray."""
    import ray

    if not command.model.startswith(REGISTERED):  # tasks have another working directory
        command = replace(command, model=str(Path(command.model).absolute()))
    session = connection.start()
    try:
        task, running = ray.remote(num_cpus=1)(block), deque()
        for number, rows in blocks:
            if len(running) == (command.workers or MOST_TASKS):
                yield ray.get(running.popleft())
            running.append(task.remote(command, number * command.SIZE, rows))
        while running:
            yield ray.get(running.popleft())
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    finally:
        connection.leave(session)


def block(command: Command, first: int, rows: Batch) -> pa.Table:
    """Returns the table about a block of rows, in a task of Ray."""
    torch.set_num_threads(1)
    return command.table(_load(command.model), first, rows)


_load = cache(load)
