r"""The training loss: an objective, and what keeps its likelihood.

.. math:: \mathcal{L}(x) = w_o \, \mathrm{objective}(x)
    + w_a \left( E(x) + \widehat{\log Z} \right) + \lambda E(x) + \tfrac{\mu}{2} \|\bar u\|^2

with the anchor's :math:`\widehat{\log Z}` (``anchor.py``), the low-energy weight :math:`\lambda`
(biased: it does not vanish at the truth) and the latent-mean weight :math:`\mu` on the batch mean
of the latents (it vanishes at the truth). E and u are those of the points that the objective
visited, noised for DSM, so the three terms cost no further GEMM, unless the anchor is asked to be
taken at the clean data.

Scores may be matched in every n-th step alone: the mean over steps of the first term's weight is
then :math:`w_o / n`, and in the steps between, the others are taken at the data, at the cost of a
likelihood. A hyper-parameter of the objective may follow training, as a function of its progress:
the noise of DSM that falls, say.

A loss is a function ``(density, x, generator, progress) -> (loss of every sample, evaluation)``;
it is told where training stands and keeps nothing of it. The evaluation is the density at the
points whose energy the loss saw, for whoever watches the latents.

Schedules, of learning rates and hyper-parameters, are functions of progress in [0, 1]: the share
of the steps, or of the seconds where training is bounded by time, so that they end where it ends.
"""

__all__ = ["Loss", "LossFunction", "LossModule", "Progress", "Schedule", "balancing_weight",
           "constant", "cosine", "epochs", "falling", "geometric", "multistep",
           "warmed"]  # fmt: skip

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from .anchor import Anchor
from .bijections.weighted import fixed_weights
from .density import Evaluation, LogDensity
from .flow import Flow
from .objectives import Objective, dsm, ml
from .randomness import Generator

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Returns 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Returns (1 + cos π t) / 2, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def geometric(start: float, end: float) -> Schedule:
    """Returns start · (end / start)ᵗ, equal factors in equal times; for a noise scale.

    Raises:
        ValueError: unless both are positive.
    """
    if not (start > 0 and end > 0):
        raise ValueError(f"geometric: found {start} and {end}, expected positive numbers")
    return lambda progress: start * (end / start) ** min(progress, 1.0)


def multistep(gamma: float, milestones: int) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at ``milestones`` equal steps to the end."""
    return lambda progress: gamma ** min(int(progress * milestones), milestones)


def epochs(gamma: float, length: int, count: int) -> Callable[[int], float]:
    """Returns a factor of the number of steps done: ``gamma`` at the ends of the first epochs.

    Arguments:
        gamma: The factor at each of them.
        length: Steps of an epoch.
        count: The number of epochs at whose ends it falls; it is constant afterwards.
    """
    return lambda step: gamma ** min(step // length, count)


def warmed(schedule: Schedule, warmup: float) -> Schedule:
    """Returns ``schedule`` under a linear rise over the first ``warmup`` of training."""
    if not warmup:
        return schedule
    return lambda progress: schedule(progress) * min(1.0, progress / warmup)


def falling(gamma: float, at: Sequence[float]) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at each of some progresses."""
    return lambda progress: gamma ** sum(progress >= when for when in at)


class Progress(NamedTuple):
    """Where training stands: the number of steps done, and their share of it in [0, 1]."""

    step: int = 0
    share: float = 0.0


START = Progress()

LossFunction = Callable[
    [LogDensity, Tensor, Generator, Progress], tuple[Tensor, Evaluation | None]
]
"""From a density, data with shape (B, *event), a generator and the progress to (B,) losses."""


