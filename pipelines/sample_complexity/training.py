"""Nested training sets, and training of all networks of an ensemble at once."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ebflow.complexity.denoisers import Ensemble
from ebflow.randomness import normal, uniform


class TrainingSets(NamedTuple):
    """S training sets of N samples for E networks; each learns from the first m of its set."""

    seeds: Tensor  #: The indices of the sets, with shape (S,)
    owner: Tensor  #: The set of every network, with shape (E,)
    sizes: Tensor  #: The m of every network, with shape (E,)
    clean: Tensor  #: x₀ with shape (S, N, D)
    rare: Tensor  #: True for samples of the far mode, with shape (S, N)
    #: z with the shape of ``clean``, one noise vector per sample as in the theorems; None: fresh
    #: noise in every batch, the limit of many noise vectors, with less variance
    noise: Tensor | None = None

    @classmethod
    def sampled(
        cls, sample: Callable[[int], Sequence[Tensor]], indices: range, sizes: Sequence[int]
    ) -> "TrainingSets":
        """Samples every set independently, so that a set does not depend on the others.

        ``sample`` maps the index of a set to its part of ``clean``, ``rare`` and ``noise``.
        """
        parts = map(torch.stack, zip(*map(sample, indices), strict=True))
        owner = torch.arange(len(indices)).repeat_interleave(len(sizes))
        return cls(torch.tensor(indices), owner, torch.tensor(sizes).repeat(len(indices)), *parts)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The m, the set and the number of far samples of every network."""
        n_far = self.rare.cumsum(1)[self.owner, self.sizes - 1]
        return {"m": self.sizes, "seed": self.seeds[self.owner], "n_far": n_far}

    def batch(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns x₀ and z of a minibatch of every network, each with shape (E, rows, D)."""
        owner, sizes = self.owner[:, None], self.sizes[:, None]
        u = uniform((len(sizes), rows), self.clean, generator)
        index = (u * sizes).long().clamp(max=sizes - 1)
        clean = self.clean[owner, index]
        if self.noise is None:
            return clean, normal(clean.shape, clean, generator)
        return clean, self.noise[owner, index]


def train(
    ensemble: Ensemble,
    sets: TrainingSets,
    *,
    generator: torch.Generator,
    lengths: Sequence[int],
    least: float,
    highest: float | None = None,
    rows: int = 128,
    lr: float = 3e-3,
) -> Iterator[int]:
    r"""Trains all networks by Adam with a cosine schedule; yields each of ``lengths``.

    The loss is :math:`E\, \lambda(\sigma) \|D(x_0 + \sigma z, \sigma) - x_0\|^2`, with the
    networks' own weight λ.

    Arguments:
        ensemble: The networks.
        sets: Their training sets.
        generator: Source of batches, noise and noise levels.
        lengths: The increasing numbers of steps after which to pause; training ends at the last.
        least: The noise level σ.
        highest: Largest noise level; σ is sampled log-uniformly between it and ``least``.
        rows: The batch size per network.
        lr: The initial learning rate.
    """
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lengths[-1])
    for step in range(1, lengths[-1] + 1):
        clean, z = sets.batch(rows, generator)
        sigma = least
        if highest is not None:
            share = uniform((*z.shape[:2], 1), z, generator)
            sigma = least * torch.exp(share * math.log(highest / least))
        losses = (ensemble(clean + sigma * z, sigma) - clean).square().sum(-1, keepdim=True)
        optimizer.zero_grad()
        (ensemble.weight(sigma) * losses).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if step in lengths:
            yield step
