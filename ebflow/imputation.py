r"""What rows lack, drawn from its law given the rest of them.

A flow gives :math:`p(x)`, so that :math:`p(x_m \mid x_o) \propto p(x_m, x_o)` is known up to a
constant, and its gradient is the score. Chains of Hamiltonian Monte Carlo sample it. They run
behind the flow's leading elementwise layers, where every column is still itself and unbounded, in
coordinates q with :math:`y_m = \mu_{m \mid o} + L q`: mean and :math:`L L^\top`, a covariance, are
those that the Gaussian of the flow's own samples has given :math:`y_o`. A step is three moves, of
which each leaves the law as it is:

* leapfrogs with a test of acceptance, over a length that is drawn, their step tuned for each row
  while the chains warm up (to an acceptance of 0.65);
* a proposal :math:`q' \sim N(0, 1.5^2 I)` that does not depend on the present: from one mode to
  another in few dimensions;
* where observed columns are dequantised, fresh noise: what is observed is the cell of a grid.

Every draw is the end of a chain of its own. The chains begin wider than the law, so that R̂ tells
whether they have forgotten where.

Source: MCMC Using Hamiltonian Dynamics (Neal, 2011), arXiv:1206.1901; Bayesian Data Analysis
(Gelman et al., 2013), 11.4, for R̂ of chains split into halves.
"""

__all__ = ["Imputed", "impute"]

import math
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from .bijections import Affine, Bijection, Dequantise
from .bijections.activations import Elementwise
from .bijections.weighted import fixed_weights
from .errors import NonFinite
from .flow import Flow
from .randomness import normal, uniform

TARGET = 0.65
"""Acceptance that the steps are tuned for."""

LENGTH, LEAPS = 1.6, 25
"""Mean length of a path, about a quarter of a Gaussian's period, and the most leapfrogs of one."""

WIDE = 1.5
"""Deviation of independent proposals, and of the starts, in those of the Gaussian."""

SAMPLES = 4096
"""Samples of the flow to which the Gaussian is fitted."""

RIDGE = 1e-3
"""Share of the identity in its correlations."""

NUMBERS = 1 << 24
"""Most numbers of the matrices of the chains that run at a time."""


@dataclass(frozen=True)
class Imputed:
    """Rows whose missing elements have been drawn.

    Attributes:
        draws: K draws of every row, with shape (N, K, D), of the type of the data; observed
            elements are the rows', exactly.
        acceptance: Mean acceptance of the leapfrogs with shape (N,), 1 of complete rows.
        r_hat: The largest R̂ of a row's missing elements, with shape (N,): 1 when the chains
            agree, and of complete rows.
    """

    draws: Tensor
    acceptance: Tensor
    r_hat: Tensor


