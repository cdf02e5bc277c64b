r"""Proposals of the missing elements of rows, and the likelihood of the observed ones.

The proposals of missing categories :math:`c` are the flow's own: each level given those before
it. Other elements are samples of the mixture of Gaussians of ``Target``, g, given the observed
elements :math:`y_o` and the categories. The mean of weighted proposals estimates the likelihood:

.. math::
    p(y_o) = \int p(y_o, y_m) \, dy_m \approx \frac1M \sum_k w_k, \qquad
    w_k = \frac{p(y_o, y_m^{(k)})}{q(y_m^{(k)} \mid y_o)}, \qquad
    q(c, x_m \mid y_o) = g(x_m \mid c, y_o) \prod_{j \in c} p(c_j \mid c_{<j}).

The standard error of :math:`\log p(y_o)` is that of the mean of the weights, relative to the mean
(the delta method). It is too small if a few weights dominate, and infinite if all are 0. Rows get
more proposals until it is small. If only a few categories are missing, p is the sum over all of
their levels, and the error counts as 0.

The random numbers of a row are Sobol points shifted by a hash of its values. They do not depend
on other rows, and are more even than independent ones. Densities are means over places in the
cells of observed values, as those of complete rows.

Source: Randomization of Number Theoretic Methods for Multiple Integration (Cranley, Patterson,
1976), SIAM Journal on Numerical Analysis 13, for shifted points.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import chain

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from .bijections import Cells
from .bijections.weighted import fixed_weights
from .conditioning import Conditional
from .distribution import OFF_GRID, PLACES
from .errors import warn
from .flow import Flow
from .randomness import ContentGenerator
from .target import VALUES, Target

TINY = 1e-12  # Smallest uniform number that becomes a normal one
PROPOSALS = 256  # Most proposals of a row for its likelihood, or combinations of its categories
ROUNDS = range(32), range(32, 64), range(64, 128), range(128, PROPOSALS)
SMALL = 0.1  # Standard error from which on a row needs no further proposals
PURPOSES = 4  # Purposes of random numbers
POOR = 0.3  # Standard error of a poor estimate: about ten proposals have all the weight

# A function of the number of a purpose to numbers in [0, 1), with shape (R, M, D).
Uniform = Callable[[int], Tensor]


class Proposals:
    """Proposals of the missing elements of R rows, at M points of each row.

    Arguments:
        z: Observed elements, with shape (R, M, D), or (R, 1, D) if all points have the same.
        missing: True where an element is missing, with shape (R, D).
        context: The contexts of the rows, with shape (R, C).
        without: A column, but no category, that the proposals do not depend on.
    """

    def __init__(
        self,
        target: Target,
        z: Tensor,
        missing: Tensor,
        context: Tensor,
        without: int | None = None,
    ) -> None:
        self.target, self.z, self.context, self.without = target, z, context, without
        self.columns = [k for k in range(z.shape[2]) if k != without]
        self.levels, self.real = missing[:, None, list(target.categories)], missing.clone()
        self.real[:, [*target.categories, *([] if without is None else [without])]] = False
        self.given: Conditional | None = None  # those of sampled points

    def sample(self, uniform: Uniform) -> Tensor:
        """Returns proposals with shape (R, M, D)."""
        u, v = uniform(1)[..., 0].double(), uniform(2)[..., self.columns].double()
        z = self._with_levels(uniform(3)) if self.levels.any() else self.z
        self.given, found = self._given(z), z.expand(*u.shape, -1).clone()
        noise = torch.special.ndtri(v.clamp(TINY, 1 - TINY))
        found[..., self.columns] = self.given.completions(u, noise).to(z)
        return torch.where(self.real[:, None], found, z)

    def log_ratios(self, z: Tensor) -> Tensor:
        """Returns log p − log q of proposals (R, M, D), with shape (R, M)."""
        log_levels = self.target.log_levels(z, self.context)
        log_p = self.target.log_prob(z, self.context, log_levels)
        return log_p.double() + self.log_weights(z, log_levels)

    def log_weights(self, z: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """Returns −log q of proposals (R, M, D), with shape (R, M); −∞ if one is impossible.

        ``log_levels`` is log p of their categories, if it is known.
        """
        log_q = (self.given or self._given(z)).log_prob(z[..., self.columns].double())
        if self.levels.any():
            log_p = self.target.log_levels(z, self.context) if log_levels is None else log_levels
            log_q = log_q + torch.where(self.levels, log_p.double(), 0.0).sum(2)
        beyond = (self.target.outside(z) & self.real[:, None]).any(2)
        return (-log_q).to(z).masked_fill(beyond, -math.inf)

    def _given(self, z: Tensor) -> Conditional:
        return self.target.condition(z, self.real, self.context, self.without)

    def _with_levels(self, u: Tensor) -> Tensor:
        """Returns points (R, M, D) whose missing categories are sampled in order."""
        z, columns = self.z.expand(u.shape).clone(), list(self.target.categories)
        missing = self.levels.expand(-1, u.shape[1], -1).flatten(0, 1)
        layer = self.target.layer(self.context.repeat_interleave(u.shape[1], 0))
        y, u = (t[..., columns].flatten(0, 1) for t in (z, u))
        z[..., columns] = layer.completed(y, missing, u).view(*z.shape[:2], -1)
        return z


@cache
def _points(count: int, width: int) -> Tensor:
    """Returns points of a Sobol sequence for each purpose, the first is 0: (count, P, width)."""
    sequence = SobolEngine(PURPOSES * width).draw(count, dtype=torch.float64)
    return sequence.unflatten(1, (PURPOSES, width))


def hashed(target: Target, x: Tensor, points: range, purpose: int) -> Tensor:
    """Returns uniform numbers (R, M, D) that depend on the values of a row alone.

    They are M points of a Sobol sequence, shifted by a hash of the row.
    """
    shift = ContentGenerator(purpose).uniform(target.filled(x), target.z.double())
    sequence = _points(points.stop, x.shape[1])[points.start :, purpose]
    return (sequence.to(shift) + shift[:, None]) % 1


def has_missing(flow: Flow, x: Tensor) -> bool:
    """Returns True if a flow can score rows, and some have missing values."""
    if torch.compiler.is_compiling() or len(flow.event_shape) != 1:
        return False
    return isinstance(flow.dequantizer, Cells | None) and bool(x.isnan().any())


@torch.no_grad()
def marginals(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns estimates of log p of the observed values of rows, and standard errors, (N,) each.

    Cost: 32 to 256 energies for each row, and once a mixture of Gaussians for the flow.

    The rows (N, D) are raw, NaN where a value is missing, and have contexts (N, C) or none.
    """
    missing, error = x.isnan(), x.new_zeros(len(x), dtype=torch.float64)
    with fixed_weights(flow):
        target = Target.of(flow)
        context = x[:, :0] if context is None else context
        log_p = -OFF_GRID * target.off_grid(x).sum(1).to(error)
        levels = missing[:, list(target.categories)]
        count = torch.tensor(list(target.categories.values())).to(x)
        few = torch.where(levels, count, 1.0).prod(1) <= PROPOSALS
        few &= missing.sum(1) == levels.sum(1)
        log_p[few] += _summed(target, x[few], context[few])
        sampled, error[~few] = _sampled(target, x[~few], context[~few])
        log_p[~few] += sampled
        never, nothing = target.impossible(x).any(1), missing.all(1)
    log_p = log_p.masked_fill(never, -math.inf).masked_fill(nothing, 0.0).to(flow.dtype)
    error = error.masked_fill(never | nothing, 0.0).to(log_p)
    return log_p, error


