r"""Finite classes of random scores around an easy truth: N(0, V I) with V = 1.

A hypothesis is the true score but on its own slab of probability p, on which it is off by
:math:`2 \epsilon / \sigma`:

.. math:: h_j(x) = s(x) + \frac{2 \epsilon}{\sigma}\, w_j\, 1[a_j \le \Phi(v_j \cdot x) < a_j + p],

with random unit vectors v and w. If p = 1 it is a random shift of all of space. With the residual
:math:`n = y - s(x)` of the labels, which is N(0, τ²/(σ² V) I) at any x, the sum of losses over
that of the truth is

.. math:: \sum_{i \in j} \frac{4 \epsilon^2}{\sigma^2}
    - \frac{4 \epsilon}{\sigma}\, w_j \cdot n_i,

over the samples in the slab of j. So one hypothesis has less loss than the truth with probability
:math:`\bar\Phi(\sqrt{p m}\, \epsilon \sqrt V / \tau)`. With k independent ones the chance that
none has is q at

.. math:: m = \frac{\tau^2}{\epsilon^2 V p}\, \bigl[\Phi^{-1}(q^{1/k})\bigr]^2
    \to \frac{2 \tau^2}{\epsilon^2 V p} \log k,

which does not depend on the dimension.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, bounds m by (d + log 1/δₜ) log(|H|/δₜ) / (ε² δ) up to logarithms;
the class is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..randomness import normal, uniform
from .instances import HALF

MASS = 1.2  # Probability of a slab over the δ of the quantile that must see its error


@dataclass(frozen=True)
class RandomClass:
    """The hypotheses, without the truth."""

    error: float  #: 2 ε, the error on a slab, multiplied by σ
    mass: float  #: p, the probability of a slab
    lows: Tensor  #: a, the lower quantiles of slabs, with shape (H,)
    normals: Tensor  #: v, with shape (H, d)
    directions: Tensor  #: w, with shape (H, d)

    @classmethod
    def sampled(
        cls, count: int, size: int, *, epsilon: float, mass: float, generator: torch.Generator
    ) -> "RandomClass":
        """Returns ``count`` hypotheses in ``size`` dimensions.

        Raises:
            ValueError: unless 0 < mass ≤ 1.
        """
        if not 0 < mass <= 1:
            raise ValueError(f"mass: found {mass}, expected 0 < mass ≤ 1")
        like = torch.zeros((), dtype=torch.float64)
        lows = uniform((count,), like, generator) * (1 - mass)
        normals = _unit((count, size), like, generator)
        directions = _unit((count, size), like, generator)
        return cls(2 * epsilon, mass, lows, normals, directions)

    def excess(self, x: Tensor, residual: Tensor, sizes: Sequence[int]) -> Tensor:
        """Returns the sums of losses over those of the truth, with shape (sizes, H).

        Cost: O(N H d) for N samples; O((N + sizes · H) d) if p = 1.

        Arguments:
            x: Noisy samples with shape (N, d).
            residual: y − s(x), with shape (N, d).
            sizes: The increasing m, N at most.
        """
        last = torch.as_tensor(sizes) - 1
        off = self.error / HALF
        if self.mass == 1:
            gains = residual.cumsum(0)[last] @ self.directions.mT
            return off**2 * (last + 1)[:, None] - 2 * off * gains
        inside = self._inside(x)
        losses = off**2 - 2 * off * residual @ self.directions.mT
        return (inside * losses).cumsum(0)[last]

    def _inside(self, x: Tensor) -> Tensor:
        """Returns True for the points in each slab, with shape (N, H)."""
        u = torch.special.ndtr(x @ self.normals.mT)
        return (u >= self.lows) & (u < self.lows + self.mass)


def easy_samples(n: int, size: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns samples x of N(0, I) in ``size`` dimensions, and the residuals y − s(x).

    They are created as in training: x = x₀ + σ z with x₀ from N(0, τ² I), and y = −z / σ.
    """
    like = torch.zeros((), dtype=torch.float64)
    z = normal((n, size), like, generator)
    x = HALF * normal((n, size), like, generator) + HALF * z
    return x, x - z / HALF


def class_crossing(rivals: float, epsilon: float, mass: float = 1.0, level: float = 0.5) -> float:
    """Returns the m from which on no one of ``rivals`` has less loss than the truth.

    With probability ``level``, if they are independent.
    """
    z = torch.special.ndtri(torch.tensor(level ** (1 / rivals), dtype=torch.float64))
    return float(z) ** 2 * HALF**2 / (epsilon**2 * mass)


def _unit(shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Returns random vectors of norm 1."""
    found = normal(shape, like, generator)
    return found / found.norm(dim=1, keepdim=True)
