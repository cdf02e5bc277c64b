r"""Missing values of rows, sampled given the observed ones.

A flow gives :math:`p(x)`, so :math:`p(x_m \mid x_o) \propto p(x_m, x_o)` is known up to a
constant. ``Chains`` sample it after the flow's leading elementwise layers, where every column is
still separate and unbounded. Each sample is the end of a Markov chain of its own.

``Filling`` samples the missing values of training rows again while a flow is trained: Monte Carlo
expectation maximization. At regular steps, a bounded random number of rows continue their chains
by a few moves. The result depends on the flow, the values, the seed and the step, and not on the
number of workers.

Source: A Monte Carlo Implementation of the EM Algorithm (Wei and Tanner, 1990), Journal of the
American Statistical Association 85; On Convergence Properties of the EM Algorithm with Persistent
Chains (Gu and Kong, 1998), PNAS 95, for chains that continue.
"""

__all__ = ["MIXED", "Filling", "Imputed", "impute"]

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from .bijections.weighted import fixed_weights
from .chains import Chains
from .flow import Flow
from .randomness import generator
from .tables import ArrayLike
from .tables.completion import Completed
from .target import COMPONENTS, SAMPLES, Target

ROWS = 512
"""Most rows whose chains run at a time."""

NUMBERS = 1 << 24
"""Most entries of their matrices."""

MIXED = 1.1
"""R̂ up to which the chains of a row count as converged."""

ENOUGH = 0.25
"""Effective share of a row's first proposals from which it needs no long chains."""

SETTLE = 4
"""Moves of the chains of such rows."""

ROUNDS = ((0, False), (1, False), (3, False))
"""Rounds without leapfrogs, as multiples of the moves. Only rows that have not converged have
another one."""

REDRAW_EVERY = 100
"""Training steps after which missing values are sampled again."""

REDRAW_BATCHES, REDRAW_MOVES = 2, 2
"""Batches of rows that are sampled again, and moves of their chains: an eighth of the cost."""

REDRAW_ROWS = 256
"""Most of these rows whose chains run together; fewer if there are many columns."""


@dataclass(frozen=True)
class Imputed:
    """Rows whose missing values have been sampled.

    Attributes:
        draws: K completed copies of every row, with shape (N, K, *event), in the type of the data.
            Observed values are unchanged.
        acceptance: The share of steps in which a row's chains moved, with shape (N,); 1 for
            complete rows.
        r_hat: The largest R̂ of a row's missing values, with shape (N,): near 1 if the chains
            agree; 1 for complete rows.
    """

    draws: Tensor
    acceptance: Tensor
    r_hat: Tensor


