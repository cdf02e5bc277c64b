"""Closed forms for the hard instances: weights, errors and probabilities.

``instances.py`` derives the formulas. This module needs no torch, because configurations use it.
"""

__all__ = ["HALF", "chance_of_error", "far_crossing", "shift_crossing", "step_height", "tail",
           "worst_eta"]  # fmt: skip

import math
from statistics import NormalDist

HALF = math.sqrt(0.5)
"""σ = τ by default, so that V = 1."""


def worst_eta(ratio: float, epsilon: float, *, sigma: float = HALF, tau: float = HALF) -> float:
    """Returns the η at which a missed mode costs exactly 2 ε: ∝ (σ/R)².

    Raises:
        ValueError: if η ≥ 1, because R is too small.
    """
    eta = 4 * epsilon**2 * ((tau**2 + sigma**2) / sigma**2) ** 2 / ratio**2
    if eta >= 1:
        raise ValueError(f"ratio: found {ratio} with epsilon {epsilon}, which needs a weight of "
                         f"{eta:.3g}, expected one below 1")  # fmt: skip
    return eta


def chance_of_error(m: float, eta: float, candidates: float = 2) -> float:
    """Returns (1 − 1/k) (1 − η)ᵐ: the probability of no far sample and a wrong guess among k."""
    return (1 - 1 / candidates) * (1 - eta) ** m


def far_crossing(eta: float, level: float, candidates: float = math.inf) -> float:
    """Returns the m at which ``chance_of_error`` has fallen to 1 − ``level``.

    It is m* if only the far mode matters: ∝ (R/σ)² at the worst η. Without a far sample, ERM
    guesses one of k equal candidates. Networks have infinitely many, and are never right.
    """
    return math.log((1 - level) / (1 - 1 / candidates)) / math.log1p(-eta)


def shift_crossing(
    rivals: int, epsilon: float, level: float, *, sigma: float = HALF, tau: float = HALF
) -> float:
    r"""Returns the m at which ERM identifies N(0, V I) among shifts that are off by 2 ε.

    A shift μ, ‖μ‖ = 2 ε V/σ, has a smaller loss if m ‖μ‖² < 2 μ · Σ (x + V y). The terms are
    independent with the variance ‖μ‖² τ² V/σ², so the probability is Φ̄(√m ε √V/τ). If the
    rivals are independent, the probability that one of them wins falls to 1 − ``level`` at

    .. math:: \sqrt{m} = \frac{\tau}{\epsilon \sqrt V}
        \, \Phi^{-1}\bigl(\mathrm{level}^{1 / \mathrm{rivals}}\bigr),

    so m → 2 (τ² / ε² V) log(rivals), from below, for many rivals.
    """
    z = NormalDist().inv_cdf(level ** (1 / rivals))
    return (z * tau / epsilon) ** 2 / (tau**2 + sigma**2)


def tail(at: float) -> float:
    """Returns 1 − Φ(at)."""
    return 0.5 * math.erfc(at / math.sqrt(2))


def step_height(at: float, epsilon: float, *, sigma: float = HALF) -> float:
    """Returns the S at which σ S √(1 − Φ(t)) = ε: about the L2 error of the step."""
    return epsilon / (sigma * math.sqrt(tail(at)))