@dataclass(frozen=True)
class Loss:
    """Creates a loss of an objective and what keeps its likelihood.

    Arguments:
        objective: The objective.
        weight: w_o, the objective's weight; at 0 it is not computed.
        every: n, the steps from one in which the objective is computed to the next.
        annealed: Hyper-parameters of the objective, by name, as functions of progress.
        anchor: The normalizer's model, needed for ``anchor_weight`` > 0.
        anchor_weight: w_a.
        anchor_clean: Whether the anchor is taken at the data rather than at the objective's
            points; one more forward and backward pass for DSM, and no smoothing by σ.
        low_energy: λ.
        latent_mean: μ.
        finish: The last share of training that is exact maximum likelihood.

    Example:
        >>> flow = ebflow.architectures.dense((3,))
        >>> loss = ebflow.Loss(ebflow.objectives.dsm, low_energy=0.1)
        >>> values, evaluation = loss(flow(), x, torch.Generator(), ebflow.Progress())
        >>> values.shape, evaluation.latent.shape
        (torch.Size([60]), torch.Size([60, 3]))
    """

    objective: Objective
    weight: float = 1.0
    every: int = 1
    annealed: Mapping[str, Schedule] = field(default_factory=dict)
    anchor: Anchor | None = None
    anchor_weight: float = 0.0
    anchor_clean: bool = False
    low_energy: float = 0.0
    latent_mean: float = 0.0
    finish: float = 0.0

    def __post_init__(self) -> None:
        if self.anchor_weight and self.anchor is None:
            raise ValueError("anchor_weight: found a weight without an anchor")
        if self.every > 1 and not self.anchor_weight:
            raise ValueError(f"every: found {self.every} without an anchor, expected 1")

    def __call__(
        self, density: LogDensity, x: Tensor, generator: Generator, progress: Progress
    ) -> tuple[Tensor, Evaluation | None]:
        """Returns the loss of every sample in nats, with shape (B,), and the density at ``x``."""
        seen = _Recorded(density)
        if self.finish and progress.share >= 1 - self.finish:
            return ml(seen, x, generator=generator), seen.at_data(x)
        if self.anchor is not None:
            self.anchor.follow(progress.step)
        loss: Tensor | float = 0.0
        if self.weight and progress.step % self.every == 0:
            options = self.hyperparameters(progress.share)
            loss = self.weight * self.objective(seen, x, generator=generator, **options)
            if loss.shape != x.shape[:1]:
                raise ValueError(
                    f"objective: found losses of shape {tuple(loss.shape)}, expected one a row, "
                    f"({len(x)},)"
                )
        if self.anchor_weight or self.low_energy or self.latent_mean:
            at = density.at(x, training=True) if self.anchor_clean else seen.at_data(x)
            loss = loss + self._stabilisers(at, len(x))
        return loss, seen.last_at_data(x)

    def hyperparameters(self, share: float) -> dict[str, float]:
        """Returns the annealed hyper-parameters at a share of training."""
        return {name: schedule(share) for name, schedule in self.annealed.items()}

    def _stabilisers(self, at: Evaluation, count: int) -> Tensor:
        total = (self.anchor_weight + self.low_energy) * at.energy[:count]
        if self.anchor_weight:
            total = total + self.anchor_weight * self.anchor.log_normalizer()
        if self.latent_mean:
            mean = _global_mean(at.latent[:count])
            total = total + 0.5 * self.latent_mean * mean.square().sum()
        return total


def balancing_weight(objective: Objective) -> float:
    """Returns the weight that brings an objective to the size of an anchor beside it.

    Denoising score matching is of the size D / σ², unless it has several σ, by whose squares it is
    weighed then. Other forms have the size of the squared score, which whitening makes D, and a
    heavy tail: 0.01 keeps it from the anchor.
    """
    function = getattr(objective, "func", objective)
    if function is not dsm:
        return 0.01
    given = getattr(objective, "keywords", {})
    sigma = given.get("sigma", signature(dsm).parameters["sigma"].default)
    return float(sigma) ** 2 if isinstance(sigma, int | float) else 1.0


class LossModule(nn.Module):
    """Creates a flow and its loss as one module, so that DDP can wrap it.

    Arguments:
        flow: The flow behind the cut.
        loss: The loss.
    """

    def __init__(self, flow: Flow, loss: LossFunction) -> None:
        super().__init__()
        self.flow, self.loss = flow, loss

    def forward(
        self, x: Tensor, context: Tensor | None, generator: Generator, progress: Progress = START
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the losses of preprocessed rows, with shape (B,), and their latents."""
        with fixed_weights(self.flow):
            loss, at = self.loss(self.flow(context), x, generator, progress)
            latent = None if at is None or at.latent is None else at.latent.detach()[: len(x)]
        return loss, latent


class _Recorded(LogDensity):
    """A density that remembers where an objective evaluated it, to be asked there again."""

    def __init__(self, density: LogDensity) -> None:
        self.density, self.seen = density, list[Evaluation]()

    def at(self, x: Tensor, *, training: bool = True) -> Evaluation:
        self.seen.append(self.density.at(x, training=True))
        return self.seen[-1]

    def energy(self, x: Tensor) -> Tensor:
        return self.at(x).energy

    def last_at_data(self, x: Tensor) -> Evaluation | None:
        """Returns an evaluation of which the first rows are the data, noised or not.

        That is one at ``x`` itself, if there is one; else the objective's only one.
        """
        here = [at for at in self.seen if at.x is x]
        return here[0] if here else self.seen[0] if len(self.seen) == 1 else None

    def at_data(self, x: Tensor) -> Evaluation:
        """Returns the same, or an evaluation at ``x`` if there is none; it may have more rows."""
        found = self.last_at_data(x)
        return self.at(x) if found is None else found

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "density":
            raise AttributeError(name)
        return getattr(self.density, name)


def _global_mean(u: Tensor) -> Tensor:
    """Returns the mean of latents over all workers, differentiable."""
    mean = u.mean(0)
    if not torch.distributed.is_initialized():
        return mean
    from torch.distributed.nn.functional import all_reduce

    total = all_reduce(mean)
    return total / torch.distributed.get_world_size()
