"""The steps of a table's columns: grids, bounds and tails.

They have constants of shape (D,), one for every column: buffers, not trained.
"""

__all__ = ["Bounded", "DequantiseColumns", "JohnsonSU"]

import torch
from torch import Tensor

from ..randomness import Generator, noise
from .activations import Elementwise
from .base import hold
from .preprocessing import Dequantize


class DequantiseColumns(Dequantize):
    r"""Creates the step from columns on ordered grids, :math:`a + h k`, to reals.

    With u uniform on [0, 1), :math:`y = x + h u`: the density of y bounds the log-mass of x from
    below, by :math:`\log P(x) \ge E \log p(x + h u) + \sum \log h` over the columns that have a
    step. As a bijection of completed rows it is the identity; its inverse rounds down to the grid.

    Arguments:
        origin: a with shape (D,).
        steps: h with shape (D,); 0 of a column that is on no grid.
    """

    pixelwise = False

    def __init__(self, origin: Tensor, steps: Tensor) -> None:
        super(Dequantize, self).__init__()
        free = torch.full_like(steps, torch.inf)
        hold(self, trainable=False, origin=origin, steps=steps, least=-free, most=free)

    def extra_repr(self) -> str:
        """Names the number of columns that have a step."""
        return f"columns={int((self.steps > 0).sum())} of {len(self.steps)}"

    def end(self, lower: Tensor, upper: Tensor) -> None:
        """Lets the inverse give no point whose step leaves bounds, (D,) each, perhaps infinite."""
        self.least.copy_((self._cells(lower) - 1e-6).ceil())
        self.most.copy_((self._cells(upper) + 1e-6).floor() - 1)

    def dequantize(self, x: Tensor, like: Tensor, generator: Generator) -> Tensor:
        """Returns ``x`` in the type of ``like``, with noise on rows that lie on the grids."""
        if not (self.steps > 0).any():
            return x.to(like)
        return self.completed(x, like, noise(x, like, generator))

    def completed(self, x: Tensor, like: Tensor, noise: Tensor) -> Tensor:
        """Returns ``x`` in the type of ``like``, with this noise in [0, 1) on rows on grids."""
        known, rows = self.steps > 0, x.to(self.steps.device)
        cells = self._cells(rows)
        tolerance = 1e-6 + 4 * torch.finfo(torch.float32).eps * cells.abs()
        on_grid = (((cells - cells.round()).abs() <= tolerance) | ~known).all(-1, keepdim=True)
        completed = self.origin + (cells.round() + noise * known) * self.steps
        return torch.where(on_grid & known, completed, rows).to(like)

    def _cells(self, x: Tensor) -> Tensor:
        """Returns where in its grid each element is, counted in steps."""
        return torch.where(self.steps > 0, (x - self.origin) / self.steps.clamp(min=1e-300), 0)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the point of the grid below, in columns that have one; none beyond its ends."""
        cells = self._cells(y).floor().clamp(self.least, self.most)
        return torch.where(self.steps > 0, (self.origin + cells * self.steps).to(y), y)


class Bounded(Elementwise):
    r"""Creates the map of columns with bounds to the real line.

    Between two bounds it is a logit; beside one of them a logarithm near it that becomes a line
    of slope 1 at distances z s ≫ s, so that its inverse does not grow as an exponential:

    .. math:: f(x) = \log(x - a) - \log(b - x), \qquad l = \frac{1}{x - a}, \; r = \frac{1}{b - x},
        \qquad f' = l + r, \; (\log f')' = r - l, \; (\log f')'' = l^2 + r^2,

    .. math:: f(x) = s \log(e^z - 1), \quad z = \frac{x - a}{s}, \qquad
        f' = \frac{1}{1 - e^{-z}}, \; (\log f')' = \frac{-1}{s\, (e^z - 1)}, \;
        (\log f')'' = \frac{e^z}{s^2 (e^z - 1)^2},

    mirrored for an upper bound; f(x) = x if there is none. From ``margin`` inside a bound on, and
    beyond it, f goes on as a line: a row outside has a density too.

    Arguments:
        lower: a with shape (D,), −∞ where there is none.
        upper: b > a with shape (D,), ∞ where there is none.
        margin: With shape (D,), positive and less than half of b − a.
        scale: s > 0 with shape (D,), of columns with one bound.
    """

    pixelwise = False

    def __init__(self, lower: Tensor, upper: Tensor, margin: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not ((margin > 0) & (lower + margin < upper - margin) & (scale > 0)).all():
            raise ValueError(
                f"lower, upper, margin, scale: found {lower}, {upper}, {margin}, {scale}, "
                "expected lower < upper, a positive margin below half of their distance, a "
                "positive scale"
            )
        hold(self, trainable=False, lower=lower, upper=upper, margin=margin, scale=scale)

    def extra_repr(self) -> str:
        """Names the number of columns that have a bound."""
        count = int((self.lower.isfinite() | self.upper.isfinite()).sum())
        return f"columns={count} of {len(self.lower)}"

    def value(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        c = self._inside(x)
        left, right = self._distances(c)
        z = torch.where(self._low, left, right) / self.scale
        one = self._sign * self.scale * (z + torch.log(-torch.expm1(-z)))
        bounded = torch.where(self._one, one, left.log() - right.log())
        line = (x - c) * self.derivatives(c, 1)[0]
        return torch.where(self._low | self._high, bounded + line, x)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f', 0 where f is a line."""
        c = self._inside(x)
        left, right = self._distances(c)
        left_slope, right_slope = left.reciprocal(), right.reciprocal()
        z = torch.where(self._low, left, right) / self.scale
        near = -torch.exp(-z) / torch.expm1(-z)
        one = (1 + near, -self._sign * near / self.scale, near * (1 + near) / self.scale**2)
        curved = (self._low | self._high) & (x == c)
        both = (left_slope + right_slope, right_slope - left_slope, left_slope**2 + right_slope**2)
        d1, *psi = (torch.where(self._one, *pair) for pair in zip(one, both, strict=True))
        d1 = torch.where(self._low | self._high, d1, 1.0)
        return (d1, *(torch.where(curved, each, 0.0) for each in psi))[:order]

    @property
    def _low(self) -> Tensor:
        return self.lower.isfinite()

    @property
    def _high(self) -> Tensor:
        return self.upper.isfinite()

    @property
    def _one(self) -> Tensor:
        return self._low ^ self._high

    @property
    def _sign(self) -> Tensor:
        """1 of a lower bound, −1 of an upper one."""
        return torch.where(self._low, 1.0, -1.0).to(self.scale)

    def _distances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x − a and b − x, 1 where there is no such bound."""
        left = torch.where(self._low, x - torch.where(self._low, self.lower, 0.0), 1.0)
        right = torch.where(self._high, torch.where(self._high, self.upper, 0.0) - x, 1.0)
        return left, right

    def _inside(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.lower + self.margin, self.upper - self.margin)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; where it is between two bounds, from the nearer one on."""
        a, b = (torch.where(end.isfinite(), end, 0.0) for end in (self.lower, self.upper))
        far = self.scale * torch.logaddexp(self._sign * y / self.scale, torch.zeros_like(y))
        one = torch.where(self._low, a + far, b - far)
        near = torch.sigmoid(-y.abs()) * (b - a)
        two = torch.where(y < 0, a + near, b - near)
        x = torch.where(self._one, one, torch.where(self._low & self._high, two, y))
        c = self._inside(x)
        line = c + (y - self.value(c)) / self.derivatives(c, 1)[0]
        return torch.where(x == c, x, line)


class JohnsonSU(Elementwise):
    r"""Creates Johnson's transformation of columns with heavy or skewed tails to normal ones.

    .. math:: f(x) = \gamma + \delta \operatorname{arsinh} z, \quad z = \frac{x - \xi}{\lambda},
        \qquad f' = \frac{\delta}{\lambda \sqrt{1 + z^2}}, \quad
        (\log f')' = \frac{-z}{\lambda (1 + z^2)}, \quad
        (\log f')'' = \frac{z^2 - 1}{\lambda^2 (1 + z^2)^2}.

    Its slopes fall as 1 / |x|: tails of powers become exponential ones.

    Source: Systems of Frequency Curves Generated by Methods of Translation (Johnson, 1949),
    Biometrika 36.

    Arguments:
        xi: ξ with shape (D,).
        lam: λ > 0 with shape (D,).
        gamma: γ with shape (D,).
        delta: δ > 0 with shape (D,).
    """

    pixelwise = False

    def __init__(self, xi: Tensor, lam: Tensor, gamma: Tensor, delta: Tensor) -> None:
        super().__init__()
        if not ((lam > 0).all() and (delta > 0).all()):
            raise ValueError(f"lam, delta: found {lam}, {delta}, expected positive numbers")
        hold(self, trainable=False, xi=xi, lam=lam, gamma=gamma, delta=delta)

    def extra_repr(self) -> str:
        """Names the number of columns."""
        return f"columns={len(self.xi)}"

    def value(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        return self.gamma + self.delta * torch.asinh((x - self.xi) / self.lam)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' and the derivatives of log f'."""
        z = (x - self.xi) / self.lam
        size = z.detach().abs().clamp(min=1)  # z * z overflows far out
        cosine = ((z / size).square() + size.reciprocal().square()).rsqrt() / size
        sine, slope = z * cosine, cosine / self.lam
        d1, psi1 = self.delta * slope, -sine * slope
        return (d1, psi1, (sine - cosine) * (sine + cosine) * slope.square())[:order]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns ξ + λ sinh((y − γ) / δ)."""
        return self.xi + self.lam * torch.sinh((y - self.gamma) / self.delta)
