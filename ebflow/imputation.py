r"""Missing values of rows, sampled given the observed ones.

A flow gives :math:`p(x)`, so :math:`p(x_m \mid x_o) \propto p(x_m, x_o)` is known up to a
constant. The sampler only needs log p at points.

* Each row has a pool of ``proposals``. Samples are chosen from it by their weights.
* If the weights of a row are too unequal, its samples then move by sweeps. A move chooses among
  the sample and new proposals, by their weights. A sweep moves each missing value given all
  others, and then all of them together. All moves leave the distribution invariant.

What is observed on a grid is a cell: every proposal has a place in the cell of its own.

``TrainingImputer`` samples the missing values of training rows again while a flow is trained:
Monte Carlo expectation maximization. At regular steps, a bounded random number of rows move on
from their present values.

Source: Particle Markov chain Monte Carlo methods (Andrieu, Doucet, Holenstein, 2010), 4.3, Journal
of the Royal Statistical Society B 72, for iterated importance sampling; The Calculation of
Posterior Distributions by Data Augmentation (Tanner, Wong, 1987), JASA 82, for sweeps; A Monte
Carlo Implementation of the EM Algorithm (Wei and Tanner, 1990), JASA 85; On Convergence Properties
of the EM Algorithm with Persistent Chains (Gu and Kong, 1998), PNAS 95, for values that move on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .bijections.weighted import fixed_weights
from .errors import NonFinite, warn
from .flow import Flow
from .proposals import Proposals
from .randomness import generator, uniform
from .tables import ArrayLike
from .tables.completion import Completed
from .target import SAMPLES, Target, rows_and_contexts

POOL = 64, 16  # Proposals of a row, and more of them for each sample
ENOUGH = 0.25  # Effective share of a row's proposals from which its samples need no sweeps
CANDIDATES = 16  # New proposals for a move of a completed row
NOWHERE = -1e300  # Logarithm of the weight of a proposal whose density is 0 or NaN
RESAMPLE_EVERY = 100  # Training steps after which missing values are sampled again
RESAMPLE_BATCHES = 2  # Batches of rows that are sampled again: an eighth of the training's cost


@dataclass(frozen=True)
class Imputed:
    """Rows whose missing values have been sampled."""

    #: K completed copies of every row, with shape (N, K, D), in the type of the data. Observed
    #: values are unchanged.
    samples: Tensor
    #: The effective share of a row's proposals, with shape (N,): 1 for complete rows, near 0 if a
    #: few proposals have all the weight, 0 if the observed values have no finite density
    effective: Tensor
    incomplete: Tensor  #: True for rows with missing values, with shape (N,)

    def check(self) -> None:
        """Warns of incomplete rows that have no finite density, or raises NonFinite if all do."""
        bad, incomplete = int((self.effective == 0).sum()), int(self.incomplete.sum())
        message = f"impute: {bad} of {incomplete} incomplete rows have no finite density"
        if bad and bad == incomplete:
            raise NonFinite(f"{message}; check that the rows are of the flow's data")
        if bad:
            warn(f"{message}: their effective share is 0")


@torch.no_grad()
def impute(
    flow: Flow,
    x: ArrayLike,
    *,
    context: ArrayLike | None = None,
    generator: torch.Generator,
    samples: int = 5,
    sweeps: int = 5,
) -> Imputed:
    """Samples the missing values of rows given the observed ones.

    Rows whose observed values have no finite density, as those outside known bounds, are completed
    by proposals, with a share of 0: see ``Imputed.check``.

    Cost: 64 energies for each row, and 16 for each sample. Sweeps, of rows whose proposals are
    poor, take 17 energies for each missing value of a sample.

    Arguments:
        flow: The flow of rows (D,).
        x: Raw rows with shape (N, D), NaN where a value is missing: a tensor, an array or a frame.
        context: The contexts of the rows, with shape (N, C); None if the flow has none.
        samples: The number K ≥ 1 of completed copies.
        sweeps: The number of sweeps of a row whose proposals are poor.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, a value is infinite, or a
            number is out of range.
    """
    x, context = rows_and_contexts(flow, x, context)
    if samples < 1 or sweeps < 0:
        raise ValueError(f"samples, sweeps: found {samples}, {sweeps}, expected at least 1 and 0")
    incomplete, effective = x.isnan().any(1), torch.ones(len(x), dtype=torch.float64)
    result = Imputed(x[:, None].repeat(1, samples, 1), effective, incomplete)
    with fixed_weights(flow):
        target = Target.of(flow)
        size, outside = target.chunk(POOL[0] + POOL[1] * samples), target.impossible(x)
        possible = torch.where(outside, torch.nan, x)
        for rows in filter(len, incomplete.nonzero().flatten().split(size)):
            some, missing = possible[rows], x[rows, None].isnan()
            sampler = _Sampler(target, some, some.isnan(), context[rows], generator)
            sampled, effective = sampler.chosen(samples)
            effective = effective.masked_fill(outside[rows].any(1), 0.0)
            poor = ((effective > 0) & (effective < ENOUGH)).nonzero().flatten()
            sampled[poor] = sampler.swept(poor, sampled[poor], sweeps)
            result.effective[rows] = effective.cpu()
            result.samples[rows] = torch.where(missing, sampled, result.samples[rows])
    return result


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Samples of the missing values of R rows (R, D), which are NaN or have their present values.

    ``missing`` (R, D) is True where a value is missing; the contexts of the rows are (R, C).
    """

    target: Target
    x: Tensor
    missing: Tensor
    context: Tensor
    generator: torch.Generator

    def chosen(self, samples: int) -> tuple[Tensor, Tensor]:
        """Returns samples (R, K, D) from a pool of proposals, and the pools' effective shares."""
        z, log_w = self._proposed(POOL[0] + POOL[1] * samples)
        effective = 1 / (log_w.softmax(1).square().sum(1) * log_w.shape[1])
        effective = torch.where((log_w > NOWHERE).any(1), effective, 0.0)
        return self._chosen(z, log_w, samples), effective

    def swept(self, rows: Tensor, samples: Tensor, sweeps: int) -> Tensor:
        """Returns the samples (R, K, D) of some rows after sweeps over their missing values."""
        x, some = samples.flatten(0, 1), (self.missing[rows], self.context[rows])
        missing, context = (t.repeat_interleave(samples.shape[1], 0) for t in some)
        columns = torch.arange(missing.shape[1], device=x.device)
        masks = [*(missing & (columns == k) for k in missing.any(0).nonzero()), missing]
        for mask in masks * sweeps:
            x = _Sampler(self.target, x, mask, context, self.generator).moved()
        return x.view(samples.shape)

    def moved(self) -> Tensor:
        """Returns rows (R, D), each chosen among itself and new proposals, by their weights."""
        result = self.x.clone()
        rows = self.missing.any(1).nonzero().flatten()
        for part in filter(len, rows.split(self.target.chunk(CANDIDATES))):
            some = (t[part] for t in (self.x, self.missing, self.context))
            result[part] = _Sampler(self.target, *some, self.generator)._moved()[:, 0]
        return result

    def _moved(self) -> Tensor:
        here, slopes = self._placed(1)
        proposals = Proposals(self.target, here, self.missing, self.context)
        both = (here, self._log_weights(proposals, here, slopes)), self._proposed(CANDIDATES)
        z, log_w = (torch.cat(pair, 1) for pair in zip(*both, strict=True))
        return self._chosen(z, log_w, 1)

    def _proposed(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns proposals (R, M, D), and the logarithms of their weights, (R, M)."""
        z, slopes = self._placed(count)
        observed = z if self.target.noisy else z[:, :1]
        proposals = Proposals(self.target, observed, self.missing, self.context)
        z = proposals.sample(lambda _: self._uniform(*z.shape))
        return z, self._log_weights(proposals, z, slopes)

    def _log_weights(self, proposals: Proposals, z: Tensor, slopes: Tensor) -> Tensor:
        log_w = proposals.log_ratios(z) + slopes
        return torch.where(log_w.isfinite(), log_w, NOWHERE)

    def _placed(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns observed elements at places in their cells, (R, M, D), and their slopes."""
        z, slopes = self.target.place(self.x, self._uniform(len(self.x), count, self.x.shape[1]))
        return z, torch.where(self.missing[:, None], 0.0, slopes).sum(2)

    def _chosen(self, z: Tensor, log_w: Tensor, samples: int) -> Tensor:
        """Returns raw rows (R, K, D) of points that are chosen by their weights (R, M).

        Systematic resampling: each number of copies is its expectation, rounded up or down.
        """
        u = (torch.arange(samples).to(log_w) + self._uniform(len(z), 1)) / samples
        chosen = torch.searchsorted(log_w.softmax(1).cumsum(1), u).clamp(max=z.shape[1] - 1)
        raw = self.target.raw(z.gather(1, chosen[..., None].expand(-1, -1, z.shape[2])))
        return torch.where(self.missing[:, None], raw.to(self.x), self.x[:, None])

    def _uniform(self, *shape: int) -> Tensor:
        return uniform(shape, self.target.z.double(), self.generator)


class TrainingImputer:
    """Repeated samples of the missing values of a training split, while a flow is trained."""

    def __init__(
        self, split: Completed, *, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self.most, self.seed = RESAMPLE_BATCHES * batch_size, seed
        self.missing = split.missing.to(device)
        split.resident = split.resident.to(device)
        self.x, context = split.resident
        self.context = self.x[:, :0] if context is None else context
        self.rows = self.missing.any(1).nonzero().flatten()

    def due(self, step: int) -> bool:
        """Returns True if missing values are sampled again before a step."""
        return step > 0 and step % RESAMPLE_EVERY == 0

    @torch.no_grad()
    def resample(self, flow: Flow, step: int) -> None:
        """Samples the missing values of some rows again, in place, on each worker alike."""
        noise = generator(self.seed, "missing", step, device=self.x.device)
        some, order = (torch.randperm(len(t), generator=noise, device=self.x.device)
                       for t in (self.x, self.rows))  # fmt: skip
        some = some[:SAMPLES]
        with fixed_weights(flow):
            target = Target(flow, self.x[some], self.context[some], noise, components=1)
            rows = self.rows[order[: self.most]]
            of_rows = (t[rows] for t in (self.x, self.missing, self.context))
            self.x[rows] = _Sampler(target, *of_rows, noise).moved()

    def state(self) -> dict[str, Tensor]:
        """Returns the missing values, row by row."""
        return {"entries": self.x[self.missing]}

    def load(self, state: dict[str, Tensor]) -> None:
        """Resumes from the values of ``state``."""
        self.x[self.missing] = state["entries"].to(self.x)
