r"""Activations: increasing functions of every element alone.

For :math:`y_i = f(x_i)` with :math:`f' > 0`, :math:`\psi = \sum_i \log f'(x_i)`. A layer provides
:math:`f` and :math:`f', \; \psi' = (\log f')', \; \psi''`, so that :math:`f'' = f' \psi'`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import NonFinite
from .base import Bijection, Linearization, at_least_float32, sum_event

STEPS = 200  # Most steps of an inverse: Newton's, and a halving for every binary digit
CHECKED = 8  # Steps between two questions whether it has converged, for which a GPU has to stop


class Elementwise(Bijection):
    """An increasing function of every element, with closed-form derivatives."""

    def local(self, x: Tensor, order: int) -> Any:  # noqa: ANN401
        """Returns the shared part of f and ``order`` derivatives at ``x``: ``x``, or more."""
        return x

    @abstractmethod
    def value(self, at: Any) -> Tensor:  # noqa: ANN401
        """Returns f(x) at a ``local``."""

    @abstractmethod
    def derivatives(self, at: Any, order: int) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Returns the first ``order`` of f', (log f')' and (log f')'', each shaped as x."""

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.local(x, 0))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = self.local(x, 1)
        return self.value(at), sum_event(self.derivatives(at, 1)[0].log(), x)

    def linearize(self, x: Tensor) -> Linearization:
        return _ElementwiseLinearization(self, x)


class _ElementwiseLinearization(Linearization):
    def __init__(self, layer: Elementwise, x: Tensor) -> None:
        self.layer, self.x, self._at = layer, x, layer.local(x, 3)
        self.y = layer.value(self._at)
        self._known: tuple[Tensor, ...] = ()

    def _derivatives(self, order: int) -> tuple[Tensor, ...]:
        if len(self._known) < order:
            self._known = self.layer.derivatives(self._at, order)
        return self._known

    def pullback(self, s: Tensor) -> Tensor:
        d1, psi1 = self._derivatives(2)[:2]
        return torch.addcmul(psi1, s, d1)

    def tangent(self, v: Tensor) -> Tensor:
        return v * self._derivatives(3)[0]

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        d1, psi1, psi2 = self._derivatives(3)
        return sum_event(v * v * torch.addcmul(psi2, s, d1 * psi1), self.x)

    def log_det(self) -> Tensor:
        return sum_event(self._derivatives(2)[0].log(), self.x)


class SmoothLeakyReLU(Elementwise):
    r"""Creates f(x) = α x + (1 − α) log(1 + eˣ), plus x if ``residual``.

    Slopes increase from α to 1, or from 1 + α to 2 with ``residual``; α is in (0, 1). With
    ``centred`` it is (f(x) − f(0)) / f'(0), which passes through 0 with slope 1. So data around 0
    have the same mean and scale to first order, and the next layer need not undo a change.
    """

    pixelwise = True

    def __init__(
        self, alpha: float = 0.3, *, residual: bool = False, centred: bool = False
    ) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: found {alpha}, expected a slope in (0, 1)")
        self.alpha, self.residual, self.centred = alpha, residual, centred
        scale = 1 / (0.5 * (1 + alpha) + residual) if centred else 1.0
        self.low, self.rise = scale * (alpha + residual), scale * (1 - alpha)
        self.offset = self.rise * math.log(2) if centred else 0.0

    def value(self, x: Tensor) -> Tensor:
        # PyTorch's default threshold of 20 makes a step down there: not monotone.
        y = torch.add(F.softplus(x, threshold=50) * self.rise, x, alpha=self.low)
        return y - self.offset if self.centred else y

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        sigma = torch.sigmoid(x)
        d1 = sigma * self.rise + self.low
        if order == 1:
            return (d1,)
        psi1 = sigma * (1 - sigma) * self.rise / d1
        if order == 2:
            return d1, psi1
        return d1, psi1, psi1 * (1 - 2 * sigma - psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y to 8 ε (1 + |x|); raises NonFinite for NaN and ∞."""
        target, dtype = at_least_float32(y), y.dtype
        ends = (target + self.offset - bend for bend in (self.rise * math.log(2), 0.0))
        low, high = (torch.minimum(t / self.low, t / (self.low + self.rise)) for t in ends)

        def excess(x: Tensor) -> tuple[Tensor, Tensor]:
            return self.value(x) - target, self.derivatives(x, 1)[0]

        return root(excess, low, high, 1.0).to(dtype)


def root(
    f: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, scale: float
) -> Tensor:
    """Returns the zeros in [low, high] of increasing functions, to 4 ε (scale + |x|).

    ``f`` returns values and slopes. It is Newton's iteration. If a step would leave the interval,
    or is more than half as long as the last one, the interval is halved instead.

    Raises:
        NonFinite: if 200 steps are not enough, as for NaN.
    """
    x, moved, epsilon = 0.5 * (low + high), high - low, 4 * torch.finfo(low.dtype).eps
    every = 1 if low.device.type == "cpu" else CHECKED
    for number in range(1, STEPS + 1):
        excess, slope = f(x)
        low, high = torch.where(excess <= 0, x, low), torch.where(excess >= 0, x, high)
        step = excess / slope
        tolerance, newton = epsilon * (scale + x.abs()), x - step
        safe = (newton > low) & (newton < high) & (step.abs() <= 0.5 * moved)
        new = torch.where(safe | (step.abs() <= tolerance), newton, 0.5 * (low + high))
        moved, x = (new - x).abs(), new
        if not number % every and (moved <= tolerance).all():
            return x
    raise NonFinite(f"inverse of an activation: {STEPS} Newton steps did not converge")
