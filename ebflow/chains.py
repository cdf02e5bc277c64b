r"""Chains that draw what rows lack given the rest of them: independent proposals, and leapfrogs.

They run in coordinates q with :math:`y_m = c + L q`, of rows y behind elementwise layers. A
mixture of Gaussians fitted to samples of the flow has a law of :math:`y_m` given :math:`y_o` and
the context in closed form: c and :math:`L L^\top` are at first its mean and its covariance; a pool
of proposals from it, weighed by the density, then moves and scales them, column by column, to what
each row's law is, and the chains begin at proposals drawn by these weights. When they have warmed
up, kernels around where they were make further proposals. A step is up to three moves, of which
each leaves the law as it is:

* one of several proposals, or the present, drawn by their weights: from one mode to another;
* where they are asked for, leapfrogs with a test of acceptance, over a length that is drawn, their
  step tuned for each row while the chains warm up (to an acceptance of 0.65);
* where observed columns are dequantized, fresh noise: what is observed is the cell of a grid.

**The mixture's law.** Of a component with weight :math:`w`, mean :math:`\mu` and precision
:math:`\Lambda`, and a row whose elements :math:`o` are known and :math:`m` are not, with :math:`d
= y_o - \mu_o` and :math:`\Lambda_{mm} = A A^\top`,

.. math::
    y_m \mid y_o \sim N(\mu_m - \Lambda_{mm}^{-1} \Lambda_{mo} d, \; \Lambda_{mm}^{-1}), \qquad
    \log w + \tfrac12 \log |\Lambda| - \log |A|
        - \tfrac12 \left( d^\top \Lambda_{oo} d - \| A^{-1} \Lambda_{mo} d \|^2 \right)

is its law, and the logarithm of its weight up to a constant.

**Kernels.** Where J points are known that nearly have the law, kernels around them make better
proposals, beside the mixture's own, whose tails they lack:

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

__all__ = ["Chains", "Given", "Kernels", "Target", "mixture_of"]

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .bases import GaussianMixture
from .bijections import Bijection
from .errors import NonFinite
from .flow import Flow
from .mixtures import fit_components
from .randomness import normal, uniform

WIDE = 1.1
"""Deviations of proposals, in those of the mixture: tails that are too light make chains stick."""

ROWS = 10
"""Samples for every column and component."""

RIDGE = 1e-3
"""What is added to variances of standardized columns."""

DEFENCE = 0.25
"""α, the share of proposals that are the mixture's."""

ACCEPTANCE = 0.65
"""What the leapfrogs' steps are tuned for."""

LENGTH, LEAPS = 1.6, 6
"""Mean length of a path, about a quarter of a Gaussian's period, and the most leapfrogs of one."""

POOL = 32
"""Proposals of a chain, of which one is its beginning."""

PROPOSALS = 8
"""Proposals of a chain at a step."""

VISITED = 64
"""Most places of a row's chains around which there are kernels."""

PRIOR = 10.0
"""Proposals that the mixture's own moments count for."""

NOWHERE = -1e300
"""The logarithm of the weight of a proposal whose density is 0 or not a number."""

BATCH = 1024
"""Most rows of an evaluation."""


