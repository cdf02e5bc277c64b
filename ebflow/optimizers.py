"""Optimizers of flows."""

__all__ = ["adamw"]

from collections.abc import Iterable

import torch
from torch import nn

from .bases import Base
from .bijections import Bijection
from .flow import Flow


def adamw(
    flow: Flow, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Returns AdamW, whose weight decay acts on the networks inside layers only.

    The matrix of a linear layer starts as the identity: decay would shrink the whole map to zero.
    """
    networks = (m for m in flow.modules() if not isinstance(m, Bijection | Base | Flow))
    matrices = {id(p) for m in networks for p in m.parameters(recurse=False) if p.ndim > 1}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in parameters:
        groups[bool(weight_decay) and id(parameter) in matrices].append(parameter)
    settings = [
        {"params": group, "weight_decay": weight_decay if decayed else 0.0}
        for decayed, group in groups.items()
        if group
    ]
    return torch.optim.AdamW(settings, lr=lr, fused=True)
