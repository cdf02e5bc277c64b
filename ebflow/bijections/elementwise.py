r"""Layers that act on every element alone.

For :math:`y_i = f(x_i)` with :math:`f' > 0`, :math:`\psi = \sum_i \log f'(x_i)`; a layer gives
:math:`f`, and :math:`f', \; \psi' = (\log f')', \; \psi''`, so that :math:`f'' = f' \psi'`.
"""

__all__ = ["Affine", "Elementwise", "Logit", "SmoothLeakyReLU"]

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NonFinite
from .base import Bijection, ConstantJacobian, Jet, Linearization, sum_event


class Elementwise(Bijection):
    """An increasing function of every element, with closed-form derivatives."""

    pixelwise = True

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Returns f(x)."""

    @abstractmethod
    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns the first ``order`` of f', (log f')' and (log f')'', each shaped as ``x``."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        return self.value(x)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x) and Σ log f'(x) with shape (B,)."""
        return self.value(x), sum_event(self.derivatives(x, 1)[0].log(), x)

    def linearize(self, x: Tensor) -> Linearization:
        """Returns this layer at ``x``: one evaluation of the derivatives serves every use."""
        return _ElementwiseLinearization(self, x)

    def jet(self, jet: Jet) -> tuple[Jet, Tensor, Tensor]:
        """Applies Faà di Bruno's formula to second order; O(B D)."""
        x, v, a = jet
        d1, psi1, psi2 = self.derivatives(x, 3)
        dv, vv = d1 * v, v * v
        bend = dv * v * psi1 if a is None else d1 * (vv * psi1 + a)
        second = vv * psi2 if a is None else vv * psi2 + psi1 * a
        return Jet(self.value(x), dv, bend), sum_event(psi1 * v, x), sum_event(second, x)


class _ElementwiseLinearization(Linearization):
    def __init__(self, layer: Elementwise, x: Tensor) -> None:
        self.layer, self.x, self.y = layer, x, layer.value(x)
        self._known: tuple[Tensor, ...] = ()

    def _derivatives(self, order: int) -> tuple[Tensor, ...]:
        if len(self._known) < order:
            self._known = self.layer.derivatives(self.x, order)
        return self._known

    def pullback(self, s: Tensor) -> Tensor:
        d1, psi1 = self._derivatives(2)[:2]
        return torch.addcmul(psi1, s, d1)

    def tangent(self, v: Tensor) -> Tensor:
        return v * self._derivatives(3)[0]

    def diagonal(self, s: Tensor) -> tuple[Tensor, Tensor]:
        d1, psi1, psi2 = self._derivatives(3)
        return d1, torch.addcmul(psi2, s, d1 * psi1)

    def curvature(self, v: Tensor, s: Tensor) -> Tensor:
        return sum_event(v * v * self.diagonal(s)[1], self.x)

    def log_det(self) -> Tensor:
        return sum_event(self._derivatives(2)[0].log(), self.x)