@torch.no_grad()
def impute(
    flow: Flow,
    x: ArrayLike,
    missing: ArrayLike | None = None,
    *,
    context: ArrayLike | None = None,
    generator: torch.Generator,
    draws: int = 5,
    steps: int = 40,
    warmup: int = 20,
    doublings: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> Imputed:
    """Samples the missing values of rows given the observed ones.

    Cost: 64 energies for each sample of most rows. Rows whose first proposals are poor run
    ``warmup`` and ``steps`` moves of 8 or 9 energies, then three times as many, then moves with
    2 to 7 scores.

    Arguments:
        flow: The flow, preprocessing included.
        x: Raw rows with shape (N, *event), NaN where a value is missing: a tensor, an array or a
            frame.
        missing: Marks the missing values instead of NaN, broadcastable to ``x``.
        context: The contexts of the rows, with shape (N, C); None if the flow has none.
        generator: The source of randomness.
        draws: The number K ≥ 1 of completed copies.
        steps: Moves of a chain, an even number.
        warmup: Moves before these, which tune proposals and leapfrogs.
        doublings: How often the moves are doubled for rows whose R̂ stays above 1.1.
        progress: A function that is called with the share of the moves that are done, of those
            that there may be.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, or a number is out of range.
        NonFinite: if the flow gives an observed row no finite density.
    """
    context, x = flow.as_context(flow.context_of(x, context)), flow.as_events(x)
    _check(flow, x, context, draws, steps, warmup)
    missing = (x.isnan() if missing is None else torch.as_tensor(missing)).expand(x.shape)
    result = Imputed(
        x.unsqueeze(1).repeat_interleave(draws, 1), *x.new_ones(2, len(x), dtype=torch.float64)
    )
    rounds = (*ROUNDS, *((2**k, True) for k in range(doublings + 1)))
    total = SETTLE + sum(number * (warmup + steps) for number, _ in rounds)
    rows = missing.any(1).nonzero().flatten()
    with fixed_weights(flow):
        target = _sampled_target(flow, context, len(x), generator)
        part = max(1, min(ROWS, NUMBERS // (draws * x.shape[1] ** 2)))
        done = 0.0
        for number, leaps in rounds:
            for some in filter(len, rows.split(part)):
                chains = Chains(
                    target, x[some], missing[some], draws, generator,
                    context=None if context is None else context[some],
                )  # fmt: skip
                if number:
                    chains.adapt(chains.warm_up(number * warmup, leaps=leaps))
                chains.run(number * steps or SETTLE, leaps=leaps)
                sampled, masked = chains.raw().to(x), missing[some].unsqueeze(1)
                result.draws[some] = torch.where(masked, sampled, result.draws[some])
                result.acceptance[some] = chains.acceptance()
                result.r_hat[some] = chains.r_hat() if number else chains.pool_r_hat(ENOUGH)
                done += (number * (warmup + steps) or SETTLE) * len(some) / len(rows)
                progress(done / total)
            rows = rows[result.r_hat[rows] > MIXED]
    return result


def _sampled_target(
    flow: Flow, context: Tensor | None, rows: int, generator: torch.Generator
) -> Target:
    """Returns the distribution to sample, with a mixture fitted to samples of the flow."""
    if context is not None:
        context = context[torch.arange(SAMPLES) % rows]
    shape = SAMPLES if context is None else ()
    samples = flow(context).sample_tensor(shape, generator=generator)
    return Target(flow, samples, generator, context=context, components=COMPONENTS)


def _check(
    flow: Flow, x: Tensor, context: Tensor | None, draws: int, steps: int, warmup: int
) -> None:
    if x.shape[1:] != flow.event_shape or len(flow.event_shape) != 1:
        raise ValueError(
            f"x: found shape {tuple(x.shape)} and a flow of events {flow.event_shape}, expected "
            "rows (N, D) and a flow of them"
        )
    found = None if context is None else tuple(context.shape)
    expected = (len(x), flow.context) if flow.context else None
    if found != expected:
        raise ValueError(f"context: found shape {found}, expected {expected}")
    if min(draws, warmup) < 1 or steps < 4 or steps % 2:
        raise ValueError(
            f"draws, steps, warmup: found {draws}, {steps}, {warmup}, expected 1 or more, and an "
            "even number of 4 or more steps"
        )


class Filling:
    """Repeated samples of the missing values of a split, while a flow is trained.

    Arguments:
        split: The training rows.
        batch_size: Rows of a global batch.
        seed: The seed.
        shard: The rank and the number of workers, which share the rows.
        device: The device of the training.
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
        self.most, self.seed, self.shard = REDRAW_BATCHES * batch_size, seed, shard
        self.missing = split.missing.to(device)
        split.resident = split.resident.to(device)
        self.x, self.context = split.resident
        self.rows = self.missing.any(1).nonzero().flatten()

    def due(self, step: int) -> bool:
        """Returns True if missing values are sampled again before a step."""
        return step > 0 and step % REDRAW_EVERY == 0

    @torch.no_grad()
    def redraw(self, flow: Flow, step: int) -> None:
        """Samples the missing values of some rows again, in place; call it on all workers.

        Raises:
            NonFinite: if the flow gives rows no finite density.
        """
        (rank, world), device = self.shard, self.x.device
        noise = generator(self.seed, "missing", step, device=device)
        size = max(1, min(REDRAW_ROWS, NUMBERS // self.x.shape[1] ** 2))
        some = torch.randperm(len(self.x), generator=noise, device=device)[:SAMPLES]
        order = torch.randperm(len(self.rows), generator=noise, device=device)[: self.most]
        chosen = self.rows[order]
        whole = torch.zeros_like(self.x[chosen])
        with fixed_weights(flow):
            context = self._context_of(some)
            target = Target(flow, self.x[some], noise, context=context, components=1)
            for number, part in enumerate(torch.arange(len(chosen), device=device).split(size)):
                if number % world == rank:
                    noise = generator(self.seed, "missing", step, number, device=device)
                    whole[part] = self._sampled(target, chosen[part], noise)
        if world > 1:
            torch.distributed.all_reduce(whole)
        self.x[chosen] = torch.where(self.missing[chosen], whole, self.x[chosen])

    def _sampled(self, target: Target, rows: Tensor, noise: torch.Generator) -> Tensor:
        options = {"context": self._context_of(rows), "started": True}
        chains = Chains(target, self.x[rows], self.missing[rows], 1, noise, **options)
        chains.run(REDRAW_MOVES, leaps=False)
        return chains.raw()[:, 0].to(self.x)

    def _context_of(self, rows: Tensor) -> Tensor | None:
        return None if self.context is None else self.context[rows]

    def state(self) -> dict[str, Tensor]:
        """Returns the missing values, row by row."""
        return {"entries": self.x[self.missing]}

    def load(self, state: dict[str, Tensor]) -> None:
        """Resumes from the values of ``state``."""
        self.x[self.missing] = state["entries"].to(self.x)
