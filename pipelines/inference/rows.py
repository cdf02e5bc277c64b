"""``ebflow score`` and ``ebflow impute``: tables about all rows of a source, block by block.

This process reads the source. It computes the blocks itself, or sends their rows to tasks of Ray.
Every process uses one thread and loads the same model, so the results are the same to the bit.
"""

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import starmap
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import tyro
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.evaluation import log_probs
from ebflow.imputation import ENOUGH
from ebflow.imputation import impute as imputed_rows
from ebflow.randomness import generator
from ebflow.tables.adapter import differing
from ebflow.tables.batches import Batch, regrouped
from ebflow.tables.rows import Rows
from pipelines.cluster import connection
from pipelines.data.reader import Reader
from pipelines.errors import failure
from pipelines.inference import tables
from pipelines.inference.models import REGISTERED, Model, ModelName, load
from pipelines.inference.reference import p_values, ranks
from pipelines.inference.tables import batches, match
from pipelines.reporting.terminal import Progress, terminal

SCORED, IMPUTED = 16_384, 250  # Rows of a block

# Tasks of Ray at a time, if the user does not limit them; a cluster starts nodes for them.
MOST_TASKS = 100

MOST_BYTES = 1 << 31  # Bytes of rows that these tasks have at a time, at least two blocks
LOW = 0.05  # The p-value up to which rows are counted as unlikely
ADDED = ("_row", "_sample", "_effective")  # Columns of imputed rows besides those of the data
NUMBERS = "_numbers"  # Column of imputed rows as numbers, before they have the types of the source

# A function of a model, a block of rows and the number of its first row to a table about them.
Compute = Callable[[Model, int, Batch], pa.Table]


@dataclass(frozen=True)
class Options:
    """The options of commands that read rows."""

    model: ModelName
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """the rows: any source that --data.source of `ebflow run density` takes"""
    output: Path | None = None
    """Parquet or CSV file to write; required"""
    seed: int = 0
    """seed of samples, and of the dequantization noise of integers"""
    workers: int | None = None
    """tasks of Ray at a time, one core each; None: this process, or the cluster at RAY_ADDRESS"""
    dry_run: bool = False
    """print the rows and columns; write nothing"""


Common = Annotated[Options, tyro.conf.arg(name="", prefix_name=False)]


def score(options: Common) -> None:
    """Scores rows by a trained flow, in the order of the source.

    The output has the columns log_prob (nats, of the raw data) and bits_per_dim (integer data).
    A flow trained by `ebflow run density` adds rank, the number of training rows (10,000 at most)
    that are at least as unlikely. p_value is (1 + rank) / (1 + training rows): too small if the
    flow overfits. p_value_test is the same for test rows, and exact. If values are missing,
    log_prob is an estimate of log p of the observed ones, log_prob_error its standard error, and
    there is no rank. Columns are matched by name. If RAY_ADDRESS is set, a cluster scores. Rows
    that differ from a constant or a linear function of the training rows have log_prob = −∞.
    """
    model, reader = _opened(options)
    compute, totals = partial(scores, seed=options.seed), Counter()
    finish = lambda scored: _count(excluded(model, reader, scored), totals)  # noqa: E731
    if not _write(options, model, reader, compute, SCORED, finish):
        return
    finite, others = totals["finite"], ""
    if impossible := totals["rows"] - finite:
        print(f"log p = −∞    {impossible} rows: new levels, values outside known bounds, other "
              "values of constants or of linear functions")  # fmt: skip
        others = f", of the other {finite} rows"
    print(f"mean log p    {totals['nats'] / finite if finite else math.nan:.4f} nats{others}")
    for name in filter(totals.__contains__, ("p_value", "p_value_test")):
        low = f"{totals[name]} of {totals['complete']}"
        print(f"{name:<13} {low} complete rows have at most {LOW}")


def _count(scored: Iterable[pa.Table], totals: Counter[str]) -> Iterator[pa.Table]:
    """Yields blocks of scores, and adds up what is printed about them."""
    for block in scored:
        finite = block["log_prob"].filter(pc.is_finite(block["log_prob"]))
        totals.update(rows=len(block), finite=len(finite), nats=pc.sum(finite).as_py() or 0.0)
        for name in ("p_value", "p_value_test"):
            if name in block.column_names:
                low = pc.less_equal(block[name], LOW)
                totals[name] += pc.sum(low).as_py() or 0
        if "p_value" in block.column_names:
            totals["complete"] += len(block) - block["p_value"].null_count
        yield block


