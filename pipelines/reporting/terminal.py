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
class Stage:
    """The jobs of a stage.

    Attributes:
        bar: Its bar.
        shares: The share that is done of each unfinished job, by its key; None: it is queued.
        done: The number of finished jobs.
        text: The latest message of a job.
        started: The time at which the first job started.
    """

    bar: TaskID
    shares: dict[str, float | None] = field(default_factory=dict)
    done: int = 0
    text: str = ""
    started: float | None = None

    @property
    def count(self) -> int:
        """The number of jobs."""
        return self.done + len(self.shares)

    @property
    def share(self) -> float:
        """The share of the stage's work that is done."""
        return (self.done + sum(filter(None, self.shares.values()))) / self.count

    @property
    def news(self) -> str:
        """The message of its only job, or how many of its jobs are done."""
        queued = sum(share is None for share in self.shares.values())
        if self.count > 1:
            return f"{self.done} of {self.count} done" + (f", {queued} queued" if queued else "")
        return "queued" if queued else self.text


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
        self.lock = threading.RLock()
        self.printed, self.line = time.monotonic(), ""

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def queued(self, stage: str, key: str) -> None:
        """Shows a job that waits for its turn."""
        self._show(stage, key, None)

    def started(self, stage: str, key: str) -> None:
        """Shows a job that starts."""
        self._show(stage, key, 0.0)

    def report(self, stage: str, key: str, share: float, text: str, note: str = "") -> None:
        """Shows a message of a job; the first message of a queued job means that it started."""
        if note:
            self.note(stage, note)
        with self.lock:
            if key in self.stages[stage].shares:  # else it ended before its last message came
                self._show(stage, key, share, text)

    def _show(self, name: str, key: str, share: float | None, text: str = "") -> None:
        with self.lock:
            if name not in self.stages:
                self.stages[name] = Stage(self.bars.add_task(name, total=None, news=""))
            stage = self.stages[name]
            if share is not None and stage.shares.get(key) is None:
                stage.started = stage.started or time.monotonic()
                self._line(f"{name}: started")
            stage.shares[key], stage.text = share, text
            self._update(stage)
            line = f"{name}: {stage.share:4.0%}  {stage.news}"
            if text and line != self.line and time.monotonic() - self.printed > LINE_S:
                self.printed, self.line = time.monotonic(), line
                self._line(line)

    def finished(self, stage: str, key: str) -> None:
        """Counts a job as done."""
        with self.lock:
            shown = self.stages[stage]
            del shown.shares[key]
            shown.done += 1
            self._update(shown)
            counted = f" ({shown.news})" if shown.count > 1 else ""
            took = f" in {time.monotonic() - shown.started:.1f} s" if shown.started else ""
            self._line(f"{stage}: done{took}{counted}")

    def note(self, stage: str, text: str) -> None:
        """Prints a note about a stage."""
        self.console.print(f"{stage}: {text}", soft_wrap=True)

    def _update(self, shown: Stage) -> None:
        total = 1.0 if shown.share else None
        self.bars.update(shown.bar, total=total, completed=shown.share, news=shown.news)

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)
