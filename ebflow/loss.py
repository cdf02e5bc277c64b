r"""The training loss, an objective beside its anchor; schedules and optimizers.

.. math:: \mathcal{L}(x) = w_o \, \mathrm{objective}(x)
    + w_a \left( E(x) + \widehat{\log Z} \right)

with the anchor's :math:`\widehat{\log Z}` (``anchor.py``). E is evaluated at the points of the
objective (noised points for DSM), so the anchor costs no further matrix product.

A loss is a function ``(density, x, generator, progress) -> (loss of every row, evaluation)``
without state. The evaluation is the density at the points whose energy the loss used.

A schedule is a function of the progress in [0, 1]: the share of the steps, or of the seconds if
time limits the training.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .anchor import Anchor
from .bases import Base
from .bijections import Bijection
from .bijections.weighted import fixed_weights
from .density import Evaluation, LogDensity
from .flow import Flow
from .objectives import Objective, dsm
from .randomness import Generator

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Returns 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Returns (1 + cos π t) / 2, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def warmed(schedule: Schedule, warmup: float) -> Schedule:
    """Returns ``schedule`` with a linear rise over the first ``warmup`` of training."""
    if not warmup:
        return schedule
    return lambda progress: schedule(progress) * min(1.0, progress / warmup)


class Progress(NamedTuple):
    """The number of steps done, and their share of the training in [0, 1]."""

    step: int = 0
    share: float = 0.0


#: From a density, data with shape (B, *event), a generator and the progress to (B,) losses
LossFunction = Callable[
    [LogDensity, Tensor, Generator, Progress], tuple[Tensor, Evaluation | None]
]


@dataclass(frozen=True)
class Loss:
    """Creates the loss of an objective, with an anchor beside it.

    The weights are w_o, at 0 of which the objective is not computed, and w_a.

    Example:
        >>> flow = ebflow.architectures.dense((3,))
        >>> loss = ebflow.Loss(ebflow.objectives.dsm)
        >>> values, evaluation = loss(flow(), x, torch.Generator(), ebflow.Progress())
        >>> values.shape, evaluation.latent.shape
        (torch.Size([60]), torch.Size([60, 3]))
    """

    objective: Objective
    weight: float = 1.0
    anchor: Anchor | None = None
    anchor_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.anchor_weight and self.anchor is None:
            raise ValueError("anchor_weight: found a weight without an anchor")

    def __call__(
        self, density: LogDensity, x: Tensor, generator: Generator, progress: Progress
    ) -> tuple[Tensor, Evaluation | None]:
        """Returns the loss of every row in nats, with shape (B,), and the density at ``x``."""
        recorded = RecordedDensity(density)
        if self.anchor is not None:
            self.anchor.follow(progress.step)
        loss = self.weighted_objective(recorded, x, generator)
        if self.anchor_weight:
            energy = recorded.at_data(x).energy[: len(x)]
            log_z = self.anchor.log_normalizer()
            loss = loss + (self.anchor_weight * energy + self.anchor_weight * log_z)
        return loss, recorded.last_at_data(x)

    def weighted_objective(
        self, density: LogDensity, x: Tensor, generator: Generator, **options: float
    ) -> Tensor | float:
        """Returns the weighted objective of every row, with shape (B,); 0 at weight 0.

        Raises:
            ValueError: if the objective does not return one loss a row.
        """
        if not self.weight:
            return 0.0
        loss = self.weight * self.objective(density, x, generator=generator, **options)
        if loss.shape != x.shape[:1]:
            raise ValueError(
                f"objective: found losses of shape {tuple(loss.shape)}, expected one a row, "
                f"({len(x)},)"
            )
        return loss


def balancing_weight(objective: Objective) -> float:
    """Returns the weight that brings an objective to the size of an anchor beside it.

    Denoising score matching has the size D / σ². Other objectives have the size of the squared
    score, which whitening makes D, and a heavy tail: 0.01 makes the tail small beside the anchor.
    """
    function = getattr(objective, "func", objective)
    if function is not dsm:
        return 0.01
    options = getattr(objective, "keywords", {})
    return options.get("sigma", signature(dsm).parameters["sigma"].default) ** 2


class LossModule(nn.Module):
    """Creates the core of a flow and its loss as one module, so that DDP can wrap it."""

    def __init__(self, flow: Flow, loss: LossFunction) -> None:
        super().__init__()
        self.flow, self.loss = flow, loss

    def forward(
        self, x: Tensor, context: Tensor | None, generator: Generator, progress: Progress
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the losses of preprocessed rows, (B,), and the latents if the loss has any."""
        with fixed_weights(self.flow):
            loss, at = self.loss(self.flow(context), x, generator, progress)
            latent = None if at is None else vars(at).get("latent")
        return loss, None if latent is None else latent.detach()[: len(x)]


class RecordedDensity(LogDensity):
    """Creates a density that records its evaluations, so that the anchor uses them again."""

    def __init__(self, density: LogDensity) -> None:
        self.density, self.evaluations = density, list[Evaluation]()

    def at(self, x: Tensor) -> Evaluation:
        self.evaluations.append(self.density.at(x))
        return self.evaluations[-1]

    def energy(self, x: Tensor) -> Tensor:
        return self.at(x).energy

    def last_at_data(self, x: Tensor) -> Evaluation | None:
        """Returns the evaluation at ``x`` itself, else the only one, whose first rows are ``x``.

        The latter may be at noised data.
        """
        exact = [at for at in self.evaluations if at.x is x]
        if exact or len(self.evaluations) == 1:
            return (exact or self.evaluations)[0]
        return None

    def at_data(self, x: Tensor) -> Evaluation:
        """Returns the same, or a new evaluation at ``x``; it may have more rows than ``x``."""
        return self.last_at_data(x) or self.at(x)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.density, name)


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
    return AdamW(settings, lr=lr, fused=True)


def _undecorated(method: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """Creates an AdamW that does not import PyTorch's compiler, which takes more than a second.

    Its methods are PyTorch's own, without the decorators that switch the compiler off.
    """

    add_param_group = _undecorated(torch.optim.AdamW.add_param_group)
    zero_grad = _undecorated(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(_undecorated(torch.optim.AdamW.step))
    state_dict = _undecorated(torch.optim.AdamW.state_dict)
    load_state_dict = _undecorated(torch.optim.AdamW.load_state_dict)
