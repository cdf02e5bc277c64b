r"""Markov chains that sample missing values given the observed ones.

Chains run in coordinates q with :math:`y_m = c + L q`, of rows y after the flow's leading
elementwise layers. A mixture of Gaussians fitted to samples of the flow has a conditional
distribution of :math:`y_m` given :math:`y_o` and the context in closed form (``conditioning``).
Its mean and covariance are the first c and :math:`L L^\top`. A pool of proposals from it, weighted
by the density, then shifts and scales the coordinates of each row, column by column, and the
chains start at proposals sampled by these weights. After the warm-up, kernels around the visited
states make further proposals. A step consists of up to three moves, and each leaves the
conditional distribution invariant:

* the present state or one of several proposals, sampled by their weights: from mode to mode;
* on request, leapfrogs with an acceptance test, over a random length; the warm-up tunes their step
  for each row (to an acceptance of 0.65);
* for dequantized observed columns, fresh noise: what is observed is the cell of a grid.

**Kernels.** If J points are known that nearly have the conditional distribution, kernels around
them make better proposals, mixed with the mixture's own, whose tails they lack:

.. math::
    \alpha \, q(y_m) + \frac{1 - \alpha}{J |L|} \sum_j N(z; z_j, h^2 I), \qquad
    z = L^{-1} (y_m - c), \quad h^{d+4} = \frac{4}{(d + 2) J}

with q the mixture's density, and d the number of missing elements.

Source: MCMC Using Hamiltonian Dynamics (Neal, 2011), arXiv:1206.1901; Particle Markov chain Monte
Carlo methods (Andrieu, Doucet, Holenstein, 2010), 4.3, Journal of the Royal Statistical Society B
72, for iterated importance sampling; Local-Global MCMC kernels: the best of both worlds (Samsonov
et al., 2022), arXiv:2111.02702, for both together; Bayesian Data Analysis (Gelman et al., 2013),
11.4, for R̂ of chains split into halves; Density Estimation for Statistics and Data Analysis
(Silverman, 1986), 4.3, for h.
"""

__all__ = ["Chains", "Kernels"]

import math

import torch
from torch import Tensor

from .conditioning import Conditional
from .errors import NonFinite
from .randomness import normal, uniform
from .target import Target

DEFENCE = 0.25
"""α, the share of proposals from the mixture."""

ACCEPTANCE = 0.65
"""Acceptance to which the leapfrogs' steps are tuned."""

LENGTH, LEAPS = 1.6, 6
"""Mean length of a path, about a quarter of a Gaussian's period, and its most leapfrogs."""

POOL = 32
"""Proposals of a chain, one of which is its start."""

PROPOSALS = 8
"""Proposals of a chain at a step."""

VISITED = 64
"""Largest number of visited states of a row's chains that get kernels."""

PRIOR = 10.0
"""Weight of the mixture's own moments, in proposals."""

NOWHERE = -1e300
"""Logarithm of the weight of a proposal whose density is 0 or NaN."""