def scores(model: Model, first: int, rows: Batch, *, seed: int = 0) -> pa.Table:
    """Returns the scores of rows; if the flow overflows, the log-density is −∞."""
    levels = model.arrays.get("levels")
    lacking = rows.x.isnan().any(1)
    nats, error = torch.zeros(2, len(rows.x), dtype=torch.float64)
    if not lacking.all():
        complete = Rows(*rows.take((~lacking).nonzero().flatten()), levels=levels)
        nats[~lacking] = log_probs(model.flow, complete, seed=seed)
    if lacking.any():
        x, context = rows.take(lacking.nonzero().flatten())
        nats[lacking], error[lacking] = (
            t.detach().double() for t in model.flow(context).log_prob_and_error(x)
        )
    nats = nats.where(~nats.isnan(), -math.inf)
    return scores_of(model, nats, error, lacking)


def scores_of(
    model: Model, nats: Tensor, error: Tensor, lacking: Tensor | None = None
) -> pa.Table:
    """Returns the table of log-densities and their errors; incomplete rows have no rank."""
    columns = {"log_prob": nats, "log_prob_error": error}
    if model.arrays.get("levels") is not None:
        width = math.prod(model.flow.event_shape)
        columns["bits_per_dim"] = -nats / (width * math.log(2))
    if model.reference is not None:
        train, test = model.reference.train, model.reference.test
        columns["rank"], columns["p_value"] = ranks(train, nats), p_values(train, nats)
        columns["p_value_test"] = p_values(test, nats)
    mask = None if lacking is None else lacking.numpy()
    masks = dict.fromkeys(("rank", "p_value", "p_value_test"), mask)
    return pa.table({name: pa.array(column.numpy(), mask=masks.get(name))
                     for name, column in columns.items()})  # fmt: skip


