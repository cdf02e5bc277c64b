"""Trainings that resume from their checkpoints.

A ``ResumableTraining`` is an iterator of events. A loop around it logs, saves and shows progress
between them. A resumed training gives the same bits as one that never stopped. ``Checkpoints``
are those of one training: the last two and the best, any of which may be corrupt.
"""

import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from ebflow.checkpoint import UNFIT, Checkpoint, check, read, write
from ebflow.errors import BadInput
from ebflow.evaluation import Validation
from ebflow.history import Event
from ebflow.train import State

LATEST = 2
"""Latest checkpoints that are kept: one to resume from, one in case that is corrupt."""


class Clock:
    """Adds up wall seconds by name; a name measured inside another is not counted there."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self._laps: dict[str, float] = {}
        self._inner = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures a block."""
        outer, self._inner = self._inner, 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.totals[name] = self.total(name) + spent - self._inner
            self._inner = outer + spent

    def total(self, name: str) -> float:
        """Returns the seconds under a name."""
        return self.totals.get(name, 0.0)

    def restore(self, totals: dict[str, float]) -> None:
        """Resumes from the totals of an earlier clock; laps begin now."""
        self.totals = {name: float(seconds) for name, seconds in totals.items()}
        self._laps = dict(self.totals)

    def lap(self, name: str) -> float:
        """Returns the seconds under a name since the last lap."""
        before, self._laps[name] = self._laps.get(name, 0.0), self.total(name)
        return self.total(name) - before


class ResumableTraining(ABC):
    """A training that is logged, saved and resumed between its events.

    Attributes:
        state: Its progress, without tensors.
        clock: Its seconds by what they were spent on.
        device: The device of its tensors.
        shard: Rank and number of workers.
        progress: The share of it that is done.
        identity: What a resumed training must have in common with the saved one, JSON-able.
        between: A function that is called between steps or epochs, and may save the training.
    """

    device: torch.device
    progress: float
    identity: dict[str, Any]

    def __init__(self, shard: tuple[int, int] = (0, 1)) -> None:
        self.state, self.clock, self.shard = State(), Clock(), shard
        self.between: Callable[[], None] = lambda: None

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.state.step

    @property
    def verdict(self) -> str:
        """A sentence on why training ended; empty before."""
        return self.state.verdict

    @abstractmethod
    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``verdict`` then says why it did."""

    @abstractmethod
    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it on all workers."""

    @abstractmethod
    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` returned; the training may change its tensors."""

    def remember(self) -> None:  # noqa: B027
        """Keeps the present state as the best, to return to; call it on all workers."""

    def agreed(self, value: float) -> float:
        """Returns rank 0's value on every rank, so that all decide alike."""
        if not torch.distributed.is_initialized():
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Waits until all workers are here."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()


def plain(state: State) -> dict[str, Any]:
    """Returns a state JSON-able: None for numbers that are not finite."""
    return {
        key: {k: _finite(v) for k, v in value.items()} if key == "best" else _finite(value)
        for key, value in asdict(state).items()
    }


def state_of(plain: dict[str, Any]) -> State:
    """Returns the state that :func:`plain` made JSON-able."""
    best = {name: value for name, value in plain["best"].items() if value is not None}
    loss = math.nan if plain["train_loss"] is None else plain["train_loss"]
    lowest = math.inf if plain["lowest"] is None else plain["lowest"]
    return State(**{**plain, "best": Validation(**best), "train_loss": loss, "lowest": lowest})


def _finite(value: Any) -> Any:  # noqa: ANN401
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Checkpoints:
    """The checkpoints of one training, by their steps; one process writes at a time.

    The latest two stay, and the best checkpoint by validation before each of them, which a resumed
    training does not compute again.

    Arguments:
        folder: Their folder; the first checkpoint creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def best(self, step: int) -> Path:
        """Returns the folder of the best checkpoint by validation up to a step's."""
        return self.path(read(self.path(step), only=()).state["progress"]["best_step"])

    def save(self, training: ResumableTraining) -> None:
        """Writes a checkpoint, and removes those that are not needed any more.

        Call it on all workers, and whenever a validation is the best.

        Raises:
            OSError: if it cannot be written, as on a full disk; earlier ones stay.
        """
        save_training(training, self.path(training.step))
        if training.shard[0] == 0:
            self._prune(training.step)

    def newest(self) -> tuple[int | None, str]:
        """Returns the latest step from which a training can resume, None if there is none.

        Reads all of it, and of the best checkpoint before it, once.

        Returns:
            The step; and one line on corrupt checkpoints after it, empty if there are none.
        """
        newest, corrupt = None, []
        for step in sorted(self._steps(), reverse=True):
            try:
                self._check(step)
            except BadInput as error:
                corrupt.append(str(error))
            else:
                newest = step
                break
        if not corrupt:
            return newest, ""
        resumes = "starts again" if newest is None else f"resumes from step {newest}"
        return newest, f"{'; '.join(corrupt)}; training {resumes}"

    def _check(self, step: int) -> None:
        """Raises BadInput unless a step's checkpoint, and the best one up to it, are intact."""
        best = check(self.path(step))["progress"]["best_step"]
        if best != step:
            check(self.path(best))

    def _prune(self, step: int) -> None:
        """Removes checkpoints that the latest do not need, and those of later steps."""
        latest = [s for s in sorted(self._steps(), reverse=True) if s <= step][:LATEST]
        needed = set(latest)
        for other in latest:
            with suppress(BadInput):
                needed.add(read(self.path(other), only=()).state["progress"]["best_step"])
        paths = {self.path(s) for s in needed}
        for path in self.folder.iterdir():
            if path not in paths:
                shutil.rmtree(path)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return [int(name) for name in names if name.isdigit()]


def save_training(training: ResumableTraining, folder: str | Path) -> None:
    """Writes the checkpoint of a training; call it on all workers, of which the first writes."""
    with training.clock("checkpoint"):
        checkpoint = training.pack()
        if training.shard[0] == 0:
            write(folder, checkpoint)


def resume(
    training: ResumableTraining, folder: str | Path, *, best: str | Path | None = None
) -> None:
    """Resumes a training from a checkpoint of an equal one.

    Arguments:
        training: The training.
        folder: The checkpoint.
        best: The checkpoint of the best validation so far, to which a training that becomes
            non-finite returns; not needed if ``folder`` is it.

    Raises:
        BadInput: if it is corrupt, of other data, or does not fit this training.
    """
    saved = _read_for(training, folder)
    with _fits(folder):
        step, best_step = (saved.state["progress"][name] for name in ("step", "best_step"))
    if best is not None and best_step != step:
        other = _read_for(training, best)
        with _fits(best):
            if other.state["progress"]["step"] == best_step:
                training.unpack(other)
                training.remember()
    with _fits(folder):
        training.unpack(saved)
        if best_step == step:
            training.remember()


def _read_for(training: ResumableTraining, folder: str | Path) -> Checkpoint:
    """Returns a checkpoint of a training with the same data and seed."""
    saved = read(folder)
    for name, expected in training.identity.items():
        with _fits(folder):
            actual = saved.state.get("training", {}).get(name)
        if actual != expected:
            found = f"a training with {name} {actual}"
            raise BadInput(file=folder, found=found, expected=expected)
    return saved


@contextmanager
def _fits(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except UNFIT as error:
        raise BadInput(f"does not fit this training: {error!r}", file=folder) from error