class Kernels:
    """Kernels around points of each row, mixed with its Gaussian mixture; O(J D + K D²) a row.

    Arguments:
        conditional: The mixture given the observed elements of N rows, each with a pattern.
        centre: c, with shape (N, D).
        scale: L, with shape (N, D, D), lower triangular, 0 except between missing elements.
        points: z of J points of each row, with shape (N, J, D), 0 for observed elements.
    """

    def __init__(
        self, conditional: Conditional, centre: Tensor, scale: Tensor, points: Tensor
    ) -> None:
        self.conditional, self.missing = conditional, conditional.missing
        self.centre, self.scale, self.points = centre, scale, points
        self.root = scale + conditional.observed
        width, count = self.missing.to(scale).sum(1), points.shape[1]
        self.bandwidth = (4 / (count * (width + 2))) ** (1 / (width + 4))
        log_det = self.root.diagonal(dim1=1, dim2=2).abs().log().sum(1)
        self.log_scale = width * self.bandwidth.log() + log_det + math.log(count)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns ``count`` completions of every row, with shape (N, 1, count, D)."""
        y = self.conditional.sample(count, generator)[:, 0]
        u = uniform((2, *y.shape[:2]), y, generator)
        j = (u[0] * self.points.shape[1]).long()
        z = self.points.gather(1, j[..., None].expand(y.shape))
        z = z + self.bandwidth[:, None, None] * normal(z.shape, z, generator)
        near = (u[1] >= DEFENCE)[..., None] & self.missing[:, None]
        return torch.where(near, self.centre[:, None] + z @ self.scale.mT, y)[:, None]

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns the log-density of completions with shape (N, M, D), up to a row's constant."""
        away = torch.where(self.missing[:, None], y - self.centre[:, None], 0.0)
        z = torch.linalg.solve_triangular(self.root, away.mT, upper=False).mT
        near = torch.cdist(z, self.points) / self.bandwidth[:, None, None]
        kernels = (-0.5 * near.square()).logsumexp(2) - self.log_scale[:, None]
        mixture = math.log(DEFENCE) + self.conditional.log_prob(y)
        return torch.logaddexp(mixture, math.log1p(-DEFENCE) + kernels)


