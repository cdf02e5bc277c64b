r"""Proposals of the missing elements of rows, and the likelihood of the observed ones.

Half of the proposals of missing categories :math:`c` are the flow's own: each level given those
before it. All others are samples of the mixture of Gaussians of ``Target`` given the observed
elements :math:`y_o`. The density of both halves is that of their mixture,

.. math:: q(y_m \mid y_o) = \tfrac12 \left[ g(c \mid y_o) + p(c) \right] g(x_m \mid c, y_o),

with g of the Gaussians, and p(c) the product of the missing categories' probabilities. The mean
of weighted proposals estimates the likelihood:

.. math::
    p(y_o) = \int p(y_o, y_m) \, dy_m \approx \frac1M \sum_k w_k, \qquad
    w_k = \frac{p(y_o, y_m^{(k)})}{q(y_m^{(k)} \mid y_o)}.

The standard error of :math:`\log p(y_o)` is that of the mean of the weights, relative to the mean
(the delta method). It is too small if a few weights dominate, and infinite if all are 0. The
random numbers of a row are a hash of its values, so they do not depend on other rows.

Source: Optimally Combining Sampling Techniques for Monte Carlo Rendering (Veach, Guibas, 1995),
SIGGRAPH, for proposals of two kinds.
"""

__all__ = ["Proposals", "has_missing", "hashed", "marginals"]

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .bijections import Categorical, Cells
from .bijections.weighted import fixed_weights
from .conditioning import Conditional
from .errors import warn
from .flow import Flow
from .randomness import ContentGenerator
from .target import Target

TINY = 1e-12  # Smallest uniform number that becomes a normal one
PROPOSALS = 256  # Proposals of a row for its likelihood
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
        self.target, self.context, self.without = target, context, without
        self.z, self.missing, self.levels = z, missing.clone(), list(target.categories)
        self.columns = [k for k in range(z.shape[2]) if k != without]
        if without is not None:
            self.missing[:, without] = False
        self.real = self.missing.clone()
        self.real[:, self.levels] = False
        self.given = target.condition(z, self.missing, context, without)
        self.both = self.missing[:, self.levels].any(1, keepdim=True)

    def sample(self, uniform: Uniform) -> Tensor:
        """Returns proposals with shape (R, M, D)."""
        z = self._completed(self.given, self.z, self.missing, uniform(1), uniform(2))
        if not self.both.any():
            return z
        levels, own = z[..., self.levels], self.both & (uniform(3)[..., 0] < 0.5)
        z[..., self.levels] = self._levels(levels, uniform(4)[..., self.levels], own)
        given = self.target.condition(z, self.real, self.context, self.without)
        again = self._completed(given, z, self.real, uniform(5), uniform(6))
        return torch.where(self.both[..., None], again, z)

    def log_weights(self, z: Tensor) -> Tensor:
        """Returns −log q of proposals (R, M, D), with shape (R, M); −∞ if one is impossible."""
        y = z[..., self.columns].double()
        log_q = self.given.log_prob(y)
        if self.both.any():  # the two densities of rows without missing categories are equal
            given = self.target.condition(z, self.real, self.context, self.without)
            own = given.log_prob(y) + self._log_levels(z[..., self.levels]).double()
            log_q = torch.logaddexp(log_q, own) - math.log(2)
        beyond = (self.target.outside(z) & self.missing[:, None]).any(2)
        return (-log_q).to(z).masked_fill(beyond, -math.inf)

    def _completed(
        self, given: Conditional, z: Tensor, missing: Tensor, u: Tensor, v: Tensor
    ) -> Tensor:
        """Returns points with samples of their missing elements by uniform numbers (R, M, D)."""
        noise = torch.special.ndtri(v[..., self.columns].double().clamp(TINY, 1 - TINY))
        found = z.expand(v.shape).clone()
        found[..., self.columns] = given.completions(u[..., 0].double(), noise).to(z)
        return torch.where(missing[:, None], found, z)

    def _levels(self, y: Tensor, u: Tensor, own: Tensor) -> Tensor:
        """Returns levels (R, M, m), the missing ones of ``own`` points (R, M) sampled in order."""
        rows = own.nonzero(as_tuple=True)
        missing = self.missing[:, self.levels][rows[0]]
        layer = self._layer(self.context[rows[0]])
        y = y.clone()
        y[rows] = layer.completed(y[rows], missing, u[rows])
        return y

    def _log_levels(self, y: Tensor) -> Tensor:
        """Returns log p of the missing levels, each given those before it, with shape (R, M)."""
        layer = self._layer(self.context.repeat_interleave(y.shape[1], 0))
        log_p = layer.log_levels(y.flatten(0, 1)).view(y.shape)
        return torch.where(self.missing[:, None, self.levels], log_p, 0.0).sum(2)

    def _layer(self, context: Tensor) -> Categorical:
        layers = self.target.given(context).layers
        return next(layer for layer in layers if isinstance(layer, Categorical))


def hashed(target: Target, x: Tensor, count: int, seed: int) -> Tensor:
    """Returns uniform numbers (R, M, D) that depend on the values of a row alone."""
    x, like = target.filled(x), target.z.double()
    return torch.stack([ContentGenerator(seed, k).uniform(x, like) for k in range(count)], 1)


def has_missing(flow: Flow, x: Tensor) -> bool:
    """Returns True if a flow can score rows, and some have missing values."""
    if torch.compiler.is_compiling() or len(flow.event_shape) != 1:
        return False
    return isinstance(flow.dequantizer, Cells | None) and bool(x.isnan().any())


@torch.no_grad()
def marginals(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns estimates of log p of the observed values of rows, and standard errors, (N,) each.

    Cost: 256 energies for each row, and once a mixture of Gaussians for the flow.

    The rows (N, D) are raw, NaN where a value is missing, and have contexts (N, C) or none.
    """
    results = [x.new_zeros(2, 0, dtype=flow.dtype)]
    with fixed_weights(flow):
        target = Target.of(flow)
        contexts = x[:, :0] if context is None else context
        size = target.chunk(PROPOSALS)
        for part in zip(x.split(size), contexts.split(size), strict=True):
            results.append(_estimated(target, *part))
    log_p, error = torch.cat(results, 1)
    if poor := int((error > POOR).sum()):
        warn(
            f"log_prob: found standard errors above {POOR} in {poor} of {len(x)} rows with "
            "missing values: their log p is poorly known; see log_prob_and_error"
        )
    return log_p, error


def _estimated(target: Target, x: Tensor, context: Tensor) -> Tensor:
    z, slopes = target.place(x, hashed(target, x, 1, 0))
    proposals = Proposals(target, z, x.isnan(), context)
    y = proposals.sample(partial(hashed, target, x, PROPOSALS))
    log_slope = torch.where(x.isnan()[:, None], 0.0, slopes).sum(2)
    log_w = target.log_prob(y, context) + log_slope - target.rest.log_normalizer()
    log_w = (log_w + proposals.log_weights(y)).double().nan_to_num(-math.inf, neginf=-math.inf)
    log_mean = log_w.logsumexp(1) - math.log(PROPOSALS)
    relative = (log_w - log_mean[:, None]).exp()
    error = (relative.std(1) / math.sqrt(PROPOSALS)).nan_to_num(math.inf)
    never = target.impossible(x).any(1)
    log_mean, error = log_mean.masked_fill(never, -math.inf), error.masked_fill(never, 0.0)
    return torch.stack([log_mean, error]).to(target.z)
