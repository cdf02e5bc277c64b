"""The state of a trainer as a checkpoint, and back: exact to the last bit."""

__all__ = ["flatten", "pack", "unflatten", "unpack"]

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .blindness import Standing
from .checkpoint import Checkpoint
from .parallel import spread, whole

if TYPE_CHECKING:
    from .train import Trainer


def pack(trainer: "Trainer") -> Checkpoint:
    """Returns all of a trainer that an exact resume needs."""
    tensors, groups = flatten(trainer.optimizer.state_dict())
    anchor = trainer.loss.anchor
    if anchor is not None:
        tensors.update({f"anchor.{k}": t for k, t in anchor.state().items()})
    tensors["ema.count"] = trainer.ema.n_averaged
    for name, window in (("losses", trainer.window), ("norms", trainer.norms)):
        tensors.update({f"window.{name}": torch.stack(window)} if window else {})
    dtype = str(trainer.flow.like.dtype).removeprefix("torch.")
    state = {
        "flow": {**(trainer.flow.spec or {}), "dtype": dtype},
        "data": trainer.dataset.digest,
        "seed": trainer.seed,
        "batch_size": trainer.batch_size,
        "step": trainer.step,
        "epoch": trainer.step * trainer.batch_size // len(trainer.dataset.split("train")),
        "timed": trainer.timed,
        "config": trainer.config,
        "optimizer": groups,
        "clock": trainer.clock.totals,
        "best": {name: _finite(value) for name, value in asdict(trainer.best).items()},
        "best_step": trainer.best_step,
        "stale": trainer.stale,
        "validated": trainer.validated,
        "train_loss": _finite(trainer.train_loss),
        "verdict": trainer.verdict,
    }  # fmt: skip
    parts = (trainer.flow.state_dict(), trainer.averaged.state_dict(), tensors)
    return Checkpoint(*map(whole, parts), state)


def unpack(trainer: "Trainer", saved: Checkpoint) -> None:
    """Gives a trainer, built alike, what ``pack`` took."""
    for flow, tensors in ((trainer.flow, saved.model), (trainer.averaged, saved.ema)):
        flow.load_state_dict(spread(tensors, flow.state_dict()))
    tensors, state = dict(saved.optimizer), saved.state
    trainer.ema.n_averaged.copy_(tensors.pop("ema.count"))
    trainer.window, trainer.norms = (
        list(tensors.pop(f"window.{name}", torch.empty(0)).to(trainer.device))
        for name in ("losses", "norms")
    )
    anchored = {k: tensors.pop(k) for k in list(tensors) if k.startswith("anchor.")}
    if trainer.loss.anchor is not None:
        trainer.loss.anchor.load({k.removeprefix("anchor."): t for k, t in anchored.items()})
    moments = spread(tensors, {key: trainer.parameters[_index(key)] for key in tensors})
    trainer.optimizer.load_state_dict(unflatten(moments, state["optimizer"]))
    trainer.step, trainer.verdict = state["step"], state["verdict"]
    trainer.clock.totals.update(state["clock"])
    known = {name: value for name, value in state["best"].items() if value is not None}
    trainer.best, trainer.best_step = Standing(**known), state["best_step"]
    trainer.stale, trainer.validated = state["stale"], state["validated"]
    trainer.train_loss = _number(state["train_loss"], math.nan)
    trainer.timed = state["timed"]
    trainer.progress = max(trainer.step / trainer.steps, trainer.timed)


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


def _index(key: str) -> int:
    """Returns the number of the parameter that a tensor of the optimiser belongs to."""
    return int(key.split(".", 2)[1])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None, missing: float) -> float:
    return missing if value is None else value
