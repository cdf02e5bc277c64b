r"""How far a learnt score is from the true one, with a few far errors and without.

With errors :math:`e = \|\hat s(x) - s(x)\|` at points x of probability w:

.. math:: L_2 = \sqrt{E e^2}, \qquad D^\delta = \inf\{e_0 : \Pr[e \ge e_0] \le \delta\}.

By Markov's inequality :math:`D^\delta \le L_2 / \sqrt\delta`, and there is no converse: an error
on mass below δ does not count in :math:`D^\delta`. Multiplied by σ both are without unit.
"""

__all__ = ["THRESHOLDS", "distances", "exceeding", "l2", "quantile", "summary", "survival"]

from collections.abc import Sequence

import torch
from torch import Tensor

from .instances import Score, Stratified

THRESHOLDS = torch.logspace(-3, 2, 51, dtype=torch.float64)
"""Sizes of σ e at which the whole law of an error is told."""


@torch.no_grad()
def distances(learnt: Score, truth: Score, x: Tensor) -> Tensor:
    """Returns ‖ŝ − s‖ with shape (N,), at points with shape (N, D)."""
    return (learnt.score(x) - truth.score(x)).norm(dim=-1)


def l2(errors: Tensor, weights: Tensor, where: Tensor | None = None) -> Tensor:
    """Returns √(E e²), for ``errors`` with shape (..., N) and weights (N,).

    Arguments:
        errors: The errors e.
        weights: The probability of each.
        where: Which of them count, with shape (N,); the others as 0. None: all.
    """
    weights = weights if where is None else weights * where
    return (errors.square() @ weights.to(errors.dtype)).sqrt()


def quantile(errors: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Returns Dᵟ, the (1 − δ)-quantile, for ``errors`` with shape (..., N) and weights (N,).

    Raises:
        ValueError: unless 0 ≤ δ < 1.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta: found {delta}, expected 0 ≤ delta < 1")
    sizes, mass = survival(errors, weights)
    index = (mass <= delta).sum(-1, keepdim=True).clamp(max=sizes.shape[-1] - 1)
    return sizes.gather(-1, index).squeeze(-1)


def survival(errors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the errors from the largest on, and Pr[e ≥ each of them], with shape (..., N)."""
    sizes, order = errors.sort(dim=-1, descending=True)
    return sizes, weights.double()[order].cumsum(-1)


def exceeding(errors: Tensor, weights: Tensor, thresholds: Tensor) -> Tensor:
    """Returns Pr[e ≥ t] at each threshold, with shape (..., thresholds)."""
    sizes, mass = survival(errors, weights)
    places = thresholds.to(sizes).expand(*sizes.shape[:-1], -1).contiguous()
    count = torch.searchsorted(-sizes, -places, right=True)
    return torch.cat([torch.zeros_like(mass[..., :1]), mass], -1).gather(-1, count)


def summary(
    errors: Tensor, test: Stratified, sigma: float, deltas: Sequence[float]
) -> dict[str, Tensor]:
    """Returns what is told of errors with shape (..., N), times σ, each with shape (...).

    ``sigma_l2``, of bulk and far mode together and of each, ``sigma_d_DELTA`` for every δ, and
    ``exceeding``, with shape (..., 51), at ``THRESHOLDS``.
    """
    scaled, weights = sigma * errors, test.weights
    far = test.component > 0
    return {
        "sigma_l2": l2(scaled, weights),
        "sigma_l2_bulk": l2(scaled, weights, ~far),
        "sigma_l2_far": l2(scaled, weights, far),
        **{f"sigma_d_{delta:g}": quantile(scaled, weights, delta) for delta in deltas},
        "exceeding": exceeding(scaled, weights, THRESHOLDS),
    }
