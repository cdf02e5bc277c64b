r"""The marginal likelihood of rows with missing values, by importance sampling.

.. math::
    p(y_o) = \int p(y_o, y_m) \, dy_m \approx \frac1M \sum_k w_k, \qquad
    w_k = \frac{p(y_o, y_m^{(k)})}{q(y_m^{(k)} \mid y_o)}.

The proposals are samples of the mixture of Gaussians of ``Target``. The standard error of
:math:`\log p(y_o)` is that of the mean of the weights, relative to the mean (the delta method). It
is too small if a few weights dominate. The random numbers of a row are a hash of its values.
"""

__all__ = ["has_missing", "marginals"]

import math

import torch
from torch import Tensor

from .bijections import Cells
from .bijections.weighted import fixed_weights
from .flow import Flow
from .points import completed, impossible, outside, points
from .target import Target

PROPOSALS, ROWS = 256, 64
"""Proposals of a row, and rows at a time."""


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
    return tuple(torch.cat(results, 1))


def _estimated(target: Target, x: Tensor, context: Tensor | None) -> Tensor:
    at = points(target, x, x.isnan(), context, PROPOSALS, refresh=False)
    at = completed(target, at)
    log_w = target.log_prob(at.z, context) + at.log_weights - target.rest.log_normalizer()
    log_w = log_w.double().nan_to_num(-math.inf).masked_fill(outside(target, at), -math.inf)
    log_mean = log_w.logsumexp(1) - math.log(PROPOSALS)
    relative = (log_w - log_mean[:, None]).exp()
    error = (relative.std(1) / math.sqrt(PROPOSALS)).nan_to_num(math.inf)
    never = impossible(target, at)
    log_mean, error = log_mean.masked_fill(never, -math.inf), error.masked_fill(never, 0.0)
    return torch.stack([log_mean, error]).to(target.preprocessing.dtype)
