"""Nested training sets of many networks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ebflow.complexity.denoisers import Minibatches


class TrainingSets(NamedTuple):
    """Training sets, and which of them each network has: a network a set and m.

    Attributes:
        seeds: The numbers of the sets, with shape (S,).
        owner: The set of every network, with shape (E,).
        sizes: The m of every network, with shape (E,).
        clean: x₀ with shape (S, N, D).
        rare: Whether each is of the far mode, with shape (S, N).
        noise: z of one draw a sample, of the shape of ``clean``; None: it is fresh always.
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
        """Samples every set on its own, so that a set does not depend on the others.

        Arguments:
            draw: From the number of a set to its part of ``clean``, ``rare`` and ``noise``.
            seeds: The numbers of the sets.
            sizes: The m.
        """
        parts = map(torch.stack, zip(*(draw(int(seed)) for seed in seeds), strict=True))
        owner = torch.arange(len(seeds)).repeat_interleave(len(sizes))
        return cls(seeds, owner, torch.tensor(sizes).repeat(len(seeds)), *parts)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The m, the set and the far samples of every network."""
        n_far = self.rare.cumsum(1)[self.owner, self.sizes - 1]
        return {"m": self.sizes, "seed": self.seeds[self.owner], "n_far": n_far}

    def of(self, network: int) -> Tensor:
        """Returns the training samples of a network, with shape (m, D)."""
        return self.clean[self.owner[network], : self.sizes[network]]

    def minibatches(self, generator: torch.Generator) -> Minibatches:
        """Returns the minibatches."""
        return Minibatches(self.clean, self.owner, self.sizes, generator, self.noise)
