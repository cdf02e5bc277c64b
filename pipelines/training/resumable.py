"""Trainings that resume from their checkpoints.

A ``ResumableTraining`` yields events. The loop around it reports, saves and shows progress between
them. A resumed training gives the same bits as one that never stopped.
"""

import shutil
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from ebflow.checkpoint import UNFIT, Checkpoint, check, read, write
from ebflow.errors import BadInput
from ebflow.evaluation import Validation
from ebflow.train import State

LATEST = 2
"""Latest checkpoints that are kept: one to resume from, one in case that is corrupt."""


class Clock:
    """Adds up wall seconds by name; a name measured inside another is not counted there."""

    def __init__(self) -> None:
        self.totals = Counter[str]()
        self._inner = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures a block."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.totals[name] += spent - self._inner
            self._inner = outer + spent


class ResumableTraining(ABC):
    """A training that is logged, saved and resumed between its events.

    Its ``run`` yields events until it ends.

    Attributes:
        state: Its progress, without tensors.
        clock: Its seconds by what they were spent on.
        device: The device of its tensors.
        shard: Rank and number of workers.
        progress: The share of it that is done.
        identity: What a resumed training must have in common with the saved one, JSON-able.
        between: A function that is called between steps or epochs, and may save the training.
        reload: A function that restores the checkpoint of a step, on all workers.
    """

    device: torch.device
    progress: float
    identity: dict[str, Any]
    reload: Callable[[int], None]

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
    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it on all workers."""

    @abstractmethod
    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` returned; the training may change its tensors."""

    def agreed(self, value: float) -> float:
        """Returns rank 0's value on every rank, so that all decide alike."""
        if not torch.distributed.is_initialized():
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)


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

        Reads all of it, and of the best checkpoint before it. Removes corrupt ones after it, so
        that they count for none of the latest.

        Returns:
            The step; and one line on corrupt checkpoints, empty if there are none.
        """
        corrupt = []
        for step in sorted(self._steps(), reverse=True):
            checked = step
            try:
                checked = check(self.path(step))["progress"]["best_step"]
                check(self.path(checked))
            except BadInput as error:
                corrupt.append(str(error))
                if checked == step:
                    shutil.rmtree(self.path(step))
            else:
                line = f"{'; '.join(corrupt)}; training resumes from step {step}"
                return step, line if corrupt else ""
        return None, f"{'; '.join(corrupt)}; training starts again" if corrupt else ""

    def _prune(self, step: int) -> None:
        """Removes checkpoints that the latest do not need, and those of later steps."""
        latest = [s for s in sorted(self._steps(), reverse=True) if s <= step][:LATEST]
        needed = {self.path(s) for s in latest}
        for path in {*needed}:
            with suppress(BadInput):
                needed.add(self.path(read(path, only=()).state["progress"]["best_step"]))
        for path in {*self.folder.iterdir()} - needed:
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


def resume(training: ResumableTraining, folder: str | Path) -> None:
    """Resumes a training from a checkpoint of an equal one.

    Raises:
        BadInput: if it is corrupt, of other data, or does not fit this training.
    """
    saved = read(folder)
    for name, expected in training.identity.items():
        actual = saved.state.get("training", {}).get(name)
        if actual != expected:
            found = f"a training with {name} {actual}"
            raise BadInput(file=folder, found=found, expected=expected)
    try:
        training.unpack(saved)
    except UNFIT as error:
        raise BadInput(f"does not fit this training: {error!r}", file=folder) from error


# The parts of a checkpoint


def state_of(progress: dict[str, Any]) -> State:
    """Returns the state that ``asdict`` made JSON-able."""
    return State(**{**progress, "best": Validation(**progress["best"])})


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Returns the tensors of an optimizer's state by name, and its parameter groups."""
    tensors = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, state["param_groups"]


def unflatten(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the optimizer's state of which ``flatten`` returned the parts."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        state.setdefault(parameter_of(key), {})[key.split(".", 2)[2]] = value
    return {"state": state, "param_groups": groups}


def parameter_of(key: str) -> int:
    """Returns the number of the parameter that has a tensor of the optimizer's state."""
    return int(key.split(".", 2)[1])