class SmoothLeakyReLU(Elementwise):
    r"""Creates f(x) = α x + (1 − α) log(1 + eˣ), plus x if ``residual``.

    Slopes run from α to 1, or from 1 + α to 2 with ``residual``. The inverse is Newton's
    iteration to a relative tolerance of a few units in the last place.

    Arguments:
        alpha: The slope α at −∞, in (0, 1).
        residual: Whether x is added.
    """

    def __init__(self, alpha: float = 0.3, *, residual: bool = False) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: found {alpha}, expected a slope in (0, 1)")
        self.alpha, self.residual = alpha, residual

    def extra_repr(self) -> str:
        """Names the two constants."""
        return f"alpha={self.alpha}, residual={self.residual}"

    def value(self, x: Tensor) -> Tensor:
        """Returns f(x), with one softplus."""
        return torch.add(F.softplus(x) * (1 - self.alpha), x, alpha=self.alpha + self.residual)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f', all from one sigmoid."""
        sigma = torch.sigmoid(x)
        d1 = sigma * (1 - self.alpha) + (self.alpha + self.residual)
        if order == 1:
            return (d1,)
        psi1 = sigma * (1 - sigma) * (1 - self.alpha) / d1
        if order == 2:
            return d1, psi1
        return d1, psi1, psi1 * (1 - 2 * sigma - psi1)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves f(x) = y; raises NonFinite if 50 Newton steps do not, as where y is NaN."""
        low, high = self.alpha + self.residual, 1.0 + self.residual
        x = torch.where(y > 0, y / high, y / low)
        tolerance = 8 * torch.finfo(y.dtype).eps
        for _ in range(50):
            step = (self.value(x) - y) / self.derivatives(x, 1)[0]
            x = x - step
            if (step.abs() <= tolerance * (1 + x.abs())).all():
                return x
        raise NonFinite("SmoothLeakyReLU.inverse: 50 Newton steps did not converge")


class Logit(Elementwise):
    r"""Creates f(x) = logit(x) / a on (0, 1), the map of bounded data to the real line.

    With a margin m it is continued by its tangents, and so a bijection of the whole line with a
    continuous slope: with c the point of [m, 1 − m] nearest to x,

    .. math:: f(x) = \operatorname{logit}(c) / a + (x - c) f'(c), \qquad
        f'(c) = \frac{1}{a \, c \, (1 - c)}.

    Outside [m, 1 − m], ψ' = ψ'' = 0; at its ends they are those of the inside.

    Warning:
        Without a margin, inputs outside (0, 1) raise ValueError: their logit does not exist. With
        one, a density has mass outside (0, 1), where bounded data have none.

    Arguments:
        scale: The divisor a > 0; the paper has 0.5 for dense nets.
        margin: m in (0, 1/2), from where on f is linear; None: it ends at 0 and 1.
    """

    def __init__(self, scale: float = 1.0, *, margin: float | None = None) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale: found {scale}, expected a positive number")
        if margin is not None and not 0 < margin < 0.5:
            raise ValueError(f"margin: found {margin}, expected a number in (0, 1/2) or None")
        self.scale, self.margin = scale, margin

    def extra_repr(self) -> str:
        """Names the divisor and the margin."""
        return f"scale={self.scale}, margin={self.margin}"

    def value(self, x: Tensor) -> Tensor:
        """Returns logit(x) / a, or its tangents beyond the margin."""
        if self.margin is None:
            self._check(x)
            return self._logit(x)
        c = self._inside(x)
        return self._logit(c) + (x - c) * self._slope(c)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' = 1 / (a c (1 − c)) and the derivatives of log f'."""
        c = self._inside(x)
        left, right, curved = 1 / c, 1 / (1 - c), x == c
        return (self._slope(c), (right - left) * curved, (left**2 + right**2) * curved)[:order]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns sigmoid(a y), or the tangents' inverse beyond the margin."""
        c = torch.sigmoid(self.scale * y)
        if self.margin is None:
            return c
        c = self._inside(c)
        return c + (y - self._logit(c)) / self._slope(c)

    def _inside(self, x: Tensor) -> Tensor:
        return x if self.margin is None else x.clamp(self.margin, 1 - self.margin)

    def _logit(self, x: Tensor) -> Tensor:
        return (x.log() - torch.log1p(-x)) / self.scale

    def _slope(self, x: Tensor) -> Tensor:
        return 1 / (self.scale * x * (1 - x))

    def _check(self, x: Tensor) -> None:
        if not ((x > 0) & (x < 1)).all():
            raise ValueError(
                f"logit: found values in [{x.min():.6g}, {x.max():.6g}], expected the open "
                "interval (0, 1)"
            )


class Affine(ConstantJacobian):
    """Creates y = (x − shift) · exp(log_scale), the affine normalisation of every element.

    Arguments:
        shift: The offset, with shape (*event) or broadcastable to it.
        scale: The factor, positive, of the same shape.
        event_shape: The shape of an event; the log-determinant counts its elements.
        trainable: Whether shift and log-scale are parameters; buffers otherwise.
        dtype: Their type; torch's default otherwise.
    """

    def __init__(
        self,
        shift: Tensor | float,
        scale: Tensor | float,
        event_shape: tuple[int, ...],
        *,
        trainable: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        dtype = dtype or torch.get_default_dtype()
        shift, scale = (torch.as_tensor(t, dtype=dtype) for t in (shift, scale))
        if not (scale > 0).all():
            raise ValueError(f"scale: found {scale.min():.6g}, expected positive numbers")
        for name, value in (("shift", shift), ("log_scale", scale.log())):
            value = value.clone()
            if trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def extra_repr(self) -> str:
        """Names the event shape."""
        return f"event_shape={self.event_shape}"

    @property
    def pixelwise(self) -> bool:
        """Whether shift and scale are those of every element."""
        return self.shift.numel() == self.log_scale.numel() == 1

    def forward(self, x: Tensor) -> Tensor:
        """Returns (x − shift) · scale."""
        return (x - self.shift) * self.log_scale.exp()

    def inverse(self, y: Tensor) -> Tensor:
        """Returns y / scale + shift."""
        return y * (-self.log_scale).exp() + self.shift

    def linear(self, v: Tensor) -> Tensor:
        """Returns v · scale."""
        return v * self.log_scale.exp()

    def transpose(self, s: Tensor) -> Tensor:
        """Returns s · scale: the Jacobian is diagonal."""
        return self.linear(s)

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns the log-scale if it is trainable: the shift moves no volume."""
        return [self.log_scale] if self.log_scale.requires_grad else []

    def log_det(self) -> Tensor:
        """Returns Σ log scale over the event."""
        count = math.prod(self.event_shape) // self.log_scale.numel()
        return self.log_scale.sum() * count
