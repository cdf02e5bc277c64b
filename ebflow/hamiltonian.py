r"""Chains that draw what rows lack given the rest of them: Hamiltonian Monte Carlo, and more.

They run in coordinates q with :math:`y_m = c + L q`, of rows y behind elementwise layers: at first
c and :math:`L L^\top` are the mean and the covariance of :math:`y_m` that a Gaussian has given
:math:`y_o`; its mean is a linear function of the context, if there is one. A pool of independent
proposals, weighed by the density, then moves and scales them, column by column, to what each row's
law is; and by a second pool's weights the chains begin about where they are to end. A step is
three moves, of which each leaves the law as it is:

* leapfrogs with a test of acceptance, over a length that is drawn, their step tuned for each row
  while the chains warm up (to an acceptance of 0.65);
* a proposal :math:`q' \sim N(0, 1.25^2 I)` that does not depend on the present: from one mode to
  another in few dimensions;
* where observed columns are dequantised, fresh noise: what is observed is the cell of a grid.

Source: MCMC Using Hamiltonian Dynamics (Neal, 2011), arXiv:1206.1901; Local-Global MCMC kernels:
the best of both worlds (Samsonov et al., 2022), arXiv:2111.02702, for proposals of both kinds;
Adaptive Multiple Importance Sampling (Cornuet et al., 2012), arXiv:0907.1254, for the pools;
Bayesian Data Analysis (Gelman et al., 2013), 11.4, for R̂ of chains split into halves.
"""

