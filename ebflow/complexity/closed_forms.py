"""Closed forms for the hard instances: weights, errors and probabilities.

``instances.py`` derives the formulas. This module needs no torch, because configurations use it.
"""

__all__ = ["HALF", "chance_of_error", "shift_crossing", "step_height", "tail", "worst_eta"]

import math
from statistics import NormalDist

HALF = math.sqrt(0.5)
"""The noise σ and the standard deviation τ of a mode, so that V = τ² + σ² = 1."""


def worst_eta(ratio: float, epsilon: float) -> float:
    """Returns the η at which a missed mode costs exactly 2 ε: ∝ (σ/R)².

    Raises:
        ValueError: if η ≥ 1, because R is too small.
    """
    eta = 16 * epsilon**2 / ratio**2
    if eta >= 1:
        raise ValueError(f"ratio: found {ratio} with epsilon {epsilon}, which needs a weight of "
                         f"{eta:.3g}, expected one below 1")  # fmt: skip
    return eta


def chance_of_error(m: float, eta: float) -> float:
    """Returns ½ (1 − η)ᵐ: the probability of no far sample and a wrong guess of its side."""
    return 0.5 * (1 - eta) ** m


def shift_crossing(rivals: int, epsilon: float, level: float) -> float:
    r"""Returns the m at which ERM identifies N(0, I) among shifts that are off by 2 ε.

    A shift μ, ‖μ‖ = 2 ε/σ, has a smaller loss if m ‖μ‖² < 2 μ · Σ (x + y). The terms are
    independent with the variance ‖μ‖² τ²/σ², so the probability is Φ̄(√m ε/τ). If the rivals are
    independent, the probability that one of them wins falls to 1 − ``level`` at

    .. math:: \sqrt{m} = \frac{\tau}{\epsilon}
        \, \Phi^{-1}\bigl(\mathrm{level}^{1 / \mathrm{rivals}}\bigr),

    so m → 2 (τ/ε)² log(rivals), from below, for many rivals.
    """
    return (HALF / epsilon * NormalDist().inv_cdf(level ** (1 / rivals))) ** 2


def tail(at: float) -> float:
    """Returns 1 − Φ(at)."""
    return 0.5 * math.erfc(at / math.sqrt(2))


def step_height(at: float, epsilon: float) -> float:
    """Returns the S at which σ S √(1 − Φ(t)) = ε: about the L2 error of the step."""
    return epsilon / (HALF * math.sqrt(tail(at)))
