r"""The marginal likelihood of rows with missing values, by importance sampling.

.. math::
    p(y_o) = \int p(y_o, y_m) \, dy_m \approx \frac1M \sum_k w_k, \qquad
    w_k = \frac{p(y_o, y_m^{(k)})}{q(y_m^{(k)} \mid y_o)}.

The proposals are samples of the mixture of Gaussians of ``Target``. Half of those of missing
categories :math:`c` are the flow's own instead: each level given those before it. The density of
both halves is that of their mixture,

.. math:: q(y_m \mid y_o) = \tfrac12 \left[ g(c \mid y_o) + p(c) \right] g(x_m \mid c, y_o),

with g of the Gaussians, and p(c) the product of the missing categories' probabilities.

The standard error of :math:`\log p(y_o)` is that of the mean of the weights, relative to the mean
(the delta method). It is too small if a few weights dominate, and infinite if all are 0. The
random numbers of a row are a hash of its values.

Source: Optimally Combining Sampling Techniques for Monte Carlo Rendering (Veach, Guibas, 1995),
SIGGRAPH, for proposals of two kinds.
"""

__all__ = ["has_missing", "marginals"]

import math
from dataclasses import replace

import torch
from torch import Tensor

from .bijections import Categorical, Cells
from .bijections.weighted import fixed_weights
from .errors import warn
from .flow import Flow
from .points import TINY, Points, completed, impossible, log_density, outside, points, uniform
from .target import Target

PROPOSALS, ROWS = 256, 64
"""Proposals of a row, and rows at a time."""

POOR = 0.3
"""Standard error from which on an estimate is poor: about ten proposals have all the weight."""


def has_missing(flow: Flow, x: Tensor) -> bool:
    """Returns True if a flow can score rows, and some have missing values."""
    if torch.compiler.is_compiling() or len(flow.event_shape) != 1:
        return False
    return isinstance(flow.dequantizer, Cells | None) and bool(x.isnan().any())


@torch.no_grad()
def marginals(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns estimates of log p of the observed values of rows, and standard errors, (N,) each.

    Cost: 256 energies for each row, and once a mixture of Gaussians for the flow.

    Arguments:
        flow: The flow, of rows (D,).
        x: Raw rows with shape (N, D), NaN where a value is missing.
        context: The contexts of the rows, with shape (N, C); None for a flow without.
    """
    results = [x.new_zeros(2, 0, dtype=flow.dtype)]
    with fixed_weights(flow):
        target = Target.of(flow)
        for part in torch.arange(len(x), device=x.device).split(ROWS):
            own = None if context is None else context[part]
            results.append(_estimated(target, x[part], own))
    log_p, error = torch.cat(results, 1)
    if poor := int((error > POOR).sum()):
        warn(
            f"log_prob: found standard errors above {POOR} in {poor} of {len(x)} rows with "
            "missing values: their log p is poorly known; see log_prob_and_error"
        )
    return log_p, error


def _estimated(target: Target, x: Tensor, context: Tensor | None) -> Tensor:
    at = points(target, x, x.isnan(), context, PROPOSALS, refresh=False)
    at = _proposed(target, at)
    log_w = target.log_prob(at.z, context) + at.log_weights - target.rest.log_normalizer()
    log_w = log_w.double().nan_to_num(-math.inf).masked_fill(outside(target, at), -math.inf)
    log_mean = log_w.logsumexp(1) - math.log(PROPOSALS)
    relative = (log_w - log_mean[:, None]).exp()
    error = (relative.std(1) / math.sqrt(PROPOSALS)).nan_to_num(math.inf)
    never = impossible(target, at)
    log_mean, error = log_mean.masked_fill(never, -math.inf), error.masked_fill(never, 0.0)
    return torch.stack([log_mean, error]).to(target.preprocessing.dtype)


def _proposed(target: Target, at: Points) -> Points:
    """Returns points whose missing elements are proposals."""
    first, columns = completed(target, at), list(target.categories)
    if not at.unknown[:, columns].any():
        return first
    real = at.unknown.clone()
    real[:, columns] = False
    own = (torch.arange(PROPOSALS, device=real.device) % 2 == 0)[None, :, None]
    levels, log_p = _levels(target, first, columns, own)
    z = first.z.clone()
    z[..., columns] = levels
    given = target.condition(z, real, at.context)
    u, v = (uniform(at, seed) for seed in (4, 5))
    normal = torch.special.ndtri(v.clamp(TINY, 1 - TINY))
    found = given.completions(u[..., :1], normal[:, :, None])[:, :, 0]
    z = torch.where(own & real[:, None], found.to(z), z)
    log_q = log_density(given, z.double())
    whole = log_density(target.condition(at.own, at.unknown, at.context), z.double())
    log_q = log_q + torch.logaddexp(whole - log_q, log_p.double()) - math.log(2)
    return replace(at, z=z, log_weights=at.log_weights - log_q.to(z))


def _levels(target: Target, at: Points, columns: list[int], own: Tensor) -> tuple[Tensor, Tensor]:
    """Returns categories (R, M, m), those of some points sampled in order, and their log p."""
    context = at.context
    contexts = None if context is None else context.repeat_interleave(PROPOSALS, 0)
    layer = next(x for x in target.rest(contexts).layers if isinstance(x, Categorical))
    missing = at.unknown[:, None, columns].expand(-1, PROPOSALS, -1)
    y, u = at.z[..., columns], uniform(at, 3)[..., columns]
    parts = (t.flatten(0, 1) for t in (y, missing, u, own.expand(len(y), -1, -1)))
    levels, log_p = layer.completed(*parts)
    return levels.view(y.shape), log_p.view(y.shape[:2])
