r"""Divergences of a model q from an exact density p, from samples x of p.

* Kullback-Leibler: :math:`\mathrm{KL}(p \| q) = E_p[\log p - \log q]`, in nats;
* Fisher: :math:`F(p \| q) = \tfrac12 E_p \| \nabla \log p - \nabla \log q \|^2`, which needs no
  normaliser. Both are zero only if p = q.

``repository_kld`` is what the official code of EBFlow prints as "KLD",
:math:`E_p[p \log p - \log q]`: the first term, which ought to be :math:`E_p[\log p]`, is
about zero in the plane, so that the number is in effect the NLL of q. It is here to be
compared with published numbers, and for nothing else.

Every estimate has its standard error over the samples. They must be independent of what p or q
was made from.
"""

__all__ = ["fisher_divergence", "kl_divergence", "repository_kld"]

from typing import Protocol

import torch
from torch import Tensor

from .density import LogDensity
from .estimate import Estimate


class Normalised(Protocol):
    """A density whose normaliser is known."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,)."""
        ...


def kl_divergence(p: Normalised, q: Normalised, x: Tensor, *, batch_size: int = 1000) -> Estimate:
    """Returns KL(p ‖ q) in nats; a true one of zero may come out below it by some errors.

    Arguments:
        p: The exact density.
        q: The model.
        x: Samples of p with shape (N, *event).
        batch_size: Samples at a time.

    Raises:
        NonFinite: if a log-density is not finite: q vanishes where p does not.
    """
    log_p, log_q = _log_probs(p, q, x, batch_size)
    return Estimate.of(log_p - log_q, name="log p − log q")


def repository_kld(p: Normalised, q: Normalised, x: Tensor, *, batch_size: int = 1000) -> Estimate:
    """Returns E[p log p − log q], the official code's "KLD"; arguments as ``kl_divergence``."""
    log_p, log_q = _log_probs(p, q, x, batch_size)
    return Estimate.of(log_p.exp() * log_p - log_q, name="p log p − log q")


def fisher_divergence(
    p: LogDensity, q: LogDensity, x: Tensor, *, batch_size: int = 1000
) -> Estimate:
    """Returns ½ E‖∇log p − ∇log q‖², in nats per squared unit of x.

    Arguments are those of ``kl_divergence``, but p and q need no normaliser.

    Raises:
        NonFinite: if a score is not finite.
    """
    with torch.no_grad():
        terms = [_half_square(p.score(rows) - q.score(rows)) for rows in x.split(batch_size)]
    return Estimate.of(torch.cat(terms), name="squared difference of scores")


def _log_probs(p: Normalised, q: Normalised, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        rows = x.split(size)
        log_p, log_q = (torch.cat([d.log_prob(part) for part in rows]) for d in (p, q))
    return log_p.double(), log_q.double()


def _half_square(difference: Tensor) -> Tensor:
    return 0.5 * difference.detach().flatten(1).double().square().sum(1)
