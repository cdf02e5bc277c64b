r"""The loss of the pipelines: an objective, its anchor, further terms, and schedules.

.. math:: \mathcal{L}(x) = w_o \, \mathrm{objective}(x)
    + w_a \left( E(x) + \widehat{\log Z} \right) + \lambda E(x) + \tfrac{\mu}{2} \|\bar u\|^2

with the low-energy weight :math:`\lambda` (biased: it does not vanish at the truth) and the
latent-mean weight :math:`\mu` on the batch mean of the latents (it vanishes at the truth). E and u
are those of the points of the objective, so these terms cost no further matrix product.

If scores are matched in every n-th step only, the mean weight of the first term is
:math:`w_o / n`. In the steps between, the other terms are taken at the data, at the cost of a
likelihood.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed
from torch import Tensor

from ebflow.density import Evaluation, LogDensity
from ebflow.loss import Loss, Progress, RecordedDensity, Schedule
from ebflow.objectives import ml
from ebflow.randomness import Generator


@dataclass(frozen=True)
class StabilizedLoss(Loss):
    """Creates the loss of an objective with all further terms."""

    #: n, the steps from one in which the objective is computed to the next; above 1 it needs an
    #: anchor
    every: int = 1
    #: Hyperparameters of the objective, by name, as functions of progress
    annealed: Mapping[str, Schedule] = field(default_factory=dict)
    low_energy: float = 0.0  #: λ
    latent_mean: float = 0.0  #: μ
    finish: float = 0.0  #: The last share of training, which is exact maximum likelihood

    def __call__(
        self, density: LogDensity, x: Tensor, generator: Generator, progress: Progress
    ) -> tuple[Tensor, Evaluation | None]:
        """Returns the loss of every row in nats, with shape (B,), and the density at ``x``."""
        recorded = RecordedDensity(density)
        if self.finish and progress.share >= 1 - self.finish:
            return ml(recorded, x, generator=generator), recorded.at_data(x)
        if self.anchor is not None:
            self.anchor.follow(progress.step)
        loss: Tensor | float = 0.0
        if progress.step % self.every == 0:
            options = self.hyperparameters(progress.share)
            loss = self.weighted_objective(recorded, x, generator, **options)
        if self.anchor_weight or self.low_energy or self.latent_mean:
            loss = loss + self._further_terms(recorded.at_data(x), len(x))
        return loss, recorded.last_at_data(x)

    def hyperparameters(self, share: float) -> dict[str, float]:
        """Returns the annealed hyperparameters at a share of training."""
        return {name: schedule(share) for name, schedule in self.annealed.items()}

    def _further_terms(self, at: Evaluation, count: int) -> Tensor:
        total = (self.anchor_weight + self.low_energy) * at.energy[:count]
        if self.anchor_weight:
            total = total + self.anchor_weight * self.anchor.log_normalizer()
        if self.latent_mean:
            mean = _global_mean(at.latent[:count])
            total = total + 0.5 * self.latent_mean * mean.square().sum()
        return total


def _global_mean(u: Tensor) -> Tensor:
    """Returns the mean of latents over all workers, differentiable."""
    mean = u.mean(0)
    if not torch.distributed.is_initialized():
        return mean
    from torch.distributed.nn.functional import all_reduce

    total = all_reduce(mean)
    return total / torch.distributed.get_world_size()


def geometric(start: float, end: float) -> Schedule:
    """Returns start · (end / start)ᵗ, equal factors in equal times; for a noise scale."""
    return lambda progress: start * (end / start) ** min(progress, 1.0)


def epochs(gamma: float, length: int, count: int) -> Callable[[int], float]:
    """Returns a factor of the number of steps: ``gamma`` at the end of each of ``count`` epochs.

    An epoch has ``length`` steps. The factor is constant after the last one.
    """
    return lambda step: gamma ** min(step // length, count)