__all__ = ["Chains", "Target"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .bijections import Bijection
from .errors import NonFinite
from .flow import Flow
from .randomness import normal, uniform

ACCEPTANCE = 0.65
"""What the leapfrogs' steps are tuned for."""

LENGTH, LEAPS = 1.6, 12
"""Mean length of a path, about a quarter of a Gaussian's period, and the most leapfrogs of one."""

WIDE = 1.25
"""Deviation of independent proposals."""

POOL = 32
"""Independent proposals of a chain, in each of the two pools."""

PRIOR = 10.0
"""Proposals that the Gaussian's own place and scale count for."""

RIDGE = 1e-3
"""Share of the identity in the Gaussian's correlations."""


class Target:
    """The law of rows behind elementwise layers, and a Gaussian that is near to it.

    Arguments:
        flow: The flow.
        grid: Whether its first layer is that of a grid.
        elementwise: The elementwise layers behind that.
        samples: Raw rows with shape (N, D) that have the flow's law, or nearly.
        generator: Where the noise on grids comes from.
        context: What the samples are given, with shape (N, C); None of a flow without.
    """

    def __init__(
        self,
        flow: Flow,
        elementwise: Sequence[Bijection],
        samples: Tensor,
        generator: torch.Generator,
        *,
        grid: bool,
        context: Tensor | None = None,
    ) -> None:
        self.flow, self.grid, self.elementwise, self.samples = flow, grid, elementwise, samples
        count = grid + len(elementwise)
        self.front = Flow(flow.event_shape, list(flow.layers)[:count]).to(flow.like)
        self.completed, self.rest = flow.without(int(grid)), flow.without(count)
        y = self.behind(flow.completed(samples, generator)).double()
        good = y.isfinite().all(1)
        causes, y = self._causes(context, y)[good], y[good]
        self.line = torch.linalg.pinv(causes.mT @ causes / len(y)) @ (causes.mT @ y / len(y))
        y = y - causes @ self.line
        deviation = y.std(0).clamp(min=1e-12)
        correlation = torch.corrcoef(y.mT).reshape(len(deviation), -1).nan_to_num()
        correlation = (1 - RIDGE) * correlation + RIDGE * torch.eye(len(deviation)).to(correlation)
        self.precision = torch.linalg.inv(correlation * torch.outer(deviation, deviation))

    def behind(self, x: Tensor) -> Tensor:
        """Returns completed rows behind the elementwise layers."""
        for layer in self.elementwise:
            x = layer(x)
        return x

    def before(self, y: Tensor) -> Tensor:
        """Returns the completed rows that are carried to ``y``."""
        for layer in reversed(self.elementwise):
            y = layer.inverse(y)
        return y

    def scales(self, missing: Tensor) -> Tensor:
        """Returns L with shape (N, D, D), upper triangular, 0 but between missing elements."""
        patterns, which = missing.unique(dim=0, return_inverse=True)
        found = torch.zeros(len(patterns), *self.precision.shape).to(self.precision)
        for scale, pattern in zip(found, patterns, strict=True):
            k = pattern.nonzero().flatten()
            lower = torch.linalg.cholesky(self.precision[k[:, None], k])
            eye = torch.eye(len(k)).to(lower)
            scale[k[:, None], k] = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        return found[which]

    def centres(
        self, y: Tensor, missing: Tensor, scales: Tensor, context: Tensor | None
    ) -> Tensor:
        """Returns rows (N, D) with the Gaussian's conditional mean where they miss elements."""
        mean = self._causes(context, y) @ self.line
        pull = torch.where(missing, 0.0, y - mean) @ self.precision
        shift = scales @ (scales.mT @ pull.unsqueeze(2))
        return torch.where(missing, mean - shift.squeeze(2), y)

    def _causes(self, context: Tensor | None, y: Tensor) -> Tensor:
        """Returns what the mean of rows depends on linearly, with shape (N, 1 + C)."""
        one = y.new_ones(len(y), 1)
        if context is None:
            return one
        return torch.cat([one, self.flow.standardised(context).to(y)], 1)


class Chains:
    """K chains of each of N rows, all of one length.

    Arguments:
        target: What they sample.
        x: Raw rows with shape (N, D).
        missing: True where an element is missing; each row misses one or more.
        draws: K.
        generator: Where random numbers come from.
        context: What the rows are given, with shape (N, C); None of a flow without.
        started: Whether the missing elements of ``x`` are where the chains begin.

    Raises:
        NonFinite: if the density is finite nowhere.
    """

    def __init__(
        self,
        target: Target,
        x: Tensor,
        missing: Tensor,
        draws: int,
        generator: torch.Generator,
        *,
        context: Tensor | None = None,
        started: bool = False,
    ) -> None:
        self.target, self.rows, self.draws, self.generator = target, len(x), draws, generator
        self.missing = missing.repeat_interleave(draws, 0)
        self.context = None if context is None else context.repeat_interleave(draws, 0)
        self.rest = target.rest(self.context)
        fill = target.samples[torch.arange(len(x)) % len(target.samples)].to(x)
        whole = x if started else torch.where(missing, fill, x)
        self.x = whole.repeat_interleave(draws, 0)
        like = target.flow.like
        y = target.behind(target.flow.completed(self.x, generator)).double()
        scales = target.scales(missing).repeat_interleave(draws, 0)
        centre = target.centres(y, self.missing, scales, self.context)
        self.centre, self.scale, self.seen = centre.to(like), scales.to(like), y.to(like)
        self.q = self._coordinates(y - centre, scales).to(like) if started else self._pooled()
        self.log_p, self.slope = self._at(self.q)
        if not self.log_p.isfinite().any():
            raise NonFinite(
                "impute: found no finite log-density; are the rows of the flow's data?"
            )
        self.log_step = like.new_zeros(len(self.x))
        self.accepted = torch.zeros_like(self.log_step, dtype=torch.float64)
        self.sums = torch.zeros(2, 2, *self.x.shape).to(self.accepted)
        self.steps = 0

    def run(self, steps: int, warmup: int) -> None:
        """Tunes the steps, then moves the chains, and gathers their moments by halves."""
        mean = torch.zeros_like(self.log_step)
        for step in range(warmup):
            accepted = self._move()
            self.log_step += (step + 1) ** -0.6 * (accepted - ACCEPTANCE)
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

    def _pooled(self) -> Tensor:
        """Fits place and scale of the coordinates to each row; returns where chains begin."""
        q, odds = self._pool()
        weights = odds.view(self.rows, -1).softmax(1)
        enough = 1 / weights.square().sum(1, keepdim=True)
        share, drawn = enough / (enough + PRIOR), q.view(self.rows, -1, q.shape[-1])
        mean = share * torch.einsum("np,npd->nd", weights, drawn)
        about = (drawn - mean.unsqueeze(1)).square()
        scale = (share * torch.einsum("np,npd->nd", weights, about) + (1 - share)).sqrt()
        mean, scale = (t.repeat_interleave(self.draws, 0) for t in (mean, scale))
        self.centre = self.centre + (self.scale @ mean.unsqueeze(2)).squeeze(2)
        self.scale = self.scale * scale.unsqueeze(1)
        q, odds = self._pool()
        gumbel = -(-uniform(odds.shape, odds, self.generator).clamp(1e-30).log()).log()
        best = (odds + gumbel).argmax(1)
        return q[torch.arange(len(q)), best]

    def _pool(self) -> tuple[Tensor, Tensor]:
        """Returns proposals with shape (C, P, D), and the logarithms of their weights, (C, P)."""
        shape = (len(self.x), POOL, self.x.shape[1])
        q = WIDE * normal(shape, self.centre, self.generator)
        q = torch.where(self.missing.unsqueeze(1), q, 0.0)
        moved = self.centre.unsqueeze(1) + q @ self.scale.mT
        y = torch.where(self.missing.unsqueeze(1), moved, self.seen.unsqueeze(1))
        context = None if self.context is None else self.context.unsqueeze(1)
        log_p = -self.target.rest.energy(y, context=context)
        odds = log_p + q.square().sum(2) / (2 * WIDE**2)
        return q, torch.where(odds.isfinite(), odds, -torch.finfo(odds.dtype).max / 2)

    def _coordinates(self, away: Tensor, scales: Tensor) -> Tensor:
        """Returns q of y − c with shape (C, D)."""
        whole = scales + torch.diag_embed((~self.missing).to(scales))
        found = torch.linalg.solve_triangular(whole, away.unsqueeze(2), upper=True)
        return self._masked(found.squeeze(2))

    def _move(self) -> Tensor:
        """Makes one step; returns the acceptance of its leapfrogs."""
        accepted = self._leapfrogs()
        self._jump()
        if self.target.grid:
            self._refresh()
        return accepted

    def _leapfrogs(self) -> Tensor:
        length = LENGTH * (0.5 + float(uniform((), self.q, self.generator)))
        count = min(max(math.ceil(length / float(self.log_step.median().exp())), 1), LEAPS)
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
        q = WIDE * self._masked(normal(self.q.shape, self.q, self.generator))
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
        return -self.target.completed.energy(self.target.before(y), context=self.context)

    def _accept(self, gain: Tensor, q: Tensor, log_p: Tensor, slope: Tensor) -> None:
        taken = self._taken(gain)
        self.q = torch.where(taken.unsqueeze(1), q, self.q)
        self.log_p = torch.where(taken, log_p, self.log_p)
        self.slope = torch.where(taken.unsqueeze(1), slope, self.slope)

    def _taken(self, gain: Tensor) -> Tensor:
        """Returns which proposals are accepted, by Metropolis and Hastings; none that is NaN."""
        return uniform(gain.shape, gain, self.generator).log() < gain.nan_to_num(-math.inf)

    def _masked(self, v: Tensor) -> Tensor:
        return torch.where(self.missing, v, 0.0)

    def _y(self, q: Tensor) -> Tensor:
        moved = self.centre + (self.scale @ q.unsqueeze(2)).squeeze(2)
        return torch.where(self.missing, moved, self.seen)

    def _at(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log p up to a constant with shape (C,), and its gradient over q."""
        at = self.rest.at(self._y(q))
        slope = (self.scale.mT @ at.score.unsqueeze(2)).squeeze(2)
        return -at.energy, self._masked(slope)
