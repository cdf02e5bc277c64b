"""Networks trained by denoising score matching, at every m and many seeds at once."""

from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ebflow.complexity import errors
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.denoisers import Denoisers, Draws, fit
from ebflow.complexity.instances import Instance, far_mode
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import geometric, held_out_loss, table
from pipelines.sample_complexity.config import LearnerCell, NetworkCell

FIRST, RATIO, REACH = 7, 2.0, 3.0
"""The grid of m: from 7 on, doubled each time, to 3 over the far mode's weight.

With R/σ in powers of 2, log 2/η, where half of the sets have a far sample, lies at the same place
between two of its points.
"""

TOGETHER = 40
"""About as many networks train at once: their activations stay in the cache."""

TEST = 2000
"""Test points of each component."""

SHOWN = 1024
"""Training samples at most of which the training loss is taken."""


class Sets(NamedTuple):
    """Training sets of one law, and which of them each network has; a network a set and m.

    Attributes:
        clean: x₀ with shape (S, N, d).
        noise: z of that shape.
        component: With shape (S, N).
        owner: The set of every network, with shape (E,).
        sizes: The m of every network, with shape (E,).
    """

    clean: Tensor
    noise: Tensor
    component: Tensor
    owner: Tensor
    sizes: Tensor

    @classmethod
    def drawn(
        cls, truth: Instance, seeds: Tensor, sizes: list[int], *, seed: int, name: str
    ) -> "Sets":
        """Draws a set for each of ``seeds`` as it comes, the same whoever else is drawn.

        Arguments:
            truth: The law.
            seeds: The numbers of the sets.
            sizes: The m.
            seed: The study's seed.
            name: What they are for.
        """
        found = [
            truth.draw(max(sizes), generator=derive(seed, name, int(index))) for index in seeds
        ]
        parts = (torch.stack(part) for part in zip(*found, strict=True))
        owner = torch.arange(len(seeds)).repeat_interleave(len(sizes))
        return cls(*parts, owner, torch.tensor(sizes).repeat(len(seeds)))

    @property
    def n_far(self) -> Tensor:
        """The far samples of every network, with shape (E,)."""
        return (self.component > 0).cumsum(1)[self.owner, self.sizes - 1]

    def draws(self, generator: torch.Generator, *, once: bool = False) -> Draws:
        """Returns the minibatches, with one noise a sample or always a new one."""
        noise = self.noise if once else None
        return Draws(self.clean, self.owner, self.sizes, generator, noise)


def networks(cell: NetworkCell) -> pa.Table:
    """Returns the errors of every network, a few seeds at a time."""
    sizes = geometric(FIRST, REACH / worst_eta(cell.ratio, cell.epsilon), RATIO)
    seeds = torch.arange(cell.first, cell.first + cell.count)
    groups = seeds.split(max(1, TOGETHER // len(sizes)))
    return pa.concat_tables(_group(cell, sizes, group) for group in groups)


def untrained(
    cell: LearnerCell, truth: Instance, sets: Sets, generator: torch.Generator
) -> Denoisers:
    """Returns a network for each set and m."""
    return Denoisers(
        len(sets.owner), cell.size, radius=cell.ratio * truth.sigma, sigma=truth.sigma,
        tau=float(truth.clean.covariances[0, 0]) ** 0.5, width=cell.width, depth=cell.depth,
        generator=generator,
    )  # fmt: skip


def _group(cell: NetworkCell, sizes: list[int], seeds: Tensor) -> pa.Table:
    eta = cell.rarity * worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    name = f"networks {cell.ratio:g} {cell.size}"
    sets = Sets.drawn(truth, seeds, sizes, seed=cell.seed, name=name)
    noise = derive(cell.seed, name, cell.noise, cell.panel, "train", int(seeds[0]))
    nets = untrained(cell, truth, sets, noise)
    draws = sets.draws(noise, once=cell.noise == "once")
    fit(nets, draws, least=truth.sigma, steps=cell.steps, rows=cell.batch)
    test = truth.stratified(TEST, generator=derive(cell.seed, "test"))
    score = nets.at(truth.sigma).score(test.noisy)
    found = (score - truth.smoothed.score(test.noisy)).norm(dim=-1)
    return table(
        len(sets.owner), panel=cell.panel, learner=f"networks, noise {cell.noise}",
        ratio=cell.ratio, size=cell.size, width=cell.width, depth=cell.depth, rarity=cell.rarity,
        epsilon=cell.epsilon, eta=eta, m=sets.sizes,
        seed=seeds[sets.owner], n_far=sets.n_far, train_loss=_train_loss(nets, sets, truth),
        held_out_loss=held_out_loss(score, test, truth.sigma),
        **errors.summary(found, test, truth.sigma, cell.deltas),
    )  # fmt: skip


def _train_loss(nets: Denoisers, sets: Sets, truth: Instance) -> Tensor:
    """Returns E‖σ ŝ + z‖² over the first samples of each network's own, with shape (E,)."""
    clean, z = (part[:, :SHOWN][sets.owner] for part in (sets.clean, sets.noise))
    score = nets.at(truth.sigma).score(clean + truth.sigma * z)
    losses = (truth.sigma * score + z).square().sum(-1)
    own = torch.arange(losses.shape[1]) < sets.sizes[:, None]
    return (losses * own).sum(1) / own.sum(1)
