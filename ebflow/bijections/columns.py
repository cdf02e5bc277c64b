"""Maps of the single columns of a table: bounds and tails.

Their constants have shape (D,), one for each column. They are buffers, not trained.
"""

import torch
from torch import Tensor, nn

from .activations import Elementwise


class Bounded(Elementwise):
    r"""Map of columns with bounds to the real line.

    Between two bounds it is a logit. With one bound it is a logarithm near the bound. At
    distances z s ≫ s it is a line of slope 1, so that its inverse does not grow exponentially:

    .. math:: f(x) = \log(x - a) - \log(b - x), \qquad l = \frac{1}{x - a}, \; r = \frac{1}{b - x},
        \qquad f' = l + r, \; (\log f')' = r - l, \; (\log f')'' = l^2 + r^2,

    .. math:: f(x) = s \log(e^z - 1), \quad z = \frac{x - a}{s}, \qquad
        f' = \frac{1}{1 - e^{-z}}, \; (\log f')' = \frac{-1}{s\, (e^z - 1)}, \;
        (\log f')'' = \frac{e^z}{s^2 (e^z - 1)^2},

    mirrored for an upper bound; f(x) = x without a bound. No sample is at or beyond a bound. To
    score such a value, f is the tangent of ``margin`` inside at the bound. Beyond it, f is a line
    of the least slope inside, 4 / (b − a) or 1.

    The arguments are a (−∞: no lower bound) and b > a (∞: no upper bound). The margin is positive
    and less than half of b − a. Columns with one bound use s > 0.
    """

    def __init__(self, lower: Tensor, upper: Tensor, margin: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not ((margin > 0) & (lower + margin < upper - margin) & (scale > 0)).all():
            raise ValueError(
                f"lower, upper, margin, scale: found {lower}, {upper}, {margin}, {scale}, "
                "expected lower < upper, a positive margin below half of their distance, a "
                "positive scale"
            )
        self.lower, self.upper = nn.Buffer(lower.clone()), nn.Buffer(upper.clone())
        self.margin, self.scale = nn.Buffer(margin.clone()), nn.Buffer(scale.clone())

    def value(self, x: Tensor) -> Tensor:
        c, edge = self._inside(x), x.clamp(self.lower, self.upper)
        curve, slope, *_ = self._at(c)
        y = curve + (edge - c) * slope + (x - edge) * self._least_slope
        return torch.where(torch.logical_or(*self._bounds), y, x)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns the derivatives; those of the logarithm are 0 beyond the margin."""
        c, bounded = self._inside(x), torch.logical_or(*self._bounds)
        _, d1, *psi = self._at(c)
        d1 = torch.where((x < self.lower) | (x > self.upper), self._least_slope, d1)
        curved = bounded & (x == c)
        return (torch.where(bounded, d1, 1.0), *(torch.where(curved, t, 0.0) for t in psi))[:order]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; between two bounds from the nearer one on, so that no digits cancel."""
        low, high = self._bounds
        a, b = torch.where(low, self.lower, 0.0), torch.where(high, self.upper, 0.0)
        far = self.scale * torch.logaddexp(self._sign * y / self.scale, torch.zeros_like(y))
        near = torch.sigmoid(-y.abs()) * (b - a)
        distance = torch.where(low & high, near, far).clamp(min=torch.finfo(y.dtype).tiny)
        x = torch.where(low & (~high | (y < 0)), a + distance, b - distance)
        return torch.where(low | high, x, y)

    def _at(self, c: Tensor) -> list[Tensor]:
        """Returns the logit or the logarithm, and its derivatives as in ``derivatives``."""
        bounds = self._bounds
        left = torch.where(bounds[0], c - self.lower, 1.0)
        right = torch.where(bounds[1], self.upper - c, 1.0)
        z = torch.where(bounds[0], left, right) / self.scale
        near, sign = -torch.exp(-z) / torch.expm1(-z), self._sign
        curve = sign * self.scale * (z + torch.log(-torch.expm1(-z)))
        one = curve, 1 + near, -sign * near / self.scale, near * (1 + near) / self.scale**2
        low, high = left.reciprocal(), right.reciprocal()
        both = left.log() - right.log(), low + high, high - low, low**2 + high**2
        single = torch.logical_xor(*bounds)
        return [torch.where(single, *pair) for pair in zip(one, both, strict=True)]

    @property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        """True for columns with a lower bound, and for those with an upper one."""
        return self.lower.isfinite(), self.upper.isfinite()

    @property
    def _sign(self) -> Tensor:
        """1 of a lower bound, −1 of an upper one."""
        return torch.where(self._bounds[0], 1.0, -1.0).to(self.scale)

    @property
    def _least_slope(self) -> Tensor:
        both = torch.logical_and(*self._bounds)
        return torch.where(both, 4 / (self.upper - self.lower), 1.0)

    def _inside(self, x: Tensor) -> Tensor:
        """Returns points inside the bounds, those of the margin for others."""
        inside = (x > self.lower) & (x < self.upper)
        return x.where(inside, x.clamp(self.lower + self.margin, self.upper - self.margin))


class JohnsonSU(Elementwise):
    r"""Johnson's transformation of columns with heavy or skewed tails to normal ones.

    .. math:: f(x) = \gamma + \delta \operatorname{arsinh} z, \quad z = \frac{x - \xi}{\lambda},
        \qquad f' = \frac{\delta}{\lambda \sqrt{1 + z^2}}, \quad
        (\log f')' = \frac{-z}{\lambda (1 + z^2)}, \quad
        (\log f')'' = \frac{z^2 - 1}{\lambda^2 (1 + z^2)^2}.

    Its slopes fall as 1 / |x|: tails of powers become exponential ones. A column with δ = 0 has
    unchanged tails: f(x) = z.

    Source: Systems of Frequency Curves Generated by Methods of Translation (Johnson, 1949),
    Biometrika 36.

    The arguments are ξ, λ > 0, γ and δ ≥ 0.
    """

    def __init__(self, xi: Tensor, lam: Tensor, gamma: Tensor, delta: Tensor) -> None:
        super().__init__()
        if not ((lam > 0).all() and (delta >= 0).all()):
            raise ValueError(f"lam, delta: found {lam}, {delta}, expected lam > 0, delta ≥ 0")
        self.xi, self.lam = nn.Buffer(xi.clone()), nn.Buffer(lam.clone())
        self.gamma, self.delta = nn.Buffer(gamma.clone()), nn.Buffer(delta.clone())

    def value(self, x: Tensor) -> Tensor:
        z = (x - self.xi) / self.lam
        return torch.where(self.delta > 0, self.gamma + self.delta * torch.asinh(z), z)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns the derivatives, also where z² would overflow."""
        curved, z = self.delta > 0, (x - self.xi) / self.lam
        size = z.detach().abs().clamp(min=1)  # z * z overflows far out
        cosine = ((z / size).square() + size.reciprocal().square()).rsqrt() / size
        sine, slope = z * cosine, cosine / self.lam
        d1 = torch.where(curved, self.delta * slope, 1 / self.lam)
        psi = -sine * slope, (sine - cosine) * (sine + cosine) * slope.square()
        return (d1, *(torch.where(curved, t, 0.0) for t in psi))[:order]

    def inverse(self, y: Tensor) -> Tensor:
        curved = self.delta > 0
        angle = torch.where(curved, (y - self.gamma) / torch.where(curved, self.delta, 1.0), 0.0)
        return self.xi + self.lam * torch.where(curved, torch.sinh(angle), y)
