"""The checkpoints from which a training resumes to the bit."""

import math
import shutil
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebflow.checkpoint import UNFIT, Checkpoint, check, description, read, write
from ebflow.errors import BadInput
from ebflow.evaluation import Validation
from ebflow.train import State

if TYPE_CHECKING:
    from pipelines.training.flow_training import FlowTraining

LATEST = 2  # Latest checkpoints that stay: one to resume from, one in case that is corrupt


class Checkpoints:
    """The checkpoints of one training, by their steps; one process writes at a time.

    The latest two stay, and the best checkpoint by validation before each of them, which a resumed
    training does not compute again. The first checkpoint creates the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def save(self, training: "FlowTraining") -> None:
        """Writes a checkpoint, and removes those that are not needed any more.

        Call it on all workers, and whenever a validation is the best.

        Raises:
            OSError: if it cannot be written, as on a full disk; earlier ones stay.
        """
        save_training(training, self.path(training.step))
        if training.shard[0] == 0:
            self._prune(training.step)

    def newest(self) -> tuple[int | None, str]:
        """Returns the latest step to resume from, or None, and a line on corrupt checkpoints.

        Reads all of it, and of the best checkpoint before it. Removes corrupt ones after it, so
        that they count for none of the latest.
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


def save_training(training: "FlowTraining", folder: str | Path) -> None:
    """Writes the checkpoint of a training; call it on all workers, of which the first writes."""
    with training.clock("checkpoint"):
        checkpoint = pack(training)
        if training.shard[0] == 0:
            write(folder, checkpoint)


def resume(training: "FlowTraining", folder: str | Path) -> None:
    """Resumes a training from a checkpoint of an equal one.

    Raises:
        BadInput: if it is corrupt, of other data, or does not fit this training.
    """
    saved = read(folder)
    for name, expected in _identity(training).items():
        actual = (saved.state.get("training") or {}).get(name)
        if actual != expected:
            found = f"a training with {name} {actual}"
            raise BadInput(file=folder, found=found, expected=expected)
    try:
        _unpack(training, saved)
    except UNFIT as error:
        raise BadInput(f"does not fit this training: {error!r}", file=folder) from error


def _identity(training: "FlowTraining") -> dict[str, Any]:
    """Returns the properties that a resumed training shares with the saved one."""
    batch, digest = training.batch_size, training.dataset.digest
    return {"data": digest, "seed": training.seed, "batch_size": batch}


def pack(training: "FlowTraining") -> Checkpoint:
    """Returns all that an exact resume needs; call it on all workers."""
    optimizer = training.optimizer.state_dict()
    groups: dict[str, dict[str, Any]] = {
        **{f"moments {index}": values for index, values in optimizer["state"].items()},
        **{name: part.state() for name, part in training.parts.items()},
    }
    for name, values in (("losses", training.window), ("norms", training.norms)):
        groups[name] = {"window": torch.stack(values)} if values else {}
    if training.first_log_probs is not None:
        groups["validation"] = {"first": training.first_log_probs}
    tensors = {
        f"{group}/{name}": torch.as_tensor(value)
        for group, values in groups.items()
        for name, value in values.items()
    }
    state = {
        **description(training.flow),
        "training": _identity(training),
        "progress": asdict(training.state),
        "config": training.config,
        "optimizer": optimizer["param_groups"],
        "clock": training.clock.totals,
        "logged_seconds": training.logged_seconds,
        "workers": training.workers,
    }
    model, ema = training.flow.state_dict(), training.averaged.state_dict()
    return Checkpoint(model, state, ema, tensors)


def _unpack(training: "FlowTraining", saved: Checkpoint) -> None:
    """Restores what ``pack`` returned; the training may change its tensors."""
    for flow, weights in ((training.flow, saved.model), (training.averaged, saved.ema)):
        flow.load_state_dict(weights)
    groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in saved.optimizer.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor
    training.first_log_probs = groups.pop("validation", {}).get("first")
    training.window, training.norms = (
        list(groups.pop(name, {}).get("window", torch.empty(0)).to(training.device))
        for name in ("losses", "norms")
    )
    for name, part in training.parts.items():
        part.load(groups.pop(name))
    moments = {}
    for group, values in groups.items():  # of another training's parts, this raises
        moments[int(group.removeprefix("moments "))] = values
    state = saved.state
    training.optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer"]})
    training.clock.totals = Counter(state["clock"])
    training.workers = {int(step): count for step, count in state["workers"].items()}
    training.logged_seconds, progress = state["logged_seconds"], state["progress"]
    training.state = State(**{**progress, "best": Validation(**progress["best"])})
    validated = training.retry and math.isfinite(training.state.best.nll)
    training.best = training.state.best_step if validated else None
