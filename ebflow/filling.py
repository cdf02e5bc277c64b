"""Missing entries of training rows, drawn again and again from the flow that is being trained.

That is expectation maximisation by Monte Carlo: steps on completed rows between draws of what is
missing from its law given the rest of its row. The chains of all entries go on from where they
were, a few moves at a time. A redraw is a function of the flow, the entries, the seed and the
step, whatever the number of workers.

Source: A Monte Carlo Implementation of the EM Algorithm (Wei and Tanner, 1990), Journal of the
American Statistical Association 85; On Convergence Properties of the EM Algorithm with Persistent
Chains (Gu and Kong, 1998), PNAS 95, for chains that go on.
"""

__all__ = ["Filling"]

import torch
import torch.distributed
from torch import Tensor

from .bijections.weighted import fixed_weights
from .data.missing import Completed
from .flow import Flow
from .hamiltonian import Chains
from .imputation import NUMBERS, target
from .randomness import generator

EVERY = 100
"""Steps between redraws, if an epoch has no more."""

WARMUP, STEPS = 3, 1
"""Moves of a redraw: leapfrogs are tuned in the first ones."""

CHUNK = 256
"""Rows whose chains run together, at most; fewer of many columns."""

SAMPLES = 4096
"""Completed rows at most to which the chains' Gaussian is fitted."""


class Filling:
    """Creates the redraws of a split.

    Arguments:
        split: The training rows.
        batch_size: Rows of a global batch.
        seed: The seed.
        shard: Rank and number of workers, which share the rows.
        device: Where the training is.
    """

    def __init__(
        self,
        split: Completed,
        *,
        batch_size: int,
        seed: int,
        shard: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.every = max(EVERY, len(split) // batch_size)
        self.seed, self.shard = seed, shard
        self.missing = split.missing.to(device)
        split.resident = split.resident.to(device)
        self.x, self.context = split.resident
        self.rows = self.missing.any(1).nonzero().flatten()

    def due(self, step: int) -> bool:
        """Whether entries are drawn again before a step."""
        return step > 0 and step % self.every == 0

    @torch.no_grad()
    def redraw(self, flow: Flow, step: int) -> None:
        """Draws all missing entries again, in place; call it on all workers.

        Raises:
            NonFinite: If the flow gives rows no finite density.
        """
        (rank, world), whole = self.shard, torch.zeros_like(self.x)
        noise = generator(self.seed, "missing", step, device=self.x.device)
        size = max(1, min(CHUNK, NUMBERS // self.x.shape[1] ** 2))
        some = torch.randperm(len(self.x), generator=noise, device=self.x.device)[:SAMPLES]
        with fixed_weights(flow):
            law = target(flow, self.x[some], noise, self._given(some), components=1)
            for number, rows in enumerate(self.rows.split(size)):
                if number % world == rank:
                    noise = generator(self.seed, "missing", step, number, device=self.x.device)
                    whole[rows] = self._drawn(law, rows, noise)
        if world > 1:
            torch.distributed.all_reduce(whole)
        self.x[self.missing] = whole[self.missing]

    def _drawn(self, law: object, rows: Tensor, noise: torch.Generator) -> Tensor:
        options = {"context": self._given(rows), "started": True}
        chains = Chains(law, self.x[rows], self.missing[rows], 1, noise, **options)
        chains.warm_up(WARMUP, leaps=True)
        chains.run(STEPS, leaps=True)
        return chains.raw()[:, 0].to(self.x)

    def _given(self, rows: Tensor) -> Tensor | None:
        return None if self.context is None else self.context[rows]

    def state(self) -> dict[str, Tensor]:
        """Returns the entries, row by row."""
        return {"entries": self.x[self.missing]}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on with the entries that ``state`` told."""
        self.x[self.missing] = state["entries"].to(self.x)
