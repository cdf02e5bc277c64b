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
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import Progress

from ebflow import files
from ebflow.data.named import SOURCES
from ebflow.errors import BadInput
from pipelines.answers import OfRows, check_output
from pipelines.answers.files import write
from pipelines.answers.matching import Match, match
from pipelines.answers.models import Model, opened
from pipelines.cluster import connection
from pipelines.errors import failure
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from ray import ObjectRef

PARQUET = ".parquet"

Answer = Callable[[Model, Match, int, int], pa.Table]
"""What is answered about rows ``first`` … ``last`` − 1; it goes to other processes by its name."""


def answered(
    options: OfRows, work: Callable[[Model, Match], "Work"], tell: Callable[[Console, Path], None]
) -> int:
    """Carries a command out: checks, answers in blocks, says what came out.

    Arguments:
        options: What the command is told.
        work: Returns the question, of a model and a source.
        tell: Prints what the output says.
    """
    check_output(options.output)
    if options.workers is not None and options.workers < 1:
        raise BadInput(f"--workers: found {options.workers}, expected at least 1")
    console = terminal(soft_wrap=True)
    with opened(options.model) as model:
        question = work(model, match(options.data, model))
        console.print(question.match.summary)
        if options.dry_run:
            return 0
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("rows", total=question.count)
            Blocks(question, options.output).run(
                options.workers, lambda done: progress.update(bar, completed=done)
            )
    tell(console, options.output)
    console.print(f"written to    {options.output}")
    return 0


@dataclass(frozen=True)
class Work:
    """A question about all rows of a source.

    Arguments:
        model: The trained flow.
        match: The source.
        answer: Answers about some rows.
        options: Further arguments of it, JSON-able.
        rows: Rows of a block.
    """

    model: Model
    match: Match
    answer: Answer
    options: Mapping[str, Any]
    rows: int

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.match.reader.rows // self.rows)

    def block(self, number: int) -> pa.Table:
        """Returns the answer about a block."""
        first = number * self.rows
        last = min(first + self.rows, self.match.reader.rows)
        return self.answer(self.model, self.match, first, last, **self.options)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the answers depend on."""
        parts = {"question": self.answer.__name__, "options": dict(self.options)}
        source = {"source": self.match.reader.digest, "columns": self.match.reader.layout.columns}
        plain = {**parts, **source, "rows": self.rows, "model": self.model.identity}
        return json.loads(json.dumps(plain))


class Blocks:
    """The finished blocks of a question, in a folder beside the output until all are finished.

    Arguments:
        work: The question.
        output: The file for all answers; it is there when they are whole.
    """

    def __init__(self, work: Work, output: Path) -> None:
        self.work, self.output = work, output
        self.folder = output.with_name(f".{output.name}.blocks")

    def run(self, workers: int | None, report: Callable[[int], None]) -> None:
        """Answers what is not answered yet, and writes the output.

        Arguments:
            workers: Processes; None: this one, or as many as a cluster gives.
            report: Is told how many blocks are finished.

        Raises:
            BadInput: At the first value that is none; nothing is left then.
        """
        self._begin()
        try:
            todo = [k for k in range(self.work.count) if not self._file(k).exists()]
            report(self.work.count - len(todo))
            alone = workers in (None, 1) and "RAY_ADDRESS" not in os.environ
            answers = _here(self.work, todo) if alone else _by_ray(self.work, todo, workers)
            for done, (number, table) in enumerate(answers, self.work.count - len(todo) + 1):
                self._keep(number, table)
                report(done)
        except BadInput:
            shutil.rmtree(self.folder)
            raise
        self._finish()

    def _begin(self) -> None:
        """Keeps what an equal command has finished; removes what another one has."""
        file = self.folder / "identity.json"
        if file.is_file() and json.loads(file.read_text()) == self.work.identity:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with files.replaced(self.folder) as draft:
            (draft / file.name).write_text(json.dumps(self.work.identity))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}{PARQUET}"

    def _keep(self, number: int, table: pa.Table) -> None:
        with files.drafted(self._file(number)) as draft:
            pq.write_table(table, draft)

    def _finish(self) -> None:
        """Writes the output, a block at a time, and removes the folder."""
        tables = (pq.read_table(self._file(number)) for number in range(self.work.count))
        write(self.output, pq.read_schema(self._file(0)), tables)
        shutil.rmtree(self.folder)


def _here(work: Work, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    torch.set_num_threads(1)
    for number in numbers:
        yield number, work.block(number)


def _by_ray(
    work: Work, numbers: Sequence[int], workers: int | None
) -> Iterator[tuple[int, pa.Table]]:
    """Yields answers as processes of Ray Data finish them."""
    if not numbers:
        return
    session = connection.start(dashboard=False)
    try:
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = ray.data.from_items(
            [{"block": k} for k in numbers], override_num_blocks=len(numbers)
        ).map_batches(
            _answer,
            fn_kwargs={"sent": ray.put(_sent(work))},
            batch_size=1,
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(workers),
        )
        try:
            for row in blocks.iter_rows():
                yield row["block"], pa.ipc.open_stream(row["answer"]).read_all()
        except ray.exceptions.RayError as error:
            raise failure(error) from None
    finally:
        connection.leave(session)


def _sent(work: Work) -> dict[str, Any]:
    """Returns a question as other processes, perhaps of other nodes, take it up again."""
    source = work.match.reader.label
    return {
        "checkpoint": _packed(work.model.folder),
        "label": work.model.label,
        "source": source if source in SOURCES else str(Path(source).absolute()),
        "answer": work.answer,
        "options": work.options,
        "rows": work.rows,
    }


def _answer(batch: dict[str, Any], sent: "ObjectRef") -> dict[str, Any]:
    """Answers about one block, in a process of Ray Data."""
    number = int(batch["block"][0])
    table, stream = _received(sent).block(number), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return {"block": [number], "answer": [stream.getvalue().to_pybytes()]}


@lru_cache(maxsize=1)
def _received(sent: "ObjectRef") -> Work:
    """Returns the question that was sent, once in a process."""
    import ray

    torch.set_num_threads(1)
    question = ray.get(sent)
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        for name, content in question["checkpoint"].items():
            (Path(scratch) / name).write_bytes(content)
        model = Model(question["label"], Path(scratch))
        found = match(question["source"], model)
        _ = model.reference  # read while the files are there, as the flow was by ``match``
    return Work(model, found, question["answer"], question["options"], question["rows"])


def _packed(folder: Path) -> dict[str, bytes]:
    """Returns the files of a checkpoint that a model is loaded from."""
    names = (path for path in folder.iterdir() if path.name != "optimizer.safetensors")
    return {path.name: path.read_bytes() for path in names}
