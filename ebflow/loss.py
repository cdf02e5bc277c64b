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
likelihood. The trainer sets ``step`` before every step.

A hyper-parameter of the objective may follow training, as a function of its progress: the noise
of DSM that falls, say. The trainer sets ``progress`` before every step.
"""

__all__ = ["Loss"]

from collections.abc import Mapping

import torch
import torch.distributed
import torch.distributed.nn
from torch import Tensor, nn

from .anchor import Anchor
from .bijections.weighted import fixed_weights
from .flow import Flow, Observed
from .objectives import Objective, ml
from .schedules import Schedule


class Loss(nn.Module):
    """Creates the loss of a flow on preprocessed data, a module so that DDP can wrap it.

    Arguments:
        flow: The flow behind the cut.
        objective: The objective.
        weight: w_o, the objective's weight; at 0 it is not computed.
        every: n, the steps from one in which the objective is computed to the next.
        annealed: Hyper-parameters of the objective, by name, as functions of progress.
        anchor: The normaliser's model, needed for ``anchor_weight`` > 0 and ``lazy_ml``.
        anchor_weight: w_a.
        anchor_clean: Whether the anchor is taken at the data rather than at the objective's
            points; one more forward and backward pass for DSM, and no smoothing by σ.
        low_energy: λ.
        latent_mean: μ.
    """

    def __init__(
        self,
        flow: Flow,
        objective: Objective,
        *,
        weight: float = 1.0,
        every: int = 1,
        annealed: Mapping[str, Schedule] | None = None,
        anchor: Anchor | None = None,
        anchor_weight: float = 0.0,
        anchor_clean: bool = False,
        low_energy: float = 0.0,
        latent_mean: float = 0.0,
    ) -> None:
        super().__init__()
        if anchor_weight and anchor is None:
            raise ValueError("anchor_weight: found a weight without an anchor")
        if every > 1 and not anchor_weight:
            raise ValueError(f"every: found {every} without an anchor, expected 1")
        self.flow, self.objective, self.weight = flow, objective, weight
        self.anchor, self.anchor_weight, self.anchor_clean = anchor, anchor_weight, anchor_clean
        self.low_energy, self.latent_mean = low_energy, latent_mean
        self.annealed, self.progress = dict(annealed or {}), 0.0
        self.every, self.step = every, 0
        self.finishing = False
        self.latent: Tensor | None = None

    @property
    def name(self) -> str:
        """The objective's name."""
        function = getattr(self.objective, "func", self.objective)
        return getattr(function, "__name__", type(function).__name__)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The annealed hyper-parameters at the present progress."""
        return {name: schedule(self.progress) for name, schedule in self.annealed.items()}

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the loss of every sample in nats, with shape (B,)."""
        seen = Observed(self.flow)
        with fixed_weights(self.flow):
            loss = (ml if self.finishing else self._matching)(seen, x, generator=generator)
        self.latent = None if seen.latent is None else seen.latent.detach()[: len(x)]
        return loss

    def _matching(self, seen: Observed, x: Tensor, *, generator: torch.Generator) -> Tensor:
        loss: Tensor | float = 0.0
        if self.weight and self.step % self.every == 0:
            terms = self.objective(seen, x, generator=generator, **self.hyperparameters)
            loss = self.weight * terms
        if self.anchor_weight or self.low_energy or self.latent_mean:
            loss = loss + self._stabilisers(Observed(self.flow) if self.anchor_clean else seen, x)
        return loss

    def _stabilisers(self, seen: Observed, x: Tensor) -> Tensor:
        latent, energy = seen.at(x)
        total = (self.anchor_weight + self.low_energy) * energy
        if self.anchor_weight:
            total = total + self.anchor_weight * self.anchor.log_normalizer()
        if self.latent_mean:
            total = total + 0.5 * self.latent_mean * _global_mean(latent).square().sum()
        return total


def _global_mean(u: Tensor) -> Tensor:
    """Returns the mean of latents over all workers, differentiable."""
    mean = u.mean(0)
    if not torch.distributed.is_initialized():
        return mean
    total = torch.distributed.nn.functional.all_reduce(mean)
    return total / torch.distributed.get_world_size()
