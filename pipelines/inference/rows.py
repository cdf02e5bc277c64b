"""A function applied to all rows of a source, a block at a time: here, or by tasks of Ray.

Every process uses one thread and loads the same model, so the results are the same to the bit.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.console import Console
from rich.progress import Progress

from pipelines.cluster import connection
from pipelines.data.named import SOURCES
from pipelines.data.reader import Reader
from pipelines.errors import failure
from pipelines.inference.commands import OfRows
from pipelines.inference.matching import match, summary
from pipelines.inference.models import REGISTERED, Model, opened
from pipelines.inference.tables import write
from pipelines.reporting.terminal import terminal

MOST_TASKS = 100
"""Tasks of Ray at a time, if the user does not limit them; a cluster starts nodes for them."""

Function = Callable[..., pa.Table]
"""From a model, a reader, the numbers ``first`` and ``last`` of rows (without the last one) and
options to a table."""


@dataclass(frozen=True)
class Job:
    """A function and the rows that it is applied to, all by their names.

    Arguments:
        model: Name of the trained flow.
        source: Name of the source.
        function: The function.
        options: Further arguments of it.
        size: Rows of a block.
    """

    model: str
    source: str
    function: Function
    options: Mapping[str, Any]
    size: int

    def block(self, number: int, model: Model, reader: Reader) -> pa.Table:
        """Returns the table of a block."""
        first = number * self.size
        last = min(first + self.size, reader.rows)
        return self.function(model, reader, first, last, **self.options)


def run(
    job: Job,
    options: OfRows,
    report: Callable[[Console, Path], None],
    check: Callable[[Model, Reader], None] = lambda model, reader: None,
) -> int:
    """Writes the table of all rows into the output; returns the exit code.

    Arguments:
        job: The function and the rows.
        options: Options of the command.
        report: Prints a summary of the output.
        check: Raises BadInput if the function is not for the model or the source.
    """
    console = terminal(soft_wrap=True)
    with opened(job.model) as model:
        reader = match(job.source, model)
        check(model, reader)
        console.print(summary(reader))
        if options.dry_run:
            return 0
        count = -(-reader.rows // job.size)
        if options.workers in (None, 1) and "RAY_ADDRESS" not in os.environ:
            torch.set_num_threads(1)
            tables = (job.block(number, model, reader) for number in range(count))
        else:
            tables = _on_ray(job, count, options.workers or MOST_TASKS)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            shown = iter(progress.track(tables, count, description="rows"))
            first = next(shown)
            write(options.output, first.schema, chain([first], shown))
    report(console, options.output)
    console.print(f"written to    {options.output}")
    return 0


def _on_ray(job: Job, count: int, workers: int) -> Iterator[pa.Table]:
    """Yields the tables of the blocks in their order, from so many tasks at a time."""
    import ray

    session = connection.start()
    try:
        task, running = ray.remote(num_cpus=1)(_block), deque()
        for number in range(count):
            if len(running) == workers:
                yield ray.get(running.popleft())
            running.append(task.remote(_absolute(job), number))
        while running:
            yield ray.get(running.popleft())
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    finally:
        connection.leave(session)


def _absolute(job: Job) -> Job:
    """Returns a job with absolute paths; tasks have another working directory."""
    source = job.source if job.source in SOURCES else str(Path(job.source).absolute())
    model = job.model if job.model.startswith(REGISTERED) else str(Path(job.model).absolute())
    return replace(job, model=model, source=source)


def _block(job: Job, number: int) -> pa.Table:
    """Returns the table of a block, in a task of Ray."""
    torch.set_num_threads(1)
    return job.block(number, *_loaded(job.model, job.source))


@lru_cache(maxsize=1)
def _loaded(model: str, source: str) -> tuple[Model, Reader]:
    """Returns a model and a source, opened once in a process."""
    with opened(model) as found:
        _ = found.flow, found.reference  # a registered model's files are deleted afterwards
        return found, match(source, found)
