"""What is known of the hard instances without computing: weights, errors and chances.

The formulas are derived in ``instances.py``. No tensors here: a configuration is checked by them.
"""

__all__ = ["HALF", "chance_of_error", "missed_error", "step_height", "tail", "worst_eta"]

import math

HALF = math.sqrt(0.5)
"""σ = τ by default, so that V = 1."""


def worst_eta(ratio: float, epsilon: float, *, sigma: float = HALF, tau: float = HALF) -> float:
    """Returns the η at which a missed mode costs exactly 2 ε: ∝ (σ/R)².

    Raises:
        ValueError: if that is no probability: R is too near.
    """
    eta = 4 * epsilon**2 * ((tau**2 + sigma**2) / sigma**2) ** 2 / ratio**2
    if eta >= 1:
        raise ValueError(f"ratio: found {ratio} with epsilon {epsilon}, which needs a weight of "
                         f"{eta:.3g}, expected one below 1")  # fmt: skip
    return eta


def missed_error(ratio: float, eta: float, *, sigma: float = HALF, tau: float = HALF) -> float:
    """Returns σ times the L2 error of a score that misses the far mode, without unit."""
    return math.sqrt(eta) * ratio * sigma**2 / (tau**2 + sigma**2)


def chance_of_error(m: float, eta: float) -> float:
    """Returns ½ (1 − η)ᵐ: no sample of the far mode was seen, and the guess was wrong."""
    return 0.5 * (1 - eta) ** m


def tail(at: float) -> float:
    """Returns 1 − Φ(at)."""
    return 0.5 * math.erfc(at / math.sqrt(2))


def step_height(at: float, epsilon: float, *, sigma: float = HALF) -> float:
    """Returns the S at which σ S √(1 − Φ(t)) = ε: about the L2 error of the step."""
    return epsilon / (sigma * math.sqrt(tail(at)))
