"""Optimizers that are not compiled: PyTorch's import its compiler, which takes long."""

__all__ = ["eager"]

from functools import cache
from inspect import unwrap

import torch
from torch.optim import Optimizer

CARED_FOR = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods that PyTorch keeps from its compiler, for which it imports it."""


@cache
def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """Returns a kind of optimizer that takes the same steps without the compiler."""
    plain = {name: unwrap(getattr(kind, name)) for name in CARED_FOR}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(unwrap(kind.step))})
