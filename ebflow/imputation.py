r"""Missing values of rows, sampled given the observed ones.

A flow gives :math:`p(x)`, so :math:`p(x_m \mid x_o) \propto p(x_m, x_o)` is known up to a
constant. The sampler only needs log p at points.

* Each row has a pool of ``proposals``. Samples are chosen from it by their weights.
* If the weights of a row are too unequal, its samples then move by sweeps. A sweep samples each
  missing element from its conditional distribution given all others, by quadrature
  (``conditionals``), and then chooses among each sample and new proposals, by their weights. Both
  leave the distribution invariant, up to the error of the quadrature.

What is observed on a grid is a cell: every proposal has a place in the cell of its own.

``Filling`` samples the missing values of training rows again while a flow is trained: Monte Carlo
expectation maximization. At regular steps, a bounded random number of rows move on from their
present values. The result depends on the flow, the values, the seed and the step, and not on the
number of workers.

Source: Particle Markov chain Monte Carlo methods (Andrieu, Doucet, Holenstein, 2010), 4.3, Journal
of the Royal Statistical Society B 72, for iterated importance sampling; The Calculation of
Posterior Distributions by Data Augmentation (Tanner, Wong, 1987), JASA 82, for sweeps; The Griddy
Gibbs Sampler (Ritter, Tanner, 1992), JASA 87, for quadrature; A Monte Carlo Implementation of the
EM Algorithm (Wei and Tanner, 1990), JASA 85; On Convergence Properties of the EM Algorithm with
Persistent Chains (Gu and Kong, 1998), PNAS 95, for values that move on.
"""

__all__ = ["ENOUGH", "Filling", "Imputed", "impute"]

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from .bijections.weighted import fixed_weights
from .conditionals import Conditionals, Points
from .errors import NonFinite
from .flow import Flow
from .proposals import Proposals
from .randomness import generator
from .randomness import uniform as uniform_numbers
from .tables import ArrayLike
from .tables.completion import Completed
from .target import SAMPLES, Target

ENTRIES = 1 << 23
"""Most entries of the proposals of the rows that are sampled at a time."""

POOL = 64, 16
"""Proposals of a row, and more of them for each sample."""

ENOUGH = 0.25
"""Effective share of a row's proposals from which its samples need no sweeps."""

CANDIDATES = 8
"""New proposals of a sample in a sweep."""

NOWHERE = -1e300
"""Logarithm of the weight of a proposal whose density is 0 or NaN."""

REDRAW_EVERY = 100
"""Training steps after which missing values are sampled again."""

REDRAW_BATCHES, REDRAW_CANDIDATES = 2, 16
"""Batches of rows that are sampled again, and new proposals of a row: an eighth of the cost."""

REDRAW_ROWS = 256
"""Most of these rows at a time; fewer if there are many columns."""


@dataclass(frozen=True)
class Imputed:
    """Rows whose missing values have been sampled.

    Attributes:
        draws: K completed copies of every row, with shape (N, K, D), in the type of the data.
            Observed values are unchanged.
        effective: The effective share of a row's proposals, with shape (N,): 1 for complete rows,
            near 0 if a few proposals have all the weight.
    """

    draws: Tensor
    effective: Tensor