@torch.no_grad()
def impute(
    flow: Flow,
    x: Tensor,
    *,
    generator: torch.Generator,
    draws: int = 5,
    steps: int = 100,
    warmup: int = 50,
) -> Imputed:
    """Draws the missing elements of rows, NaN, given the others.

    Cost: 3 scores a step and draw for a Gaussian, up to 25 where the density is rough.

    Arguments:
        flow: The flow of rows, preprocessing included, without a context.
        x: Raw rows with shape (N, D), NaN where an element is missing.
        generator: Where all random numbers come from.
        draws: K ≥ 1, the draws of a row.
        steps: Steps of every chain, an even number, after those of the warm-up.
        warmup: Steps in which leapfrogs are tuned.

    Raises:
        ValueError: if the flow is of images or conditional, or a number is out of range.
        NonFinite: if the flow gives an observed row no finite density.
    """
    _check(flow, x, draws, steps, warmup)
    missing = x.isnan()
    found = x.unsqueeze(1).repeat(1, draws, 1)
    acceptance, r_hat = x.new_ones(2, len(x), dtype=torch.float64)
    rows = missing.any(1).nonzero().flatten()
    target = _Target(flow, generator)
    with fixed_weights(flow):
        for some in rows.split(max(1, NUMBERS // (draws * x.shape[1] ** 2))):
            chains = _Chains(target, x[some], missing[some], draws, generator)
            chains.run(steps, warmup)
            found[some] = torch.where(missing[some].unsqueeze(1), chains.raw().to(x), found[some])
            acceptance[some], r_hat[some] = chains.acceptance(), chains.r_hat()
    return Imputed(found, acceptance, r_hat)


def _check(flow: Flow, x: Tensor, draws: int, steps: int, warmup: int) -> None:
    if flow.context or len(flow.event_shape) != 1 or x.shape[1:] != flow.event_shape:
        raise ValueError(
            f"x: found shape {tuple(x.shape)} and a flow of events {flow.event_shape} with a "
            f"context of {flow.context}, expected rows (N, D) and a flow of them without one"
        )
    if min(draws, warmup) < 1 or steps < 4 or steps % 2:
        raise ValueError(
            f"draws, steps, warmup: found {draws}, {steps}, {warmup}, expected 1 or more, and an "
            "even number of 4 or more steps"
        )


class _Target:
    """The flow, cut into its grid, its elementwise layers and the rest; and its Gaussian.

    Arguments:
        flow: The flow.
        generator: Where the samples come from.
    """

    def __init__(self, flow: Flow, generator: torch.Generator) -> None:
        self.flow, self.grids = flow, _is_grid(flow)
        layers = list(flow.layers)
        count = self.grids + len(list(takewhile(_elementwise, layers[self.grids :])))
        self.front = Flow(flow.event_shape, layers[:count]).to(flow.like)
        self.completed, self.rest = flow.without(int(self.grids)), flow.without(count)
        self.elementwise = layers[self.grids : count]
        self.samples = flow.sample(SAMPLES, generator)
        y = self.behind(flow.completed(self.samples, generator)).double()
        y = y[y.isfinite().all(1)]
        self.mean, deviation = y.mean(0), y.std(0).clamp(min=1e-12)
        correlation = torch.corrcoef(y.mT).reshape(len(deviation), -1).nan_to_num()
        correlation = (1 - RIDGE) * correlation + RIDGE * torch.eye(len(deviation)).to(correlation)
        self.precision = torch.linalg.inv(correlation * torch.outer(deviation, deviation))

    def behind(self, x: Tensor) -> Tensor:
        """Returns completed rows behind the elementwise layers."""
        for layer in self.elementwise:
            x = layer(x)
        return x

    def scales(self, missing: Tensor) -> Tensor:
        """Returns L with shape (N, D, D), 0 but between missing elements."""
        patterns, which = missing.unique(dim=0, return_inverse=True)
        found = torch.zeros(len(patterns), *self.precision.shape, dtype=torch.float64)
        for scale, pattern in zip(found, patterns, strict=True):
            k = pattern.nonzero().flatten()
            lower = torch.linalg.cholesky(self.precision[k[:, None], k])
            eye = torch.eye(len(k), dtype=torch.float64)
            scale[k[:, None], k] = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        return found[which]

    def centres(self, y: Tensor, missing: Tensor, scales: Tensor) -> Tensor:
        """Returns rows (N, D) with the Gaussian's conditional mean where they miss elements."""
        pull = torch.where(missing, 0.0, y - self.mean) @ self.precision
        shift = scales @ (scales.mT @ pull.unsqueeze(2))
        return torch.where(missing, self.mean - shift.squeeze(2), y)


class _Chains:
    """K chains of each of N rows, all of one length.

    Arguments:
        target: What they sample.
        x: Raw rows with shape (N, D).
        missing: True where an element is missing; each row misses one or more.
        draws: K.
        generator: Where random numbers come from.
    """

    def __init__(
        self,
        target: _Target,
        x: Tensor,
        missing: Tensor,
        draws: int,
        generator: torch.Generator,
    ) -> None:
        self.target, self.rows, self.draws, self.generator = target, len(x), draws, generator
        self.missing = missing.repeat_interleave(draws, 0)
        fill = target.samples[torch.arange(len(x)) % len(target.samples)].to(x)
        self.x = torch.where(missing, fill, x).repeat_interleave(draws, 0)
        like = target.flow.like
        y = target.behind(target.flow.completed(self.x, generator)).double()
        scales = target.scales(missing).repeat_interleave(draws, 0)
        self.centre = target.centres(y, self.missing, scales).to(like)
        self.scale, self.seen = scales.to(like), y.to(like)
        self.q = self._wide()
        self.log_p, self.slope = self._at(self.q)
        if not self.log_p.isfinite().any():
            raise NonFinite(
                "impute: found no finite log-density; are the rows of the flow's data?"
            )
        self.log_step = like.new_zeros(len(self.x))
        self.accepted = torch.zeros(len(self.x), dtype=torch.float64)
        self.sums = torch.zeros(2, 2, *self.x.shape, dtype=torch.float64)
        self.steps = 0

    def run(self, steps: int, warmup: int) -> None:
        """Tunes the steps, then moves the chains, and gathers their moments by halves."""
        mean = torch.zeros_like(self.log_step)
        for step in range(warmup):
            accepted = self._move()
            self.log_step += (step + 1) ** -0.6 * (accepted - TARGET)
            mean += (self.log_step - mean) * 2 / (step + 2)
        self.log_step = mean.view(self.rows, -1).mean(1).repeat_interleave(self.draws)
        for step in range(steps):
            self.accepted += self._move() / steps
            self.sums[step * 2 // steps] += torch.stack([self.q, self.q**2]).double()
        self.steps = steps

    def raw(self) -> Tensor:
        """Returns raw rows where the chains are, with shape (N, K, D)."""
        x = self.target.front.from_latent(self._y(self.q))
        return x.view(self.rows, self.draws, -1)

    def acceptance(self) -> Tensor:
        """Returns the mean acceptance of each row's leapfrogs."""
        return self.accepted.view(self.rows, -1).mean(1)

    def r_hat(self) -> Tensor:
        """Returns the largest R̂ of each row, of 2 K halves of chains."""
        n = self.steps // 2
        sums, squares = self.sums.unbind(1)
        means = (sums / n).view(2, self.rows, self.draws, -1)
        variances = (squares / n).view(means.shape) - means**2
        within = variances.mean((0, 2)) * n / (n - 1)
        between = means.transpose(1, 2).flatten(0, 1).var(0)
        ratio = ((n - 1) / n * within + between) / within
        missing = self.missing[:: self.draws]
        return torch.where(missing, ratio, 1.0).sqrt().nan_to_num(math.inf).amax(1)

    def _move(self) -> Tensor:
        """Makes one step; returns the acceptance of its leapfrogs."""
        accepted = self._leapfrogs()
        self._jump()
        if self.target.grids:
            self._refresh()
        return accepted

    def _leapfrogs(self) -> Tensor:
        length = LENGTH * (0.5 + uniform((), self.q, self.generator))
        count = int((length / self.log_step.median().exp()).ceil().clamp(1, LEAPS))
        jitter = 0.8 + 0.4 * uniform((len(self.q),), self.q, self.generator)
        step = (self.log_step.exp() * jitter).unsqueeze(1)
        v = self._masked(normal(self.q.shape, self.q, self.generator))
        before = self.log_p - 0.5 * v.square().sum(1)
        q, log_p, slope = self.q, self.log_p, self.slope
        for _ in range(count):
            v = v + step / 2 * slope
            q = q + step * v
            log_p, slope = self._at(q)
            v = v + step / 2 * slope
        gain = log_p - 0.5 * v.square().sum(1) - before
        self._accept(gain, q, log_p, slope)
        return gain.nan_to_num(-math.inf).clamp(max=0).exp()

    def _jump(self) -> None:
        q = self._wide()
        log_p, slope = self._at(q)
        odds = (q.square().sum(1) - self.q.square().sum(1)) / (2 * WIDE**2)
        self._accept(log_p - self.log_p + odds, q, log_p, slope)

    def _refresh(self) -> None:
        """Proposes other points of the cells in which observed columns of grids are."""
        here = self._y(self.q)
        x = self.target.flow.completed(self.x, self.generator)
        other = torch.where(self.missing, here, self.target.behind(x))
        gain = self._log_completed(other) - self._log_completed(here)
        kept, self.seen = self.seen, other
        log_p, slope = self._at(self.q)
        taken = self._taken(gain)
        self.seen = torch.where(taken.unsqueeze(1), other, kept)
        self.log_p = torch.where(taken, log_p, self.log_p)
        self.slope = torch.where(taken.unsqueeze(1), slope, self.slope)

    def _log_completed(self, y: Tensor) -> Tensor:
        """Returns the log-density of completed rows up to a constant."""
        x = y
        for layer in reversed(self.target.elementwise):
            x = layer.inverse(x)
        return -self.target.completed.energy(x)

    def _accept(self, gain: Tensor, q: Tensor, log_p: Tensor, slope: Tensor) -> None:
        taken = self._taken(gain)
        self.q = torch.where(taken.unsqueeze(1), q, self.q)
        self.log_p = torch.where(taken, log_p, self.log_p)
        self.slope = torch.where(taken.unsqueeze(1), slope, self.slope)

    def _taken(self, gain: Tensor) -> Tensor:
        """Returns which proposals are accepted, by Metropolis and Hastings; none that is NaN."""
        return uniform(gain.shape, gain, self.generator).log() < gain.nan_to_num(-math.inf)

    def _wide(self) -> Tensor:
        return WIDE * self._masked(normal(self.centre.shape, self.centre, self.generator))

    def _masked(self, v: Tensor) -> Tensor:
        return torch.where(self.missing, v, 0.0)

    def _y(self, q: Tensor) -> Tensor:
        moved = self.centre + (self.scale @ q.unsqueeze(2)).squeeze(2)
        return torch.where(self.missing, moved, self.seen)

    def _at(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log p up to a constant with shape (C,), and its gradient over q."""
        at = self.target.rest.at(self._y(q))
        slope = (self.scale.mT @ at.score.unsqueeze(2)).squeeze(2)
        return -at.energy, self._masked(slope)


def _is_grid(flow: Flow) -> bool:
    return bool(len(flow.layers)) and isinstance(flow.layers[0], Dequantise)


def _elementwise(layer: Bijection) -> bool:
    return isinstance(layer, Elementwise | Affine)
