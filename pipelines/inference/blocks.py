"""Rows of a source in blocks, each answered alone: here, or by processes of Ray Data.

What is finished of a block lies beside the output, so that an interrupted command goes on from
there. Every process computes with one thread and loads the model from the same bytes: the answers
are the same to the bit, whoever gave them.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import Progress

from ebflow import files
from ebflow.errors import BadInput
from pipelines.cluster import connection
from pipelines.data.named import SOURCES
from pipelines.data.reader import Reader
from pipelines.errors import failure
from pipelines.inference.commands import OfRows
from pipelines.inference.matching import match, summary
from pipelines.inference.models import Model
from pipelines.inference.reference import identity
from pipelines.inference.tables import write
from pipelines.reporting.terminal import terminal
from pipelines.store.files import drafted

if TYPE_CHECKING:
    from ray import ObjectRef

Answer = Callable[..., pa.Table]
"""What is answered, from a model, its source, the numbers ``first`` and ``last`` of rows, of which
it answers about ``first`` … ``last`` − 1, and options; it goes to processes by its name."""


@dataclass(frozen=True)
class Question:
    """A question about all rows of a source.

    Arguments:
        model: The trained flow.
        source: Name of the source.
        answer: Answers about some rows.
        options: Further arguments of it, JSON-able.
        size: Rows of a block.
    """

    model: Model
    source: str
    answer: Answer
    options: Mapping[str, Any]
    size: int

    @cached_property
    def reader(self) -> Reader:
        """The source, its columns those of the model."""
        return match(self.source, self.model)

    def block(self, number: int) -> pa.Table:
        """Returns the answer about a block."""
        first = number * self.size
        last = min(first + self.size, self.reader.rows)
        return self.answer(self.model, self.reader, first, last, **self.options)

    @property
    def key(self) -> str:
        """What the answers depend on, in JSON."""
        source = {"source": self.reader.digest, "columns": self.reader.layout.columns}
        asked = {"question": self.answer.__name__, "options": dict(self.options)}
        known = identity(self.model.folder)
        return json.dumps({**asked, **source, "rows": self.size, "model": known})


def answered(question: Question, options: OfRows, tell: Callable[[Console, Path], None]) -> int:
    """Answers a question into the output, and says what came out.

    Arguments:
        question: The question.
        options: What the command is told.
        tell: Prints what the output says.
    """
    console = terminal(soft_wrap=True)
    console.print(summary(question.reader))
    if options.dry_run:
        return 0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        answer(question, options.output, options.workers, progress)
    tell(console, options.output)
    console.print(f"written to    {options.output}")
    return 0


def answer(question: Question, output: Path, workers: int | None, progress: Progress) -> None:
    """Answers the blocks that are not answered yet, and writes all of them into the output.

    Arguments:
        question: The question.
        output: The file; it is there when it is whole. Finished blocks are beside it until then.
        workers: Processes; None: this one, or as many as a cluster gives.
        progress: Shows how many blocks are finished.

    Raises:
        BadInput: At the first value that is none; nothing is left then.
    """
    folder = _begun(question, output)
    count = -(-question.reader.rows // question.size)
    blocks = [folder / f"{number:08d}.parquet" for number in range(count)]
    todo = [number for number, file in enumerate(blocks) if not file.exists()]
    alone = workers in (None, 1) and "RAY_ADDRESS" not in os.environ
    torch.set_num_threads(1)
    here = ((number, question.block(number)) for number in todo)
    tables = here if alone or not todo else _by_ray(question, todo, workers)
    try:
        for number, table in progress.track(tables, count, count - len(todo), description="rows"):
            with drafted(blocks[number]) as draft:
                pq.write_table(table, draft)
    except BadInput:
        shutil.rmtree(folder)
        raise
    write(output, pq.read_schema(blocks[0]), map(pq.read_table, blocks))
    shutil.rmtree(folder)


def _begun(question: Question, output: Path) -> Path:
    """Returns the folder of blocks, which has what an equal command has finished and no other."""
    folder, key = output.with_name(f".{output.name}.blocks"), question.key
    file = folder / "identity.json"
    if not file.is_file() or file.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        with files.replaced(folder) as draft:
            (draft / file.name).write_text(key)
    return folder


def _by_ray(
    question: Question, numbers: Sequence[int], workers: int | None
) -> Iterator[tuple[int, pa.Table]]:
    """Yields answers as processes of Ray Data finish them."""
    import ray

    session = connection.start()
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = ray.data.from_items(
            [{"block": number} for number in numbers], override_num_blocks=len(numbers)
        ).map(
            _block,
            fn_kwargs={"sent": ray.put(_packed(question))},
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(workers),
        )
        for row in blocks.iter_rows():
            yield row["block"], pa.ipc.open_stream(row["answer"]).read_all()
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    finally:
        connection.leave(session)


def _block(row: dict[str, Any], sent: "ObjectRef") -> dict[str, Any]:
    """Answers about one block, in a process of Ray Data."""
    table, stream = _unpacked(sent).block(row["block"]), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return {"block": row["block"], "answer": stream.getvalue().to_pybytes()}


def _packed(question: Question) -> tuple[Question, dict[str, bytes]]:
    """Returns a question without what it has opened, and the files that its model is loaded from.

    Other processes, perhaps of other nodes, take it up again.
    """
    source, folder = question.reader.label, question.model.folder
    source = source if source in SOURCES else str(Path(source).absolute())
    kept = (path for path in folder.iterdir() if path.name != "optimizer.safetensors")
    bare = replace(question, source=source, model=replace(question.model))
    return bare, {path.name: path.read_bytes() for path in kept}


@lru_cache(maxsize=1)
def _unpacked(sent: "ObjectRef") -> Question:
    """Returns a question that was sent, its model and source opened, once in a process."""
    import ray

    torch.set_num_threads(1)
    question, content = ray.get(sent)
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        for name, data in content.items():
            (Path(scratch) / name).write_bytes(data)
        question = replace(question, model=replace(question.model, folder=Path(scratch)))
        _ = question.reader, question.model.reference  # read while the files are there
    return question
