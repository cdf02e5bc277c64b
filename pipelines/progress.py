"""What the user sees while stages run: a bar on a terminal, plain lines elsewhere."""

__all__ = ["Progress"]

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipelines import rows, store
from pipelines.config import TrainConfig

LOOK_S = 0.5
LINE_S = 10.0


class Progress:
    """Shows the stages that run, and how far the training is.

    Arguments:
        console: Where to.
        train: Says when the training ends.
    """

    def __init__(self, console: Console, train: TrainConfig) -> None:
        self.console, self.train = console, train
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[news]}"),
        )
        self.bars = Bars(*columns, console=console, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {}
        self.began: dict[str, float] = {}
        self.stopped = threading.Event()

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.bars.stop()

    def started(self, stage: str, key: str) -> None:
        """Shows a stage; follows it if it is the training."""
        self.began[stage] = time.monotonic()
        news = "starting the workers" if stage == "train" else ""
        self.tasks[stage] = self.bars.add_task(stage, total=None, news=news)
        self._line(f"{stage}: started")
        if stage == "train":
            path = store.work(stage, key) / rows.FILE
            threading.Thread(target=self._follow, args=(path,), daemon=True).start()

    def finished(self, stage: str) -> None:
        """Ticks a stage off."""
        self.stopped.set()
        self.bars.update(self.tasks[stage], total=1.0, completed=1.0)
        self._line(f"{stage}: done in {time.monotonic() - self.began[stage]:.1f} s")

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False)

    def _follow(self, path: Path) -> None:
        offset, news, told = 0, News(self.train), time.monotonic()
        warned = False
        self.stopped.clear()
        while not self.stopped.wait(LOOK_S):
            found, offset = rows.read(path, offset)
            for row in found:
                news.take(row)
            if news.note and not warned:
                warned = True
                self.console.print(f"train: {news.note}", highlight=False)
            if not found:
                continue
            self.bars.update(self.tasks["train"], total=1.0, completed=news.share, news=news.text)
            if time.monotonic() - told > LINE_S:
                told = time.monotonic()
                self._line(f"train: {news.share:4.0%}  {news.text}")


class News:
    """The latest of a training, from the rows it logs.

    Arguments:
        train: Says when the training ends.
    """

    def __init__(self, train: TrainConfig) -> None:
        self.train = train
        self.first: float | None = None
        self.share, self.step, self.nll, self.note = 0.0, 0, float("nan"), ""

    def take(self, row: Mapping[str, Any]) -> None:
        """Takes a row."""
        self.first = row["time"] if self.first is None else self.first
        self.step, self.note = row["step"], row.get("note", "")
        self.nll = row["metrics"].get("val/nll", self.nll)
        seconds = (row["time"] - self.first) / (self.train.max_seconds or float("inf"))
        self.share = min(1.0, max(self.step / self.train.steps, seconds))

    @property
    def text(self) -> str:
        """Step and validation NLL."""
        return f"step {self.step}, validation NLL {self.nll:.2f}"