def excluded(model: Model, reader: Reader, scored: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yields scores, the least ones for rows that differ from a constant or a linear function.

    The flow does not see these columns: the source is read again if it has some.
    """
    names = {name for part in reader.parts for name in part.schema.names}
    if not any(column.dropped and column.name in names for column in model.columns or ()):
        yield from scored
        return
    least = scores_of(model, *torch.tensor([[-math.inf], [0.0]], dtype=torch.float64))
    used = [column.name for column in model.columns]
    for rows, block in zip(tables.sources(reader, SCORED, used), scored, strict=True):
        differs = pa.array(differing(rows, model.columns).expand(len(rows)).numpy())
        for place, name in enumerate(block.column_names):
            column = pc.if_else(differs, least[name][0], block[name])
            block = block.set_column(place, name, column)
        yield block


def impute(options: Common, samples: int = 5, sweeps: int = 5) -> None:
    """Samples missing values (nulls and NaN) of a table given the observed ones.

    The output has --samples copies of every row, in the columns and types of the source. Observed
    values stay as they are, those of columns that the flow leaves out as well. The contexts of a
    conditional flow must be complete. Further columns are _row (the number in the source), the
    number _sample, and _effective: the effective share of the row's proposals, 1 for complete
    rows. Below 0.25, the samples of a row are improved by sweeps over its missing values.

    Arguments:
        samples: samples of each row
        sweeps: sweeps of rows whose proposals are poor
    """
    if samples < 1:
        raise BadInput(option="--samples", found=samples, expected="at least 1")
    if sweeps < 0:
        raise BadInput(option="--sweeps", found=sweeps, expected="at least 0")
    model, reader = _opened(options)
    if reader.levels is not None or len(model.flow.event_shape) != 1:
        raise BadInput(file=reader.label, found="images", expected="a table of numbers")
    if clash := set(ADDED) & set(reader.layout.reads):
        found = f"column {min(clash)}, which the output adds"
        raise BadInput(file=reader.label, found=found, expected="another name")
    compute = partial(imputations, seed=options.seed, samples=samples, sweeps=sweeps)
    shares: list[np.ndarray] = []
    fill = partial(filled, model, reader, samples=samples)
    finish = lambda blocks: fill(_collect(blocks, shares))  # noqa: E731
    if not _write(options, model, reader, compute, IMPUTED, finish):
        return
    print(f"rows          {reader.rows}, {sum(map(len, shares))} of which had missing values")
    if len(imputed := np.concatenate([*shares, []])):
        poor = int((imputed < ENOUGH).sum())
        print(f"effective     {imputed.mean():.2f} of the proposals on average")
        print(f"sweeps        {sweeps}, of {poor} rows whose share is below {ENOUGH}")
        if impossible := int((imputed == 0).sum()):
            print(f"no density    {impossible} rows, whose observed values are impossible")


def _collect(imputed: Iterable[pa.Table], shares: list[np.ndarray]) -> Iterator[pa.Table]:
    """Yields blocks of samples, and collects the effective shares of incomplete rows."""
    for block in imputed:
        found = block["_effective"].filter(pc.equal(block["_sample"], 0)).to_numpy()
        shares.append(found[found != 1].astype(np.float32))
        yield block


def imputations(
    model: Model, first: int, rows: Batch, *, seed: int, samples: int, sweeps: int
) -> pa.Table:
    """Returns samples of rows as lists of numbers, those of a row together."""
    x, context = rows
    noise, numbers = generator(seed, "impute", first), {"samples": samples, "sweeps": sweeps}
    imputed = imputed_rows(model.flow, x, context=context, generator=noise, **numbers)
    of_rows = (first + torch.arange(len(x)), imputed.effective)
    number, effective = (t.repeat_interleave(samples).numpy() for t in of_rows)
    added = (number, torch.arange(samples).repeat(len(x)).numpy(), effective)
    values = imputed.samples.flatten().double().numpy()
    lists = pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    return pa.table([*added, lists], names=[*ADDED, NUMBERS])


def filled(
    model: Model, reader: Reader, imputed: Iterable[pa.Table], samples: int
) -> Iterator[pa.Table]:
    """Yields the rows of a source with samples in place of the values that are missing."""
    for rows, block in zip(tables.sources(reader, IMPUTED), imputed, strict=True):
        numbers = block[NUMBERS].combine_chunks().flatten().to_numpy().reshape(len(block), -1)
        if model.columns is None:
            frame = tables.table(model, torch.from_numpy(numbers))
        else:
            copies = np.arange(len(rows)).repeat(samples)
            frame = model.columns.fill(rows.take(copies), numbers)
            schema = model.columns.fill(rows[:0], numbers[:0]).schema  # whatever the values are
            frame = frame.cast(tables.widened(schema, model), safe=False)
        for place, name in enumerate(ADDED):
            frame = frame.add_column(place, name, block[name])
        yield frame


def _opened(options: Options) -> tuple[Model, Reader]:
    """Returns the model and the source, after checking the options."""
    model = load(options.model)
    if options.output is None:  # tyro would complain of it before the model
        raise BadInput(option="--output", found="none", expected="a file to write")
    tables.check_output(options.output, sources=[options.data])
    if options.workers is not None and options.workers < 1:
        raise BadInput(option="--workers", found=options.workers, expected="at least 1")
    return model, match(options.data, model, new_levels=True)


def _write(
    options: Options,
    model: Model,
    reader: Reader,
    compute: Compute,
    size: int,
    finish: Callable[[Iterable[pa.Table]], Iterator[pa.Table]] = iter,
) -> bool:
    """Writes the table about all rows into the output; returns False for a dry run."""
    checked = (c.name for c in model.columns or () if not c.is_ignored)
    used = {*reader.layout.reads, *checked}
    unused = ", ".join(name for name in reader.parts[0].schema.names if name not in used)
    ending = f"; columns not used: {unused}" if unused else ""
    print(f"{reader.label}: {reader.rows} rows{ending}")
    if options.dry_run:
        return False
    blocks = ((k * size, rows) for k, rows in enumerate(regrouped(batches(reader), size)))
    if options.workers in (None, 1) and "RAY_ADDRESS" not in os.environ:
        torch.set_num_threads(1)
        finished = starmap(partial(compute, model), blocks)
    else:
        finished = _on_ray(options, compute, blocks)
    with Progress(terminal()) as progress:
        shown = _shown(finished, progress, reader.rows, size)
        tables.write(options.output, finish(shown))
    print(f"written to    {options.output}")
    return True


def _shown(
    finished: Iterable[pa.Table], progress: Progress, rows: int, size: int
) -> Iterator[pa.Table]:
    """Yields the tables of blocks of a size, and shows how many rows are done."""
    progress.started("rows", "")
    for number, table in enumerate(finished, 1):
        yield table
        done = min(number * size, rows)
        progress.report("rows", "", done / rows, f"{done:,} of {rows:,}")
    progress.finished("rows", "")


def _on_ray(
    options: Options, compute: Compute, blocks: Iterable[tuple[int, Batch]]
) -> Iterator[pa.Table]:
    """Yields the tables of the blocks in their order, from tasks of Ray."""
    import ray

    model = options.model
    if not model.startswith(REGISTERED):  # tasks have another working directory
        model = str(Path(model).absolute())
    session = connection.start()
    try:
        task, running = ray.remote(num_cpus=1)(block), deque()
        for first, rows in blocks:
            if len(running) >= (options.workers or most_tasks(rows)):
                yield ray.get(running.popleft())
            running.append(task.remote(compute, model, first, rows))
        while running:
            yield ray.get(running.popleft())
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    finally:
        connection.leave(session)


def most_tasks(rows: Batch) -> int:
    """Returns the number of tasks at a time: their rows wait in the memory of this machine."""
    return min(MOST_TASKS, max(2, MOST_BYTES // rows.x.nbytes))


def block(compute: Compute, model: str, first: int, rows: Batch) -> pa.Table:
    """Returns the table about a block of rows, in a task of Ray."""
    torch.set_num_threads(1)
    return compute(_load(model), first, rows)


_load = cache(load)
