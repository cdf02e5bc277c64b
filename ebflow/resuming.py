"""What a training needs to go on exactly, and its checkpoints: the last two and the best.

Any of them may be found damaged.
"""

__all__ = ["Checkpoints", "copied", "flatten", "pack", "resume", "save_training", "unflatten",
           "unpack"]  # fmt: skip

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoint import PARTS, UNFIT, Checkpoint, check, read, spec_of, write
from .errors import BadInput
from .execution import distributed, full

if TYPE_CHECKING:
    from .driven import Driven
    from .train import Trainer

KEPT = 2
"""Latest checkpoints that are kept: one to go on from, one in case that is damaged."""


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

    def save(self, trainer: "Driven") -> None:
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


def pack(trainer: "Trainer") -> Checkpoint:
    """Returns all of a trainer that an exact resume needs; call it on all workers."""
    tensors, groups = flatten(trainer.optimizer.state_dict())
    if trainer.anchor is not None:
        tensors.update({f"anchor.{k}": t for k, t in trainer.anchor.state().items()})
    if trainer.filling is not None:
        tensors.update({f"missing.{k}": t for k, t in trainer.filling.state().items()})
    tensors["ema.count"] = trainer.ema.n_averaged
    for name, window in (("losses", trainer.window), ("norms", trainer.norms)):
        tensors.update({f"window.{name}": torch.stack(window)} if window else {})
    state = {
        "flow": spec_of(trainer.flow),
        "columns": trainer.flow.columns,
        "training": trainer.identity,
        "progress": trainer.state.plain(),
        "epoch": trainer.step * trainer.batch_size // len(trainer.dataset.split("train")),
        "config": trainer.config,
        "optimizer": groups,
        "clock": trainer.clock.totals,
    }
    parts = (trainer.flow.state_dict(), trainer.averaged.state_dict(), tensors)
    model, ema, tensors = map(full, parts)
    return Checkpoint(model, state, ema, tensors)


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a copy in the CPU's memory, which shares no tensor with the original."""
    parts = {
        name: {k: t.detach().to("cpu", copy=True) for k, t in getattr(checkpoint, name).items()}
        for name in PARTS
    }
    return Checkpoint(**parts, state=copy.deepcopy(checkpoint.state))


def save_training(trainer: "Driven", folder: str | Path) -> None:
    """Writes what ``pack`` gives; call it on all workers, the first of which writes."""
    with trainer.clock("checkpoint"):
        checkpoint = trainer.pack()
        if trainer.shard[0] == 0:
            write(folder, checkpoint)


def resume(trainer: "Driven", folder: str | Path, *, best: str | Path | None = None) -> None:
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


def _fitting(trainer: "Driven", folder: str | Path) -> Checkpoint:
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


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Returns the tensors of an optimiser's state by name, and its parameter groups."""
    tensors = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, state["param_groups"]


def unflatten(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the optimiser's state that ``flatten`` took apart."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        state.setdefault(_index(key), {})[key.split(".", 2)[2]] = value
    return {"state": state, "param_groups": groups}


def unpack(trainer: "Trainer", saved: Checkpoint) -> None:
    """Restores what ``pack`` gave; the trainer may go on with its tensors."""
    for flow, tensors in ((trainer.flow, saved.model), (trainer.averaged, saved.ema)):
        flow.load_state_dict(distributed(tensors, flow.state_dict()))
    tensors, state = dict(saved.optimizer), saved.state
    trainer.ema.n_averaged.copy_(tensors.pop("ema.count"))
    trainer.window, trainer.norms = (
        list(tensors.pop(f"window.{name}", torch.empty(0)).to(trainer.device))
        for name in ("losses", "norms")
    )
    anchored, filled = _taken(tensors, "anchor."), _taken(tensors, "missing.")
    if trainer.anchor is not None:
        trainer.anchor.load(anchored)
    if trainer.filling is not None:
        trainer.filling.load(filled)
    moments = distributed(tensors, {key: trainer.parameters[_index(key)] for key in tensors})
    trainer.optimizer.load_state_dict(unflatten(moments, state["optimizer"]))
    trainer.clock.restore(state["clock"])
    trainer.state = type(trainer.state).of(state["progress"])


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Takes the tensors of a prefix out of others; returns them without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _index(key: str) -> int:
    """Returns the number of the parameter that a tensor of the optimiser belongs to."""
    return int(key.split(".", 2)[1])
