"""A training as what drives it sees it: its events, its clock, and what it has come to."""

__all__ = ["Clock", "Driven", "Event", "State"]

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
import torch.distributed

from .checkpoint import Checkpoint
from .evaluation import Validation


class Clock:
    """Adds up wall seconds by name; a name measured inside another is taken out of it."""

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
        """Goes on from the totals of an earlier clock; laps begin now."""
        self.totals = {name: float(seconds) for name, seconds in totals.items()}
        self._laps = dict(self.totals)

    def lap(self, name: str) -> float:
        """Returns the seconds under a name since the last lap."""
        before, self._laps[name] = self._laps.get(name, 0.0), self.total(name)
        return self.total(name) - before


@dataclass(frozen=True)
class Event:
    """What happened at a step.

    Attributes:
        kind: ``log``, ``validate``, or ``resume``, where a training that became non-finite goes
            back to its best validation: what it told of later steps holds no more.
        step: The number of steps done.
        metrics: Names of the metrics and their values.
        best: Whether this validation is the best so far.
        note: What a reader should know: of ``validate`` why the NLL has not fallen for a while, of
            ``resume`` what was not finite.
        text: How far the training is, where step and NLL do not say it.
    """

    kind: str
    step: int
    metrics: dict[str, float]
    best: bool = False
    note: str = ""
    text: str = ""


@dataclass
class State:
    """What a training has come to, besides tensors.

    Attributes:
        step: Steps done.
        timed: The share of the seconds that are spent, where they are bounded.
        best: The best validation so far.
        best_step: Its step.
        stale: Validations since then.
        validated: The step of the last validation.
        train_loss: The last mean loss.
        verdict: Why training ended; empty before.
        relief: The factor of the learning rate: 1, and less once a training became non-finite.
        warnings: What was not finite, and what was done.
    """

    step: int = 0
    timed: float = 0.0
    best: Validation = field(default_factory=Validation)
    best_step: int = 0
    stale: int = 0
    validated: int = -1
    train_loss: float = math.nan
    verdict: str = ""
    relief: float = 1.0
    warnings: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Returns it JSON-able: None for what is not finite."""
        return {
            key: {k: _finite(v) for k, v in value.items()} if key == "best" else _finite(value)
            for key, value in asdict(self).items()
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Returns the state that ``plain`` told."""
        best = {name: value for name, value in plain["best"].items() if value is not None}
        loss = math.nan if plain["train_loss"] is None else plain["train_loss"]
        return cls(**{**plain, "best": Validation(**best), "train_loss": loss})


def _finite(value: Any) -> Any:  # noqa: ANN401
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Driven(ABC):
    """A training as what drives it sees it: between its events it is told, saved and resumed.

    Attributes:
        state: What it has come to, besides tensors.
        clock: Where its seconds went.
        device: Where its tensors are.
        shard: Rank and number of workers.
        progress: The share of it that is done.
        identity: What one that goes on must share with the one that was saved, JSON-able.
    """

    device: torch.device
    progress: float
    identity: dict[str, Any]

    def __init__(self, shard: tuple[int, int] = (0, 1)) -> None:
        self.state, self.clock, self.shard = State(), Clock(), shard

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.state.step

    @property
    def verdict(self) -> str:
        """Why training ended; empty before."""
        return self.state.verdict

    @abstractmethod
    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``verdict`` then says why it did."""

    @abstractmethod
    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it on all workers."""

    @abstractmethod
    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` gave; the training may go on with its tensors."""

    def keep(self) -> None:  # noqa: B027
        """Keeps all of the present training, if it may go back to it; call it on all workers."""

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
