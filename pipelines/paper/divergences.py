r"""Divergences of a model from an exact density, and scores of samples.

Divergences of a model q from an exact density p are estimated from samples x of p, with standard
errors. The samples must be independent of the training rows of q:

* Kullback-Leibler: :math:`\mathrm{KL}(p \| q) = E_p[\log p - \log q]`, in nats;
* Fisher: :math:`F(p \| q) = \tfrac12 E_p \| \nabla \log p - \nabla \log q \|^2`, which needs no
  normalizer. Both are zero only if p = q.
"""

__all__ = ["Normalized", "crps", "fisher_divergence", "kl_divergence"]

from typing import Protocol

import torch
from torch import Tensor

from ebflow.density import LogDensity
from ebflow.estimates import Estimate


class Normalized(Protocol):
    """A normalized density."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,)."""
        ...


def kl_divergence(p: Normalized, q: Normalized, x: Tensor, *, batch_size: int = 1000) -> Estimate:
    """Returns KL(p ‖ q) in nats; the estimate of a small value may be negative.

    Arguments:
        p: The exact density.
        q: The model.
        x: Samples of p with shape (N, *event).
        batch_size: Samples at a time.

    Raises:
        NonFinite: if a log-density is not finite, for example because q(x) = 0.
    """
    log_p, log_q = _log_probs(p, q, x, batch_size)
    return Estimate.of(log_p - log_q, name="log p − log q")


def fisher_divergence(
    p: LogDensity, q: LogDensity, x: Tensor, *, batch_size: int = 1000
) -> Estimate:
    """Returns ½ E‖∇log p − ∇log q‖², in nats per squared unit of x.

    Arguments are as in ``kl_divergence``, but p and q need no normalizer.

    Raises:
        NonFinite: if a score is not finite.
    """
    with torch.no_grad():
        terms = [
            0.5 * (p.score(rows) - q.score(rows)).flatten(1).double().square().sum(1)
            for rows in x.split(batch_size)
        ]
    return Estimate.of(torch.cat(terms), name="squared difference of scores")


def _log_probs(p: Normalized, q: Normalized, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        rows = x.split(size)
        log_p, log_q = (torch.cat([d.log_prob(part) for part in rows]) for d in (p, q))
    return log_p.double(), log_q.double()


@torch.no_grad()
def crps(draws: Tensor, y: Tensor) -> Tensor:
    r"""Returns the continuous ranked probability score of every element of ``y`` (N, D).

    It is :math:`E|X - y| - \tfrac12 E|X - X'|`, estimated without bias from K samples (N, K, D).
    The score of a point prediction is its absolute error.

    Source: Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting, Raftery, 2007).

    Raises:
        ValueError: if there are fewer than two samples per row.
    """
    count, sorted_ = draws.shape[1], draws.sort(1).values
    if count < 2:
        raise ValueError(f"draws: found {count} of each row, expected at least 2")
    ranks = 2 * torch.arange(count, dtype=draws.dtype, device=draws.device) - (count - 1)
    spread = torch.einsum("k,nkd->nd", ranks, sorted_) / (count * (count - 1))
    return (draws - y.unsqueeze(1)).abs().mean(1) - spread
