"""The terminal: text as it is, and the progress of the stages of a run."""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

LINE_S = 10.0  # Seconds between two lines of progress of a stage, where the output is no terminal
NEARLY = 0.99  # The largest share of a job that has not ended


def terminal(**options: Any) -> Console:  # noqa: ANN401
    """Returns a console that prints text as it is.

    Paths, column names and errors have brackets and colons, which rich would take for markup and
    emoji. In a cell of a notebook, moving bars would become a pile of lines.
    """
    if "JPY_PARENT_PID" in os.environ:
        options = {"force_terminal": False, **options}
    return Console(highlight=False, markup=False, emoji=False, **options)


def new_table(*headings: str) -> Table:
    """Returns a table with a line below its headings."""
    return Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


class Progress:
    """Shows the running stages: bars on a terminal, plain lines elsewhere. Threads may call it.

    Arguments:
        console: The console to print to.

    Attributes:
        shares: By stage and job the share that is done; None: the job is queued.
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
        self.tasks: dict[str, TaskID] = {}
        self.shares: dict[str, dict[str, float | None]] = {}
        self.lock = threading.RLock()
        self.printed, self.line, self.ended = time.monotonic(), "", False

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True
        self.bars.stop()

    def queued(self, stage: str, key: str) -> None:
        """Shows a job that waits for its turn; prints so if no job of its stage starts soon."""
        is_first = stage not in self.tasks
        self._show(stage, key, None)
        if is_first:
            timer = threading.Timer(LINE_S, self._print_wait, [stage])
            timer.daemon = True
            timer.start()

    def _print_wait(self, stage: str) -> None:
        with self.lock:
            if not self.ended and set(self.shares[stage].values()) == {None}:
                self._line(f"{stage}: queued until Ray has its CPUs, GPUs and memory")

    def started(self, stage: str, key: str) -> None:
        """Shows a job that starts."""
        self._show(stage, key, 0.0)

    def report(self, stage: str, key: str, share: float, text: str, note: str = "") -> None:
        """Shows a message of a job; the first message of a queued job means that it started."""
        if note:
            self.note(stage, note)
        with self.lock:
            if self.shares[stage][key] != 1:  # a message may arrive after the job's end
                self._show(stage, key, min(share, NEARLY), text)

    def finished(self, stage: str, key: str) -> None:
        """Counts a job as done; the last one of a stage has the time since the first started."""
        with self.lock:
            elapsed = self.bars.tasks[self.tasks[stage]].elapsed  # None: none has started
            news = self._show(stage, key, 1.0)
            ended = elapsed is not None and set(self.shares[stage].values()) == {1.0}
            seconds = f" in {elapsed:.1f} s" if ended else ""
            self._line(f"{stage}: done{seconds}{news and f' ({news})'}")

    def note(self, stage: str, text: str) -> None:
        """Prints a note about a stage."""
        self.console.print(f"{stage}: {text}", soft_wrap=True)

    def _show(self, stage: str, key: str, share: float | None, text: str = "") -> str:
        """Shows a job; returns the news of its stage."""
        with self.lock:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, start=False, total=None, news="")
            shares = self.shares.setdefault(stage, {})
            if share is not None and shares.get(key) is None:
                self.bars.start_task(self.tasks[stage])
                self._line(f"{stage}: started")
            shares[key] = share
            done, news = sum(filter(None, shares.values())) / len(shares), _news(shares, text)
            self.bars.update(
                self.tasks[stage], total=1.0 if done else None, completed=done, news=news
            )
            line = f"{stage}: {done:4.0%}  {news}"
            if text and line != self.line and time.monotonic() - self.printed > LINE_S:
                self.printed, self.line = time.monotonic(), line
                self._line(line)
            return news

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)


def _news(shares: Mapping[str, float | None], text: str) -> str:
    """Returns the message of a stage's only job, or how many of its jobs are done."""
    values = list(shares.values())
    done, queued = values.count(1.0), values.count(None)
    if len(values) > 1:
        return f"{done} of {len(values)} done" + (f", {queued} queued" if queued else "")
    return "queued" if queued else text
