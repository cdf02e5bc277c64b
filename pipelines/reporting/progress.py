"""Progress of the stages of a run: a bar on a terminal, plain lines elsewhere."""

import threading
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_S = 10.0


@dataclass
class Job:
    """A job of a stage, and its latest message.

    Arguments:
        queued: True while it waits for its turn.
    """

    queued: bool
    began: float = field(default_factory=time.monotonic)
    share: float = 0.0
    text: str = ""


@dataclass
class Stage:
    """The jobs of a stage: those that are not done by their keys, and the last printed line."""

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
        queued = sum(job.queued for job in self.jobs.values())
        if self.count > 1:
            return f"{self.done} of {self.count} done" + (f", {queued} queued" if queued else "")
        return "queued" if queued else "".join(job.text for job in self.jobs.values())


class Progress:
    """Shows the stages that run, and how far they are. Several threads may call it.

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
        self._add(stage, key, queued=True)

    def started(self, stage: str, key: str) -> None:
        """Shows a job that starts."""
        self._add(stage, key, queued=False)
        self._line(f"{stage}: started")

    def _add(self, stage: str, key: str, *, queued: bool) -> None:
        with self.lock:
            if stage not in self.stages:
                self.stages[stage] = Stage(self.bars.add_task(stage, total=None, news=""))
            self.stages[stage].jobs[key] = Job(queued)
            self._update(self.stages[stage])

    def report(self, stage: str, key: str, share: float, text: str, note: str = "") -> None:
        """Shows a message of a job; the first one tells that it has started."""
        if note:
            self.tell(stage, note)
        with self.lock:
            shown = self.stages[stage]
            job = shown.jobs.get(key)
            if job is None:  # it ended before its last message came
                return
            if job.queued:
                job.queued, job.began = False, time.monotonic()
                self._line(f"{stage}: started")
            job.share, job.text = share, text
            self._update(shown)
            self._line_if_due(stage, shown)

    def finished(self, stage: str, key: str) -> None:
        """Counts a job as done; its time is unknown if its first message has not come yet."""
        with self.lock:
            shown = self.stages[stage]
            job = shown.jobs.pop(key)
            shown.done += 1
            self._update(shown)
        counted = f" ({shown.text})" if shown.count > 1 else ""
        took = "" if job.queued else f" in {time.monotonic() - job.began:.1f} s"
        self._line(f"{stage}: done{took}{counted}")

    def retried(self, stage: str, error: str, pause: float) -> None:
        """Prints that a job failed and will be tried again, after so many seconds."""
        self.tell(stage, f"{error}; tried again in {pause:g} s")

    def tell(self, stage: str, note: str) -> None:
        """Prints a note about a stage."""
        self.console.print(f"{stage}: {note}", soft_wrap=True)

    def _update(self, shown: Stage) -> None:
        total = 1.0 if shown.share else None
        self.bars.update(shown.bar, total=total, completed=shown.share, news=shown.text)

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)

    def _line_if_due(self, name: str, shown: Stage) -> None:
        """Prints how far a stage is, if the last such line is old and another."""
        line = f"{name}: {shown.share:4.0%}  {shown.text}"
        if shown.text and time.monotonic() - self.printed > LINE_S and line != shown.line:
            self.printed, shown.line = time.monotonic(), line
            self._line(line)