class Chains:
    """K chains for each of N rows, all of one length.

    Arguments:
        target: The distribution to sample.
        x: Raw rows with shape (N, D).
        missing: True where an element is missing; each row has one or more.
        draws: K.
        generator: The source of random numbers.
        context: The contexts of the rows, with shape (N, C); None for a flow without.
        started: True if the chains start at the missing elements of ``x``.

    Raises:
        NonFinite: if no log-density is finite.
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
        x = x if started else torch.where(missing, fill, x)
        self.x = x.repeat_interleave(draws, 0)
        like = self.x.new_zeros((), dtype=target.preprocessing.dtype)
        self.dequantized = target.preprocessing.dequantize(self.x, generator=generator)
        y, slopes = target.transform(self.dequantized)
        y, self.log_det = y.double(), slopes.sum(1)
        self.conditional = target.condition(y[::draws], missing, context)
        self.proposal: Conditional | Kernels = self.conditional
        moments = self.conditional.moments()
        self.y = y.to(like)
        self.centre, self.scale = (t.to(like).repeat_interleave(draws, 0) for t in moments)
        self.effective = torch.full((self.rows,), math.nan).to(y)
        self.q, self.log_p = self._continued(self.y) if started else self._pooled()
        if not self.log_p.isfinite().any():
            raise NonFinite(
                "impute: no log-density is finite; check that the rows are of the flow's data"
            )
        self.log_step = like.new_zeros(len(self.x))
        self.moved = torch.zeros_like(self.log_step, dtype=torch.float64)
        self.sums = torch.zeros(2, 2, *self.x.shape).to(self.moved)
        self.steps = 0

    def warm_up(self, steps: int, *, leaps: bool) -> Tensor:
        """Moves the chains, and tunes leapfrogs if there are any.

        Returns:
            The states of the second half, in coordinates of each row, with shape (N, J, D).
        """
        mean, visited = torch.zeros_like(self.log_step), []
        for step in range(steps):
            accepted = self._move(leaps=leaps)
            if 2 * step >= steps:
                visited.append(self.q)
            if accepted is not None:
                self.log_step += (step + 1) ** -0.6 * (accepted - ACCEPTANCE)
                mean += (self.log_step - mean) * 2 / (step + 2)
        self.log_step = mean.view(self.rows, -1).mean(1).repeat_interleave(self.draws)
        return torch.stack(visited, 1).view(self.rows, -1, self.q.shape[1])

    def adapt(self, points: Tensor) -> None:
        """Makes later proposals from kernels around coordinates of each row (N, J, D)."""
        count = points.shape[1]
        chosen = (
            torch.arange(min(VISITED, count), device=points.device) * count // min(VISITED, count)
        )
        here = (t[:: self.draws].double() for t in (self.centre, self.scale))
        self.proposal = Kernels(self.conditional, *here, points[:, chosen].double())

    def run(self, steps: int, *, leaps: bool) -> None:
        """Moves the chains, and adds up moments of both halves of the steps."""
        for step in range(steps):
            before = self.q
            self._move(leaps=leaps)
            self.moved += (self.q != before).any(1).to(self.moved) / steps
            self.sums[step * 2 // steps] += torch.stack([self.q, self.q**2]).double()
        self.steps = steps

    def raw(self) -> Tensor:
        """Returns raw rows at the chains' states, with shape (N, K, D)."""
        x = self.target.preprocessing.from_latent(self._y(self.q))
        return x.view(self.rows, self.draws, -1)

    def acceptance(self) -> Tensor:
        """Returns the share of steps in which each row's chains moved, with shape (N,)."""
        return self.moved.view(self.rows, -1).mean(1)

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
        return torch.where(missing, ratio, 0.0).sqrt().nan_to_num(math.inf).amax(1)

    def pool_r_hat(self, least: float) -> Tensor:
        """Returns √(1 + 1/n) for n effective proposals, in the place of R̂; ∞ for too few."""
        enough = self.effective >= least * self.draws * POOL
        return torch.where(enough, (1 + 1 / self.effective).sqrt(), math.inf)

    def _continued(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns coordinates and log p of rows with values for their missing elements."""
        here = y[:, None]
        return self._coordinates(here)[:, 0], self.target.log_prob(here, self.context)[:, 0]

    def _pooled(self) -> tuple[Tensor, Tensor]:
        """Fits centre and scale of the coordinates to each row; returns the first states."""
        y, log_p, odds = self._proposed(POOL)
        q = self._coordinates(y).view(self.rows, -1, y.shape[2]).double()
        weights = odds.view(self.rows, -1).softmax(1)
        size = 1 / weights.square().sum(1, keepdim=True)
        size = torch.where(odds.view(self.rows, -1).amax(1, keepdim=True) > NOWHERE, size, 0.0)
        self.effective = size[:, 0]
        share = size / (size + PRIOR)
        mean = share * torch.einsum("np,npd->nd", weights, q)
        about = (q - mean.unsqueeze(1)).square()
        scale = (share * torch.einsum("np,npd->nd", weights, about) + (1 - share)).sqrt()
        mean, scale = (t.to(y).repeat_interleave(self.draws, 0) for t in (mean, scale))
        self.centre = self.centre + (self.scale @ mean.unsqueeze(2)).squeeze(2)
        self.scale = self.scale * scale.unsqueeze(1)
        at = torch.arange(len(y), device=y.device), self._chosen(odds)
        return self._coordinates(y[at][:, None])[:, 0], log_p[at]

    def _proposed(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns proposals (C, P, D), log p of them, and the logarithms of their weights."""
        y = self.proposal.sample(self.draws * count, self.generator)
        y = y.view(len(self.x), count, -1).to(self.y)
        y = torch.where(self.missing[:, None], y, self.y[:, None])
        log_p = self.target.log_prob(y, self.context)
        return y, log_p, self._odds(y, log_p)

    def _odds(self, y: Tensor, log_p: Tensor) -> Tensor:
        """Returns log p − log q of completions (C, P, D), ``NOWHERE`` if it is not finite."""
        log_q = self.proposal.log_prob(y.view(self.rows, -1, y.shape[2]).double()).view(
            log_p.shape
        )
        odds = log_p.double() - log_q
        return torch.where(odds.isfinite(), odds, NOWHERE)

    def _chosen(self, odds: Tensor) -> Tensor:
        """Returns the number of one proposal of each chain, sampled by the weights (C, P)."""
        gumbel = -(-uniform(odds.shape, odds, self.generator).clamp(1e-30).log()).log()
        return (odds + gumbel).argmax(1)

    def _coordinates(self, y: Tensor) -> Tensor:
        """Returns q of completions with shape (C, P, D)."""
        root = self.scale + torch.diag_embed((~self.missing).to(self.scale))
        away = torch.where(self.missing[:, None], y - self.centre[:, None], 0.0)
        return torch.linalg.solve_triangular(root, away.mT, upper=False).mT

    def _move(self, *, leaps: bool) -> Tensor | None:
        """Makes one step, and returns the acceptance of its leapfrogs, if there are any."""
        accepted = self._leapfrogs() if leaps else None
        self._jump()
        if self.target.preprocessing.dequantizer is not None:
            self._refresh()
        return accepted

    def _leapfrogs(self) -> Tensor:
        length = LENGTH * (0.5 + float(uniform((), self.q, self.generator)))
        count = min(max(math.ceil(length / float(self.log_step.median().exp())), 1), LEAPS)
        jitter = 0.8 + 0.4 * uniform((len(self.q),), self.q, self.generator)
        step = (self.log_step.exp() * jitter).unsqueeze(1)
        v = self._masked(normal(self.q.shape, self.q, self.generator))
        before = self.log_p - 0.5 * v.square().sum(1)
        q, (log_p, slope) = self.q, self._at(self.q)
        for _ in range(count):
            v = v + step / 2 * slope
            q = q + step * v
            log_p, slope = self._at(q)
            v = v + step / 2 * slope
        gain = log_p - 0.5 * v.square().sum(1) - before
        accepted = self._accepted(gain)
        self.q = torch.where(accepted.unsqueeze(1), q, self.q)
        self.log_p = torch.where(accepted, log_p, self.log_p)
        return gain.nan_to_num(-math.inf).clamp(max=0).exp()

    def _jump(self) -> None:
        """Moves to one of new proposals, or stays, by their weights."""
        y, log_p, odds = self._proposed(PROPOSALS)
        here = self._y(self.q)[:, None]
        own = self._odds(here, self.log_p[:, None])
        chosen = self._chosen(torch.cat([own, odds], 1))
        at = torch.arange(len(y), device=y.device), (chosen - 1).clamp(min=0)
        moves = chosen > 0
        self.q = torch.where(moves[:, None], self._coordinates(y[at][:, None])[:, 0], self.q)
        self.log_p = torch.where(moves, log_p[at], self.log_p)

    def _refresh(self) -> None:
        """Proposes other points in the cells of observed columns on grids."""
        x = self.target.preprocessing.dequantize(self.x, generator=self.generator)
        x = torch.where(self.missing, self.dequantized, x)
        y, slopes = self.target.transform(x)
        other = torch.where(self.missing, self._y(self.q), y)
        log_p = self.target.log_prob(other[:, None], self.context)[:, 0]
        log_det = slopes.sum(1)
        accepted = self._accepted(log_p + log_det - self.log_p - self.log_det)
        rows = accepted.unsqueeze(1)
        self.y = torch.where(rows, other, self.y)
        self.dequantized = torch.where(rows, x, self.dequantized)
        self.log_p = torch.where(accepted, log_p, self.log_p)
        self.log_det = torch.where(accepted, log_det, self.log_det)

    def _accepted(self, gain: Tensor) -> Tensor:
        """Returns the accepted proposals, by Metropolis and Hastings; NaN is never accepted."""
        least = gain.nan_to_num(-math.inf, neginf=-math.inf)
        return uniform(gain.shape, gain, self.generator).log() < least

    def _masked(self, v: Tensor) -> Tensor:
        return torch.where(self.missing, v, 0.0)

    def _y(self, q: Tensor) -> Tensor:
        moved = self.centre + (self.scale @ q.unsqueeze(2)).squeeze(2)
        return torch.where(self.missing, moved, self.y)

    def _at(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log p up to a constant with shape (C,), and its gradient over q."""
        at = self.rest.at(self._y(q))
        slope = (self.scale.mT @ at.score.unsqueeze(2)).squeeze(2)
        return -at.energy, self._masked(slope)
