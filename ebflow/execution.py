"""Trainings as what drives them sees them: told, saved and resumed, on one worker or several.

A ``Driven`` training is an iterator of events. Whoever drives it logs, saves and shows progress
between them; the training computes. One that is resumed goes on bit for bit as if it had not
stopped. ``Checkpoints`` are those of one training: the last two and the best, any of which may be
found damaged.

Weights are copied on each worker (DDP) or sharded among them (FSDP2). Sharded weights
(``fully_shard``) are gathered for a step and freed after it. Of a worker's memory, the optimizer's
moments, the averaged weights and the gradients at rest then shrink as 1/workers; during a step the
weights and their gradient are full. The mathematics sees full weights only. What shards them is
imported where there are several workers: it takes as long as to import torch.

References:
    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023),
    arXiv:2304.11277.
"""

__all__ = ["Augmentation", "Checkpoints", "Clock", "Driven", "Event", "State", "distributed",
           "full", "is_sharded", "resume", "save_training", "shard_weights", "unsharded",
           "unsynchronized"]  # fmt: skip

import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed
from torch import Tensor, nn

from .checkpoint import UNFIT, Checkpoint, check, read, write
from .errors import BadInput
from .evaluation import Validation
from .randomness import Generator

Augmentation = Callable[[Tensor, Generator], Tensor]
"""From raw rows with shape (B, D) and a generator to rows of the same shape and dtype."""

KEPT = 2
"""Latest checkpoints that are kept: one to go on from, one in case that is damaged."""


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
        between: Is called where the state is whole, between steps or epochs, and may save it.
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


class Checkpoints:
    """The checkpoints of one training, by their steps; one process writes at a time.

    Kept are the latest two, and what each of them needs: the best one by validation so far, which
    a training that goes on does not make again.

    Arguments:
        folder: Where they are; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def best(self, step: int) -> Path:
        """Returns the folder of the best checkpoint by validation up to a step's."""
        return self.path(read(self.path(step), only=()).state["progress"]["best_step"])

    def save(self, trainer: Driven) -> None:
        """Writes a checkpoint, and removes those that are not needed any more.

        Call it on all workers, and whenever a validation is the best.

        Raises:
            OSError: if it cannot be written, as on a full disk; those before stay.
        """
        save_training(trainer, self.path(trainer.step))
        if trainer.shard[0] == 0:
            self._prune(trainer.step)

    def newest(self) -> tuple[int | None, str]:
        """Returns the latest step from which a training can go on, None if there is none.

        Reads all of it, and of the best checkpoint before it, once.

        Returns:
            The step; and what is damaged beyond it, in one line, empty if nothing is.
        """
        found, damaged = None, []
        for step in sorted(self._steps(), reverse=True):
            try:
                self._check(step)
            except BadInput as error:
                damaged.append(str(error))
            else:
                found = step
                break
        if not damaged:
            return found, ""
        goes_on = "begins anew" if found is None else f"goes on from step {found}"
        return found, f"{'; '.join(damaged)}; training {goes_on}"

    def _check(self, step: int) -> None:
        """Raises BadInput unless a step's checkpoint, and the best one up to it, are sound."""
        best = check(self.path(step))["progress"]["best_step"]
        if best != step:
            check(self.path(best))

    def _prune(self, step: int) -> None:
        """Removes all that the latest do not need, and what is beyond the present step."""
        latest = [s for s in sorted(self._steps(), reverse=True) if s <= step][:KEPT]
        needed = set(latest)
        for kept in latest:
            with suppress(BadInput):
                needed.add(read(self.path(kept), only=()).state["progress"]["best_step"])
        paths = {self.path(s) for s in needed}
        for path in self.folder.iterdir():
            if path not in paths:
                shutil.rmtree(path)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return [int(name) for name in names if name.isdigit()]


def save_training(trainer: Driven, folder: str | Path) -> None:
    """Writes what a trainer packs; call it on all workers, the first of which writes."""
    with trainer.clock("checkpoint"):
        checkpoint = trainer.pack()
        if trainer.shard[0] == 0:
            write(folder, checkpoint)


def resume(trainer: Driven, folder: str | Path, *, best: str | Path | None = None) -> None:
    """Lets a trainer, built alike, go on from what ``save_training`` wrote.

    Arguments:
        trainer: The trainer.
        folder: The checkpoint.
        best: That of the best validation so far, which a training that becomes non-finite goes
            back to; not needed where ``folder`` is it.

    Raises:
        BadInput: if it is damaged, was made with other data, or does not fit this training.
    """
    saved = _fitting(trainer, folder)
    with _fits(folder):
        step, best_step = (saved.state["progress"][name] for name in ("step", "best_step"))
    if best is not None and best_step != step:
        found = _fitting(trainer, best)
        with _fits(best):
            if found.state["progress"]["step"] == best_step:
                trainer.unpack(found)
                trainer.keep()
    with _fits(folder):
        trainer.unpack(saved)
        if best_step == step:
            trainer.keep()


def _fitting(trainer: Driven, folder: str | Path) -> Checkpoint:
    """Returns a checkpoint that was made with this trainer's data and seed."""
    saved = read(folder)
    for name, expected in trainer.identity.items():
        with _fits(folder):
            found = saved.state.get("training", {}).get(name)
        if found != expected:
            raise BadInput(f"{folder}: found a training with {name} {found}, expected {expected}")
    return saved


@contextmanager
def _fits(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except UNFIT as error:
        raise BadInput(f"{folder}: does not fit this training: {error!r}") from error


def shard_weights(module: nn.Module) -> nn.Module:
    """Shards a module's parameters among all workers, in place; returns it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    return fully_shard(module, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's parameters are sharded."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gathers the weights of a sharded module for a while; on all workers."""
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


@contextmanager
def unsynchronized(module: nn.Module) -> Iterator[None]:
    """Keeps gradients where they arise, for all but the last part of a batch."""
    if is_sharded(module):
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)
    elif isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


def full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with those that are sharded gathered; on all workers."""
    return {k: t.full_tensor() if _is_part(t) else t for k, t in tensors.items()}


def distributed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns this worker's parts of full tensors, sharded as those of ``like`` are, by name."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        wanted = like.get(name)
        if _is_part(wanted) and wanted.shape == tensor.shape:
            from torch.distributed.tensor import distribute_tensor

            place = wanted.device_mesh, wanted.placements
            found[name] = distribute_tensor(tensor.to(wanted.device), *place, src_data_rank=None)
    return found


def _is_part(tensor: Tensor | None) -> bool:
    """Whether a tensor is sharded, of which this worker has a part."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
