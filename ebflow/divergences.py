r"""Divergences of a model q from a density p that is known.

They are means over samples x of p, with standard errors over these. The samples must be
independent of what p or q was fitted to.

* Kullback-Leibler: :math:`\mathrm{KL}(p \| q) = E_p[\log p - \log q]`, in nats;
* Fisher: :math:`F(p \| q) = \tfrac12 E_p \| \nabla \log p - \nabla \log q \|^2`, which needs no
  normalizer.

Both are zero only if p = q. ``repository_kld`` is the "KLD" that the paper's code prints,
:math:`E_p[p \log p - \log q]`. Its first term should be :math:`E_p[\log p]`, but is about zero in
the plane, so that the number is in effect the NLL of q. It serves to compare with published
numbers, and nothing else.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from typing import Protocol

import torch
from torch import Tensor

from .density import LogDensity
from .evaluation import Estimate


class Normalized(Protocol):
    """A density with a known normalizer."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,)."""
        ...


def kl_divergence(p: Normalized, q: Normalized, x: Tensor, *, batch_size: int = 1000) -> Estimate:
    """Returns KL(p ‖ q) in nats; an estimate of zero may be below it by some standard errors.

    Arguments:
        p: The exact density.
        q: The model.
        x: Samples of p with shape (N, *event).
        batch_size: Samples at a time.

    Raises:
        NonFinite: If a log-density is not finite: q vanishes where p does not.
    """
    log_p, log_q = _log_probs(p, q, x, batch_size)
    return Estimate.of(log_p - log_q, name="log p − log q")


def repository_kld(p: Normalized, q: Normalized, x: Tensor, *, batch_size: int = 1000) -> Estimate:
    """Returns E[p log p − log q], which the paper's code prints; else as ``kl_divergence``."""
    log_p, log_q = _log_probs(p, q, x, batch_size)
    return Estimate.of(log_p.exp() * log_p - log_q, name="p log p − log q")


@torch.no_grad()
def fisher_divergence(
    p: LogDensity, q: LogDensity, x: Tensor, *, batch_size: int = 1000
) -> Estimate:
    """Returns ½ E‖∇log p − ∇log q‖², in nats per squared unit of ``x``.

    Arguments are those of ``kl_divergence``, but p and q need no normalizer.

    Raises:
        NonFinite: If a score is not finite.
    """
    terms = []
    for rows in x.split(batch_size):
        difference = (p.score(rows) - q.score(rows)).flatten(1).double()
        terms.append(0.5 * difference.square().sum(1))
    return Estimate.of(torch.cat(terms), name="squared difference of scores")


@torch.no_grad()
def _log_probs(p: Normalized, q: Normalized, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns log p and log q of all rows, with shape (N,), in float64."""
    rows = x.split(size)
    log_p = torch.cat([p.log_prob(part) for part in rows])
    log_q = torch.cat([q.log_prob(part) for part in rows])
    return log_p.double(), log_q.double()