@torch.no_grad()
def impute(
    flow: Flow,
    x: ArrayLike,
    *,
    context: ArrayLike | None = None,
    generator: torch.Generator,
    draws: int = 5,
    sweeps: int = 5,
) -> Imputed:
    """Samples the missing values of rows given the observed ones.

    Cost: 64 energies for each row, and 16 for each sample. Sweeps, of rows whose proposals are
    poor, take about 100 energies for each missing value of a sample.

    Arguments:
        flow: The flow, preprocessing included.
        x: Raw rows with shape (N, D), NaN where a value is missing: a tensor, an array or a frame.
        context: The contexts of the rows, with shape (N, C); None if the flow has none.
        generator: The source of randomness.
        draws: The number K ≥ 1 of completed copies.
        sweeps: The number of sweeps of a row whose proposals are poor.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, or a number is out of range.
        NonFinite: if the flow gives an observed row no finite density.
    """
    context, x = flow.as_context(flow.context_of(x, context)), flow.as_events(x)
    _check(flow, x, context, draws, sweeps)
    result = Imputed(
        x.unsqueeze(1).repeat_interleave(draws, 1), x.new_ones(len(x), dtype=torch.float64)
    )
    with fixed_weights(flow):
        target = Target.of(flow)
        conditionals = Conditionals(target)
        count = len(target.mixture.weights) * (POOL[0] + POOL[1] * draws) * x.shape[1]
        for rows in x.isnan().any(1).nonzero().flatten().split(max(1, ENTRIES // count)):
            own = None if context is None else context[rows]
            sampler = Sampler(target, x[rows], x[rows].isnan(), own, generator)
            result.effective[rows] = sampler.start(draws)
            poor = (result.effective[rows] < ENOUGH).nonzero().flatten()
            if len(poor):
                sampler.sweep(poor, sweeps, conditionals)
            sampled, missing = sampler.raw().to(x), x[rows].isnan()[:, None]
            result.draws[rows] = torch.where(missing, sampled, result.draws[rows])
    return result


def _check(flow: Flow, x: Tensor, context: Tensor | None, draws: int, sweeps: int) -> None:
    if x.shape[1:] != flow.event_shape or len(flow.event_shape) != 1:
        raise ValueError(
            f"x: found shape {tuple(x.shape)} and a flow of events {flow.event_shape}, expected "
            "rows (N, D) and a flow of them"
        )
    found = None if context is None else tuple(context.shape)
    expected = (len(x), flow.context) if flow.context else None
    if found != expected:
        raise ValueError(f"context: found shape {found}, expected {expected}")
    if draws < 1 or sweeps < 0:
        raise ValueError(
            f"draws, sweeps: found {draws}, {sweeps}, expected 1 or more, and 0 or more"
        )


class Sampler:
    """K samples of the missing values of each of R rows.

    Arguments:
        target: The flow in coordinates.
        x: Raw rows with shape (R, D).
        missing: True where an element is missing; each row has one or more.
        context: The contexts of the rows, with shape (R, C); None for a flow without.
        generator: The source of random numbers.

    Attributes:
        z: The samples in coordinates, with shape (R, K, D).
        slopes: The logarithms of dz/dx of observed elements, summed, with shape (R, K).
    """

    def __init__(
        self,
        target: Target,
        x: Tensor,
        missing: Tensor,
        context: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        self.target, self.x, self.missing, self.context = target, x, missing, context
        self.generator = generator
        self.z, self.slopes = self._placed(1)

    def start(self, draws: int) -> Tensor:
        """Chooses samples from a pool of proposals; returns the effective share of each pool.

        Systematic resampling: a proposal is chosen at most once more than its share of draws.

        Raises:
            NonFinite: if no proposal has a finite density.
        """
        z, slopes = self._placed(POOL[0] + POOL[1] * draws)
        z, log_w = self._proposed(z, slopes)
        if not bool((log_w > NOWHERE).any()):
            raise NonFinite(
                "impute: no log-density is finite; check that the rows are of the flow's data"
            )
        weights = log_w.softmax(1)
        u = (torch.arange(draws).to(weights) + self._uniform(len(z), 1)) / draws
        chosen = torch.searchsorted(weights.cumsum(1), u).clamp(max=z.shape[1] - 1)
        self._take(z, slopes, chosen)
        return (log_w > NOWHERE).any(1) / (weights.square().sum(1) * z.shape[1])

    def jump(self, count: int) -> None:
        """Chooses among each sample and ``count`` new proposals, by their weights."""
        rows, draws, width = self.z.shape
        z, slopes = self._placed(draws * (count + 1))
        z.view(rows, draws, -1, width)[:, :, 0] = self.z
        slopes.view(rows, draws, -1)[:, :, 0] = self.slopes
        z, log_w = self._proposed(z, slopes, fixed=count + 1)
        self._choose(z, slopes, log_w)

    def refresh(self, count: int) -> None:
        """Chooses among the places of observed values in their cells, by their densities."""
        rows, draws, width = self.z.shape
        z, slopes = self._placed(draws * (count + 1))
        here = self.z[:, :, None].expand(-1, -1, count + 1, -1).flatten(1, 2)
        z = torch.where(self.missing[:, None], here, z)
        z.view(rows, draws, -1, width)[:, :, 0] = self.z
        slopes.view(rows, draws, -1)[:, :, 0] = self.slopes
        self._choose(z, slopes, self.target.log_prob(z, self.context).double() + slopes)

    def sweep(self, rows: Tensor, sweeps: int, conditionals: Conditionals) -> None:
        """Moves the samples of some rows by sweeps."""
        context = None if self.context is None else self.context[rows]
        part = Sampler(self.target, self.x[rows], self.missing[rows], context, self.generator)
        part.z, part.slopes = self.z[rows], self.slopes[rows]
        for _ in range(sweeps):
            for column in part.missing.any(0).nonzero().flatten().tolist():
                part.resample(conditionals, column)
            if self.target.noisy:
                part.refresh(CANDIDATES)
            part.jump(CANDIDATES)
        self.z[rows], self.slopes[rows] = part.z, part.slopes

    def resample(self, conditionals: Conditionals, column: int) -> None:
        """Samples a column, in the rows that lack it, given all others."""
        rows, draws = self.missing[:, column].nonzero().flatten(), self.z.shape[1]
        z = self.z[rows].flatten(0, 1)[:, None]
        context = None if self.context is None else self.context[rows]
        context = None if context is None else context.repeat_interleave(draws, 0)
        points = Points(z, torch.zeros_like(z[..., 0]), context)
        found = conditionals.sample(points, column, self._uniform(len(z), 2))
        self.z[rows, :, column] = found.to(z).view(-1, draws)

    def raw(self) -> Tensor:
        """Returns raw rows with shape (R, K, D)."""
        return self.target.raw(self.z)

    def _placed(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns observed elements at places in their cells, (R, M, D), and their slopes."""
        z, slopes = self.target.place(self.x, self._uniform(len(self.x), count, self.x.shape[1]))
        return z, torch.where(self.missing[:, None], 0.0, slopes).sum(2)

    def _proposed(self, z: Tensor, slopes: Tensor, fixed: int = 0) -> tuple[Tensor, Tensor]:
        """Returns proposals (R, M, D) given observed elements, and logarithms of their weights.

        Arguments:
            z: The observed elements, with shape (R, M, D).
            slopes: The logarithms of dz/dx.
            fixed: If not 0, the points 0, ``fixed``, 2 ``fixed``, … stay as they are.
        """
        observed = z if self.target.noisy else z[:, :1]
        proposals = Proposals(self.target, observed, self.missing, self.context)
        y = proposals.sample(lambda _: self._uniform(*z.shape))
        if fixed:
            y[:, ::fixed] = z[:, ::fixed]
        log_w = self.target.log_prob(y, self.context) + slopes + proposals.log_weights(y)
        return y, torch.where(log_w.isfinite(), log_w.double(), NOWHERE)

    def _choose(self, z: Tensor, slopes: Tensor, log_w: Tensor) -> None:
        """Chooses one of the points of each sample, by their weights (R, M)."""
        draws = self.z.shape[1]
        log_w = log_w.nan_to_num(NOWHERE, neginf=NOWHERE).view(len(z), draws, -1)
        ends = log_w.softmax(2).cumsum(2)
        chosen = torch.searchsorted(ends, self._uniform(len(z), draws, 1)).clamp(
            max=ends.shape[2] - 1
        )
        first = torch.arange(draws, device=z.device) * ends.shape[2]
        self._take(z, slopes, first + chosen[..., 0])

    def _take(self, z: Tensor, slopes: Tensor, chosen: Tensor) -> None:
        """Makes the points with these numbers (R, K) the samples."""
        index = chosen[..., None].expand(-1, -1, z.shape[2])
        self.z, self.slopes = z.gather(1, index), slopes.gather(1, chosen)

    def _uniform(self, *shape: int) -> Tensor:
        return uniform_numbers(shape, self.target.z.double(), self.generator)


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
        size = max(1, min(REDRAW_ROWS, ENTRIES // self.x.shape[1] ** 2))
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
        x, context = self.x[rows], self._context_of(rows)
        sampler = Sampler(target, x, self.missing[rows], context, noise)
        sampler.jump(REDRAW_CANDIDATES)
        return sampler.raw()[:, 0].to(x)

    def _context_of(self, rows: Tensor) -> Tensor | None:
        return None if self.context is None else self.context[rows]

    def state(self) -> dict[str, Tensor]:
        """Returns the missing values, row by row."""
        return {"entries": self.x[self.missing]}

    def load(self, state: dict[str, Tensor]) -> None:
        """Resumes from the values of ``state``."""
        self.x[self.missing] = state["entries"].to(self.x)
