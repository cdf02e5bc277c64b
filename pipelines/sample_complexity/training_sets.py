"""Nested training sets of many networks, and their minibatches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ebflow.randomness import normal, uniform


class TrainingSets(NamedTuple):
    """S training sets of N samples for E networks; each learns from the first m of its set.

    Attributes:
        seeds: The indices of the sets, with shape (S,).
        owner: The set of every network, with shape (E,).
        sizes: The m of every network, with shape (E,).
        clean: x₀ with shape (S, N, D).
        rare: True for samples of the far mode, with shape (S, N).
        noise: z with the shape of ``clean``, one noise vector per sample as in the theorems;
            None: fresh noise in every batch, the limit of many noise vectors, with less variance.
    """

    seeds: Tensor
    owner: Tensor
    sizes: Tensor
    clean: Tensor
    rare: Tensor
    noise: Tensor | None = None

    @classmethod
    def drawn(
        cls, draw: Callable[[int], Sequence[Tensor]], seeds: Tensor, sizes: Sequence[int]
    ) -> "TrainingSets":
        """Samples every set independently, so that a set does not depend on the others.

        Arguments:
            draw: Maps the index of a set to its part of ``clean``, ``rare`` and ``noise``.
            seeds: The indices of the sets.
            sizes: The m.
        """
        parts = map(torch.stack, zip(*(draw(int(seed)) for seed in seeds), strict=True))
        owner = torch.arange(len(seeds)).repeat_interleave(len(sizes))
        return cls(seeds, owner, torch.tensor(sizes).repeat(len(seeds)), *parts)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The m, the set and the number of far samples of every network."""
        n_far = self.rare.cumsum(1)[self.owner, self.sizes - 1]
        return {"m": self.sizes, "seed": self.seeds[self.owner], "n_far": n_far}

    def of(self, network: int) -> Tensor:
        """Returns the training samples of a network, with shape (m, D)."""
        return self.clean[self.owner[network], : self.sizes[network]]

    def batch(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns x₀ and z of a minibatch of every network, each with shape (E, rows, D)."""
        owner, sizes = self.owner[:, None], self.sizes[:, None]
        u = uniform((len(sizes), rows), self.clean, generator)
        index = (u * sizes).long().clamp(max=sizes - 1)
        clean = self.clean[owner, index]
        if self.noise is None:
            return clean, normal(clean.shape, clean, generator)
        return clean, self.noise[owner, index]
