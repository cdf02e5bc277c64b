"""The terminal: text as it is, tables, and the progress of the stages of a run."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

LINE_S = 10.0
"""Seconds between two lines of progress of a stage, where the output is no terminal."""


def terminal(**options: Any) -> Console:  # noqa: ANN401
    """Returns a console that prints text as it is.

    Paths, column names and errors have brackets and colons, which rich would take for markup and
    emoji.
    """
    return Console(highlight=False, markup=False, emoji=False, **options)


def table(headings: Sequence[str], lines: Iterable[Sequence[Any]], *, wrap: bool = False) -> Table:
    """Returns a table, whose first column is aligned to the left, and all others to the right.

    Arguments:
        headings: The headings of its columns.
        lines: The cells.
        wrap: True if other columns than the first may take several lines, too.
    """
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for k, heading in enumerate(headings):
        side: Any = "right" if k else "left"
        grid.add_column(heading, justify=side, no_wrap=bool(k) and not wrap)
    for line in lines:
        grid.add_row(*line)
    return grid


@dataclass
class Job:
    """A job of a stage: its start (None while it is queued), and its latest message."""

    started: float | None
    share: float = 0.0
    text: str = ""


@dataclass
class Stage:
    """The jobs of a stage that are not done, by their keys, and the last printed line."""

    bar: TaskID
    jobs: dict[str, Job] = field(default_factory=dict)
    done: int = 0
    line: str = ""

    @property
    def count(self) -> int:
        """The number of jobs."""
        return self.done + len(self.jobs)

    @property
    def share(self) -> float:
        """The share of the stage's work that is done."""
        return (self.done + sum(job.share for job in self.jobs.values())) / self.count

    @property
    def text(self) -> str:
        """The message of its only job, or how many of its jobs are done."""
        queued = sum(job.started is None for job in self.jobs.values())
        if self.count > 1:
            return f"{self.done} of {self.count} done" + (f", {queued} queued" if queued else "")
        return "queued" if queued else "".join(job.text for job in self.jobs.values())


class Progress:
    """Shows the running stages: bars on a terminal, plain lines elsewhere. Threads may call it.

    Arguments:
        console: The console to print to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[news]}", markup=False),
        )
        self.bars = Bars(*columns, console=console, disable=not console.is_terminal)
        self.stages: dict[str, Stage] = {}
        self.lock, self.printed = threading.Lock(), time.monotonic()

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def queued(self, stage: str, key: str) -> None:
        """Shows a job that waits for its turn."""
        self._add(stage, key, Job(None))

    def started(self, stage: str, key: str) -> None:
        """Shows a job that starts."""
        self._add(stage, key, Job(time.monotonic()))
        self._line(f"{stage}: started")

    def _add(self, stage: str, key: str, job: Job) -> None:
        with self.lock:
            if stage not in self.stages:
                self.stages[stage] = Stage(self.bars.add_task(stage, total=None, news=""))
            self.stages[stage].jobs[key] = job
            self._update(self.stages[stage])

    def report(self, stage: str, key: str, share: float, text: str, note: str = "") -> None:
        """Shows a message of a job; the first message of a queued job means that it started."""
        if note:
            self.note(stage, note)
        with self.lock:
            shown = self.stages[stage]
            job = shown.jobs.get(key)
            if job is None:  # the job ended before its last message came
                return
            if job.started is None:
                job.started = time.monotonic()
                self._line(f"{stage}: started")
            job.share, job.text = share, text
            self._update(shown)
            line = f"{stage}: {shown.share:4.0%}  {shown.text}"
            due = time.monotonic() - self.printed > LINE_S
            if due and shown.text and line != shown.line:
                self.printed, shown.line = time.monotonic(), line
                self._line(line)

    def finished(self, stage: str, key: str) -> None:
        """Counts a job as done; its time is unknown if its first message has not come yet."""
        with self.lock:
            shown = self.stages[stage]
            job = shown.jobs.pop(key)
            shown.done += 1
            self._update(shown)
        counted = f" ({shown.text})" if shown.count > 1 else ""
        took = "" if job.started is None else f" in {time.monotonic() - job.started:.1f} s"
        self._line(f"{stage}: done{took}{counted}")

    def note(self, stage: str, text: str) -> None:
        """Prints a note about a stage."""
        self.console.print(f"{stage}: {text}", soft_wrap=True)

    def _update(self, shown: Stage) -> None:
        total = 1.0 if shown.share else None
        self.bars.update(shown.bar, total=total, completed=shown.share, news=shown.text)

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)
