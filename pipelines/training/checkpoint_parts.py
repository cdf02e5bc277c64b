"""The parts of a training's checkpoint in memory."""

__all__ = ["copied", "flatten", "parameter_of", "unflatten"]

import copy
from typing import Any

import torch
from torch import Tensor

from ebflow.checkpoint import PARTS, Checkpoint


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a copy in the CPU's memory, without shared tensors."""
    parts = {
        name: {k: t.detach().to("cpu", copy=True) for k, t in getattr(checkpoint, name).items()}
        for name in PARTS
    }
    return Checkpoint(**parts, state=copy.deepcopy(checkpoint.state))


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
