"""What the user sees while stages run: a bar on a terminal, plain lines elsewhere."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipelines import store
from pipelines.cluster import environment
from pipelines.store import storage
from pipelines.tracking import metrics_log

LOOK_S = 0.5
LINE_S = 10.0
STARTING = {"train": "starting the workers"}


@dataclass
class Job:
    """A job of a stage that runs, and the latest it told in its file of rows.

    Arguments:
        path: The file; stages that write none tell nothing.
        text: What to show until it tells something.
        queued: Whether it waits for its turn.
        notes: What the user is still to be told.
        noted: Kinds of rows of which there was a note: validations get one.
    """

    path: Path
    text: str = ""
    queued: bool = False
    began: float = field(default_factory=time.monotonic)
    share: float = 0.0
    notes: list[str] = field(default_factory=list)
    noted: set[str] = field(default_factory=set)
    nll: float = float("nan")
    offset: int = 0

    def __post_init__(self) -> None:
        self.found = self._touched()

    def _touched(self) -> float:
        """Returns when the job's folder was last written into; a stage does so as it begins."""
        with suppress(FileNotFoundError):
            return self.path.parent.stat().st_mtime
        return 0.0

    def begins(self) -> bool:
        """Whether a job that was queued has begun since the last look."""
        if not self.queued or self._touched() == self.found:
            return False
        self.queued, self.began = False, time.monotonic()
        return True

    def look(self) -> bool:
        """Reads what is new; returns whether something is."""
        found, self.offset = metrics_log.read(self.path, self.offset)
        for row in found:
            self._note(row)
            self.share = row["share"]
            self.nll = row["metrics"].get("val/nll", self.nll)
            self.text = row.get("text") or f"step {row['step']}, validation NLL {self.nll:.2f}"
        return bool(found)

    def _note(self, row: metrics_log.Row) -> None:
        kind = row["kind"]
        if row.get("note") and (kind != "validate" or kind not in self.noted):
            self.notes.append(row["note"])
            self.noted.add(kind)


@dataclass
class Stage:
    """The jobs of a stage: those that run by their keys, how many are done, and the last line."""

    bar: TaskID
    jobs: dict[str, Job] = field(default_factory=dict)
    done: int = 0
    line: str = ""

    @property
    def count(self) -> int:
        """The number of jobs known so far."""
        return self.done + len(self.jobs)

    @property
    def share(self) -> float:
        """The share of the stage's work that is done."""
        return (self.done + sum(job.share for job in self.jobs.values())) / self.count

    @property
    def queued(self) -> int:
        """The number of jobs that wait for their turn."""
        return sum(job.queued for job in self.jobs.values())

    @property
    def text(self) -> str:
        """What its job tells, or how many of its jobs are done."""
        if self.count > 1:
            wait = f", {self.queued} wait for room" if self.queued else ""
            return f"{self.done} of {self.count} done{wait}"
        if self.queued:
            return "waits for room"
        return "".join(job.text for job in self.jobs.values())


class Progress:
    """Shows the stages that run, and how far they are.

    Arguments:
        console: Where to.
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
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Progress":
        self.bars.start()
        self.follower.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.follower.join()
        self.bars.stop()

    def queued(self, stage: str, key: str) -> None:
        """Shows a job that waits for its turn; when that has come is seen in the store.

        Where nodes have stores of their own it is not, and the job counts as begun.
        """
        if storage.used() and not environment.embedded():
            self.started(stage, key)
        else:
            self._show(stage, key, queued=True)

    def started(self, stage: str, key: str) -> None:
        """Shows a job that begins."""
        self._show(stage, key, queued=False)
        self._line(f"{stage}: started")

    def _show(self, stage: str, key: str, *, queued: bool) -> None:
        path = store.work(stage, key) / metrics_log.FILE
        with self.lock:
            if stage not in self.stages:
                self.stages[stage] = Stage(self.bars.add_task(stage, total=None, news=""))
            shown = self.stages[stage]
            shown.jobs[key] = Job(path, STARTING.get(stage, ""), queued)
            self._update(shown)

    def finished(self, stage: str, key: str) -> None:
        """Ticks a job off; of one that was not seen to begin, its time is not that of its wait."""
        with self.lock:
            shown = self.stages[stage]
            job = shown.jobs.pop(key)
            shown.done += 1
            self._update(shown)
        counted = f" ({shown.text})" if shown.count > 1 else ""
        took = "at once" if job.queued else f"in {time.monotonic() - job.began:.1f} s"
        self._line(f"{stage}: done {took}{counted}")

    def retried(self, stage: str, error: str, pause: float) -> None:
        """Says that a job failed and will be tried again, after so many seconds."""
        self.tell(stage, f"{error}; tried again in {pause:g} s")

    def tell(self, stage: str, note: str) -> None:
        """Prints what the user is to know of a stage."""
        self.console.print(f"{stage}: {note}", soft_wrap=True)

    def _update(self, shown: Stage) -> None:
        total = 1.0 if shown.share else None
        self.bars.update(shown.bar, total=total, completed=shown.share, news=shown.text)

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)

    def _follow(self) -> None:
        printed = time.monotonic()
        while not self.stopped.wait(LOOK_S):
            late = time.monotonic() - printed > LINE_S
            with self.lock:
                lines = [line for name in self.stages for line in self._look(name, late)]
            printed = time.monotonic() if lines else printed
            for line in lines:
                self._line(line)

    def _look(self, name: str, late: bool) -> list[str]:
        """Shows what the jobs of a stage tell; returns a line of it if one is due."""
        shown = self.stages[name]
        begun = [f"{name}: started" for job in shown.jobs.values() if job.begins()]
        changed = [job.look() for job in shown.jobs.values()]
        for job in shown.jobs.values():
            while job.notes:
                self.tell(name, job.notes.pop(0))
        if not (begun or any(changed) or shown.queued):
            return []
        self._update(shown)
        line = f"{name}: {shown.share:4.0%}  {shown.text}"
        if begun or not late or line == shown.line:
            return begun
        shown.line = line
        return [line]
