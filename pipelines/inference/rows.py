"""A function applied to all rows of a source, a block at a time: here, or by tasks of Ray.

Every process uses one thread and loads the model from the same bytes, so the results are the same
to the bit.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from pipelines.inference.models import Model
from pipelines.inference.tables import write
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from ray import ObjectRef

MOST_TASKS = 100
"""Tasks of Ray at a time, if the user does not limit them; a cluster starts nodes for them."""

Function = Callable[..., pa.Table]
"""From a model, a reader, and the numbers ``first`` and ``last`` of rows (the last is not
included), and options, to a table."""


@dataclass(frozen=True)
class Job:
    """A function and the rows that it is applied to.

    Arguments:
        model: The trained flow.
        source: Name of the source.
        function: The function.
        options: Further arguments of it.
        size: Rows of a block.
    """

    model: Model
    source: str
    function: Function
    options: Mapping[str, Any]
    size: int

    @cached_property
    def reader(self) -> Reader:
        """The source, its columns matched with those of the model."""
        return match(self.source, self.model)

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.reader.rows // self.size)

    def block(self, number: int) -> pa.Table:
        """Returns the table of a block."""
        first = number * self.size
        last = min(first + self.size, self.reader.rows)
        return self.function(self.model, self.reader, first, last, **self.options)


def run(job: Job, options: OfRows, report: Callable[[Console, Path], None]) -> int:
    """Writes the table of all rows into the output; returns the exit code.

    Arguments:
        job: The function and the rows.
        options: Options of the command.
        report: Prints a summary of the output.

    Raises:
        BadInput: At the first invalid value; nothing is left then.
    """
    console = terminal(soft_wrap=True)
    console.print(summary(job.reader))
    if options.dry_run:
        return 0
    here = options.workers in (None, 1) and "RAY_ADDRESS" not in os.environ
    tables = _here(job) if here else _on_ray(job, options.workers or MOST_TASKS)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        shown = iter(progress.track(tables, job.blocks, description="rows"))
        first = next(shown)
        write(options.output, first.schema, chain([first], shown))
    report(console, options.output)
    console.print(f"written to    {options.output}")
    return 0


def _here(job: Job) -> Iterator[pa.Table]:
    torch.set_num_threads(1)
    return (job.block(number) for number in range(job.blocks))


def _on_ray(job: Job, workers: int) -> Iterator[pa.Table]:
    """Yields the tables of the blocks in their order, from so many tasks at a time."""
    import ray

    session = connection.start()
    try:
        sent, task, running = ray.put(_packed(job)), ray.remote(num_cpus=1)(_block), deque()
        for number in range(job.blocks):
            if len(running) == workers:
                yield ray.get(running.popleft())
            running.append(task.remote([sent], number))
        while running:
            yield ray.get(running.popleft())
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    finally:
        connection.leave(session)


def _block(sent: "list[ObjectRef]", number: int) -> pa.Table:
    """Returns the table of a block, in a task of Ray."""
    return _unpacked(sent[0]).block(number)


def _packed(job: Job) -> tuple[Job, dict[str, bytes]]:
    """Returns a job without opened files, and the files of its model, for other nodes."""
    source, folder = job.reader.label, job.model.folder
    source = source if source in SOURCES else str(Path(source).absolute())
    files = (path for path in folder.iterdir() if path.name != "optimizer.safetensors")
    closed = replace(job, source=source, model=replace(job.model))
    return closed, {path.name: path.read_bytes() for path in files}


@lru_cache(maxsize=1)
def _unpacked(sent: "ObjectRef") -> Job:
    """Returns a job with its model and source opened, once in a process."""
    import ray

    torch.set_num_threads(1)
    job, content = ray.get(sent)
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        for name, data in content.items():
            (Path(scratch) / name).write_bytes(data)
        job = replace(job, model=replace(job.model, folder=Path(scratch)))
        _ = job.reader, job.model.reference  # read them while the files exist
    return job