def warn_of_poor(error: Tensor, incomplete: int) -> None:
    """Warns of standard errors of estimates that are large, of so many incomplete rows."""
    if poor := int((error > POOR).sum()):
        warn(
            f"log_prob: found standard errors above {POOR} in {poor} of {incomplete} rows with "
            "missing values: their log p is poorly known; see log_prob_and_error"
        )


def _placed(target: Target, x: Tensor, points: range) -> tuple[Tensor, Tensor]:
    """Returns observed elements at places in their cells, (R, M, D), and log dz/dx, (R, M).

    M is 1 if densities are the same everywhere in cells.
    """
    u = hashed(target, x, points if target.noisy else range(1), 0)
    z, slopes = target.place(x, u)
    return z, torch.where(x.isnan()[:, None], 0.0, slopes).sum(2)


def _summed(target: Target, x: Tensor, context: Tensor) -> Tensor:
    """Returns log p (R,) of rows (R, D), summed over all levels of missing categories."""
    missing, log_p = x.isnan(), x.new_zeros(len(x)).double()
    for pattern in missing.unique(dim=0):
        rows = (missing == pattern).all(1).nonzero().flatten()
        columns = [k for k in target.categories if pattern[k]]
        levels = [torch.arange(target.categories[k]) for k in columns]
        codes = torch.cartesian_prod(*levels).view(-1, len(columns)).to(target.z)
        for part in rows.split(max(1, VALUES // (PLACES * len(codes) * x.shape[1]))):
            z, slopes = _placed(target, x[part], range(PLACES))
            y = z[:, :, None].repeat(1, 1, len(codes), 1)
            y[..., columns] = codes + 0.5
            log_levels = target.log_levels(y[:, 0], context[part]).repeat(1, z.shape[1], 1)
            log_w = target.log_prob(y.flatten(1, 2), context[part], log_levels).double()
            log_w = log_w.view(y.shape[:3]).logsumexp(2) + slopes
            log_p[part] = log_w.logsumexp(1) - math.log(z.shape[1])
    return log_p


def _sampled(target: Target, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log p of rows (R, D) whose missing elements are sampled, and errors (R,).

    Rounds of proposals end when the standard error is small.
    """
    missing, levels = x.isnan(), list(target.categories)
    sums = x.new_full((2, len(x)), -math.inf).double()  # logarithms, of weights and squares
    log_mean, error = sums[0].clone(), torch.full_like(sums[0], math.inf)
    for points in ROUNDS:
        rows = (error > SMALL).nonzero().flatten()
        both = missing[rows][:, levels].any(1)
        groups = (group.split(target.chunk(len(points))) for group in (rows[both], rows[~both]))
        for part in filter(len, chain(*groups)):
            z, slopes = _placed(target, x[part], points)
            proposals = Proposals(target, z, missing[part], context[part])
            y = proposals.sample(partial(hashed, target, x[part], points))
            log_w = proposals.log_ratios(y) + slopes
            log_w = log_w.nan_to_num(-math.inf, neginf=-math.inf)
            new = torch.stack([log_w.logsumexp(1), (2 * log_w).logsumexp(1)])
            sums[:, part] = torch.logaddexp(sums[:, part], new)
            log_mean[part] = sums[0, part] - math.log(points.stop)
            relative = (sums[1, part] - 2 * log_mean[part]).exp() / points.stop - 1
            error[part] = (relative.clamp(min=0) / (points.stop - 1)).sqrt().nan_to_num(math.inf)
    return log_mean, error