def mixture_of(samples: Tensor, most: int, generator: torch.Generator) -> GaussianMixture:
    """Returns a mixture fitted to finite samples with shape (N, D), in float64.

    Arguments:
        samples: The samples.
        most: Most components; there are fewer if samples are few for their width.
        generator: Where its start comes from.
    """
    count = max(1, min(most, len(samples) // (ROWS * samples.shape[1])))
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    found = fit_components(samples, count, ridge=RIDGE, seed=seed)
    covariances = WIDE**2 * found.covariances
    return GaussianMixture(found.weights, found.means, covariances).to(samples.device)


class Given:
    """The mixture given what rows know, each by its own pattern; O(K N D³), K N D² numbers.

    Arguments:
        mixture: A mixture of K Gaussians with full covariances.
        y: Rows with shape (N, D), in its type.
        missing: True where an element is not known, with the shape of ``y``.
        contexts: Leading elements that are contexts: known, and no part of a completion.
    """

    def __init__(
        self, mixture: GaussianMixture, y: Tensor, missing: Tensor, *, contexts: int = 0
    ) -> None:
        free = missing.to(y)
        roots, means = mixture.triangles, mixture.means
        precisions = roots.mT @ roots
        inner = precisions * (free[:, None, :, None] * free[:, None, None, :])
        root = torch.linalg.cholesky(inner + (1 - free).diag_embed()[:, None])
        away = torch.where(missing[:, None], 0.0, y[:, None] - means)
        pull = torch.einsum("kij,nkj->nki", precisions, away)
        lead = _solved(root, pull * free[:, None])
        shift = _solved(root.mT, lead, upper=True)
        means = torch.where(missing[:, None], means - shift, y[:, None])
        self.log_scale = _log_diagonal(root)
        odds = mixture.log_weights + _log_diagonal(roots) - self.log_scale
        odds = odds - 0.5 * ((away * pull).sum(2) - lead.square().sum(2))
        self.log_shares = odds.log_softmax(1)
        self.missing, self.means = missing[:, contexts:], means[..., contexts:]
        self.root = root[..., contexts:, contexts:]
        eye = torch.eye(self.root.shape[2]).to(y)
        self.inverse = torch.linalg.solve_triangular(self.root, eye, upper=False)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns ``count`` completions of every row, with shape (N, count, D)."""
        shares = self.log_shares.exp().cumsum(1)
        u = uniform((len(shares), count), shares, generator)
        last = shares.shape[1] - 1
        k = torch.searchsorted(shares, u.contiguous(), right=True).clamp(max=last)
        noise = normal((*k.shape, self.means.shape[2]), self.means, generator)
        noise = torch.where(self.missing[:, None], noise, 0.0)
        found = self.means.gather(1, k[..., None].expand(noise.shape))
        for index in range(last + 1):
            own = torch.where((k == index)[..., None], noise, 0.0)
            found = torch.baddbmm(found, own, self.inverse[:, index])
        return found

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns the log-density of completions with shape (N, M, D), up to a row's constant."""
        parts = []
        for root, mean, scale, share in zip(
            self.root.unbind(1), self.means.unbind(1), self.log_scale.T, self.log_shares.T,
            strict=True,
        ):  # fmt: skip
            z = torch.where(self.missing[:, None], y - mean[:, None], 0.0) @ root
            parts.append((share + scale)[:, None] - 0.5 * z.square().sum(2))
        return torch.stack(parts).logsumexp(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Returns mean (N, D), and a factor (N, D, D), lower triangular, of the covariance.

        It is 0 but between missing elements.
        """
        shares = self.log_shares.exp()[..., None]
        mean = (shares * self.means).sum(1)
        away = (self.means - mean[:, None]) * shares.sqrt()
        covariance = away.mT @ away
        known = (~self.missing).to(mean).diag_embed()
        for inverse, share in zip(self.inverse.unbind(1), shares.unbind(1), strict=True):
            covariance = covariance + share[..., None] * (inverse.mT @ inverse - known)
        return mean, torch.linalg.cholesky(covariance + known) - known


class Kernels:
    """Kernels around points of each row, and its mixture; O(J D + K D²) a completion.

    Arguments:
        given: The mixture given what N rows know.
        centre: c, with shape (N, D).
        scale: L, with shape (N, D, D), lower triangular, 0 but between missing elements.
        points: z of J points of each row, with shape (N, J, D), 0 where an element is known.
    """

    def __init__(self, given: Given, centre: Tensor, scale: Tensor, points: Tensor) -> None:
        self.given, self.centre, self.scale, self.points = given, centre, scale, points
        self.root = scale + (~given.missing).to(scale).diag_embed()
        width, count = given.missing.to(scale).sum(1), points.shape[1]
        self.bandwidth = (4 / (count * (width + 2))) ** (1 / (width + 4))
        self.log_scale = width * self.bandwidth.log() + _log_diagonal(self.root) + math.log(count)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns ``count`` completions of every row, with shape (N, count, D)."""
        y = self.given.sample(count, generator)
        u = uniform((2, *y.shape[:2]), y, generator)
        j = (u[0] * self.points.shape[1]).long()
        z = self.points.gather(1, j[..., None].expand(y.shape))
        z = z + self.bandwidth[:, None, None] * normal(z.shape, z, generator)
        near = (u[1] >= DEFENCE)[..., None] & self.given.missing[:, None]
        return torch.where(near, self.centre[:, None] + z @ self.scale.mT, y)

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns the log-density of completions with shape (N, M, D), up to a row's constant."""
        away = torch.where(self.given.missing[:, None], y - self.centre[:, None], 0.0)
        z = torch.linalg.solve_triangular(self.root, away.mT, upper=False).mT
        near = torch.cdist(z, self.points) / self.bandwidth[:, None, None]
        kernels = (-0.5 * near.square()).logsumexp(2) - self.log_scale[:, None]
        mixture = math.log(DEFENCE) + self.given.log_prob(y)
        return torch.logaddexp(mixture, math.log1p(-DEFENCE) + kernels)


def _solved(root: Tensor, v: Tensor, *, upper: bool = False) -> Tensor:
    """Returns A⁻¹ v of vectors with shape (…, D)."""
    return torch.linalg.solve_triangular(root, v[..., None], upper=upper)[..., 0]


def _log_diagonal(root: Tensor) -> Tensor:
    return root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


class Target:
    """The law of rows behind elementwise layers, and a mixture of Gaussians that is near to it.

    Arguments:
        flow: The flow.
        grid: Whether its first layer is that of a grid.
        elementwise: The elementwise layers behind that.
        samples: Raw rows with shape (N, D) that have the flow's law, or nearly.
        generator: Where the noise on grids, and the start of the mixture, come from.
        components: Most Gaussians of the mixture.
        context: What the samples are given, with shape (N, C); None of a flow without. The
            mixture is of contexts and rows then.
    """

    def __init__(
        self,
        flow: Flow,
        elementwise: Sequence[Bijection],
        samples: Tensor,
        generator: torch.Generator,
        *,
        grid: bool,
        components: int,
        context: Tensor | None = None,
    ) -> None:
        self.flow, self.grid, self.elementwise, self.samples = flow, grid, elementwise, samples
        count = grid + len(elementwise)
        self.preprocessing = Flow(flow.event_shape, list(flow.layers)[:count]).to(
            flow.device, flow.dtype
        )
        self.rest = flow.after(count)
        whole = self._whole(self.behind(flow.dequantize(samples, generator=generator))[0], context)
        self.mixture = mixture_of(whole[whole.isfinite().all(1)], components, generator)

    def behind(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns completed rows behind the elementwise layers, and log-determinants of these."""
        whole = x.new_zeros(len(x))
        for layer in self.elementwise:
            x, log_det = layer.forward_and_log_det(x)
            whole = whole + log_det
        return x, whole

    def given(self, y: Tensor, missing: Tensor, context: Tensor | None) -> Given:
        """Returns what the mixture says of the missing elements of rows (N, D)."""
        whole, count = self._whole(y, context), self.flow.context
        known = missing.new_zeros(len(y), count)
        return Given(self.mixture, whole, torch.cat([known, missing], 1), contexts=count)

    def log_prob(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Returns log p up to a constant of completions (C, P, D) of rows, with shape (C, P)."""
        rows = y.flatten(0, 1)
        parts = [(part,) for part in rows.split(BATCH)]
        if context is not None:
            given = context.repeat_interleave(y.shape[1], 0).split(BATCH)
            parts = list(zip(rows.split(BATCH), given, strict=True))
        found = [self.rest(*part[1:]).energy(part[0]) for part in parts]
        return -torch.cat(found).view(y.shape[:2])

    def _whole(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Returns rows behind their contexts, as the layers see these, in float64."""
        y = y.double()
        if context is None:
            return y
        return torch.cat([self.flow.standardized(context).to(y), y], 1)


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
        tell: Is called after every step.

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
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.target, self.rows, self.draws, self.generator = target, len(x), draws, generator
        self.tell = tell
        self.missing = missing.repeat_interleave(draws, 0)
        self.context = None if context is None else context.repeat_interleave(draws, 0)
        self.rest = target.rest(self.context)
        fill = target.samples[torch.arange(len(x)) % len(target.samples)].to(x)
        whole = x if started else torch.where(missing, fill, x)
        self.x = whole.repeat_interleave(draws, 0)
        like = self.x.new_zeros((), dtype=target.flow.dtype)
        self.completed = target.flow.dequantize(self.x, generator=generator)
        y, self.log_det = target.behind(self.completed)
        y = y.double()
        self.law = self.given = target.given(y[::draws], missing, context)
        moments = self.given.moments()
        self.seen = y.to(like)
        self.centre, self.scale = (t.to(like).repeat_interleave(draws, 0) for t in moments)
        self.effective = torch.full((self.rows,), math.nan).to(y)
        self.q, self.log_p = self._continued(self.seen) if started else self._pooled()
        if not self.log_p.isfinite().any():
            raise NonFinite(
                "impute: found no finite log-density; are the rows of the flow's data?"
            )
        self.log_step = like.new_zeros(len(self.x))
        self.moved = torch.zeros_like(self.log_step, dtype=torch.float64)
        self.sums = torch.zeros(2, 2, *self.x.shape).to(self.moved)
        self.steps = 0

    def warm_up(self, steps: int, *, leaps: bool) -> Tensor:
        """Moves the chains, and tunes leapfrogs if there are any.

        Returns:
            Where they were in the second half of it, in coordinates of each row, with shape
            (N, J, D).
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
        """Takes proposals from kernels around coordinates of each row, with shape (N, J, D)."""
        count = points.shape[1]
        chosen = (
            torch.arange(min(VISITED, count), device=points.device) * count // min(VISITED, count)
        )
        here = (t[:: self.draws].double() for t in (self.centre, self.scale))
        self.law = Kernels(self.given, *here, points[:, chosen].double())

    def run(self, steps: int, *, leaps: bool) -> None:
        """Moves the chains, and gathers moments by halves."""
        for step in range(steps):
            before = self.q
            self._move(leaps=leaps)
            self.moved += (self.q != before).any(1).to(self.moved) / steps
            self.sums[step * 2 // steps] += torch.stack([self.q, self.q**2]).double()
        self.steps = steps

    def raw(self) -> Tensor:
        """Returns raw rows where the chains are, with shape (N, K, D)."""
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
        """Returns √(1 + 1/n) of n effective proposals, as R̂ of as many; ∞ of too few of them."""
        enough = self.effective >= least * self.draws * POOL
        return torch.where(enough, (1 + 1 / self.effective).sqrt(), math.inf)

    def _continued(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns coordinates and log p of rows whose missing elements are there already."""
        here = y[:, None]
        return self._coordinates(here)[:, 0], self.target.log_prob(here, self.context)[:, 0]

    def _pooled(self) -> tuple[Tensor, Tensor]:
        """Fits place and scale of the coordinates to each row; returns where chains begin."""
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
        at = torch.arange(len(y), device=y.device), self._drawn(odds)
        return self._coordinates(y[at][:, None])[:, 0], log_p[at]

    def _proposed(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns proposals (C, P, D), log p of them, and the logarithms of their weights."""
        y = self.law.sample(self.draws * count, self.generator)
        y = y.view(len(self.x), count, -1).to(self.seen)
        y = torch.where(self.missing[:, None], y, self.seen[:, None])
        log_p = self.target.log_prob(y, self.context)
        return y, log_p, self._odds(y, log_p)

    def _odds(self, y: Tensor, log_p: Tensor) -> Tensor:
        """Returns log p − log q of completions (C, P, D), far below all others where it is not."""
        log_q = self.law.log_prob(y.view(self.rows, -1, y.shape[2]).double()).view(log_p.shape)
        odds = log_p.double() - log_q
        return torch.where(odds.isfinite(), odds, NOWHERE)

    def _drawn(self, odds: Tensor) -> Tensor:
        """Returns one of each row of (C, P), by their weights."""
        gumbel = -(-uniform(odds.shape, odds, self.generator).clamp(1e-30).log()).log()
        return (odds + gumbel).argmax(1)

    def _coordinates(self, y: Tensor) -> Tensor:
        """Returns q of completions with shape (C, P, D)."""
        whole = self.scale + torch.diag_embed((~self.missing).to(self.scale))
        away = torch.where(self.missing[:, None], y - self.centre[:, None], 0.0)
        return torch.linalg.solve_triangular(whole, away.mT, upper=False).mT

    def _move(self, *, leaps: bool) -> Tensor | None:
        """Makes one step; returns the acceptance of its leapfrogs, if there are any."""
        accepted = self._leapfrogs() if leaps else None
        self._jump()
        if self.target.grid:
            self._refresh()
        self.tell()
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
        taken = self._taken(gain)
        self.q = torch.where(taken.unsqueeze(1), q, self.q)
        self.log_p = torch.where(taken, log_p, self.log_p)
        return gain.nan_to_num(-math.inf).clamp(max=0).exp()

    def _jump(self) -> None:
        """Draws one of new proposals and the present by their weights."""
        y, log_p, odds = self._proposed(PROPOSALS)
        here = self._y(self.q)[:, None]
        own = self._odds(here, self.log_p[:, None])
        chosen = self._drawn(torch.cat([own, odds], 1))
        at = torch.arange(len(y), device=y.device), (chosen - 1).clamp(min=0)
        taken = chosen > 0
        self.q = torch.where(taken[:, None], self._coordinates(y[at][:, None])[:, 0], self.q)
        self.log_p = torch.where(taken, log_p[at], self.log_p)

    def _refresh(self) -> None:
        """Proposes other points of the cells in which observed columns of grids are."""
        x = self.target.flow.dequantize(self.x, generator=self.generator)
        x = torch.where(self.missing, self.completed, x)
        y, log_det = self.target.behind(x)
        other = torch.where(self.missing, self._y(self.q), y)
        log_p = self.target.log_prob(other[:, None], self.context)[:, 0]
        taken = self._taken(log_p + log_det - self.log_p - self.log_det)
        rows = taken.unsqueeze(1)
        self.seen = torch.where(rows, other, self.seen)
        self.completed = torch.where(rows, x, self.completed)
        self.log_p = torch.where(taken, log_p, self.log_p)
        self.log_det = torch.where(taken, log_det, self.log_det)

    def _taken(self, gain: Tensor) -> Tensor:
        """Returns which proposals are accepted, by Metropolis and Hastings; none that is NaN."""
        least = gain.nan_to_num(-math.inf, neginf=-math.inf)
        return uniform(gain.shape, gain, self.generator).log() < least

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
