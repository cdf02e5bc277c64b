r"""What stands in front of a flow: dequantisation, the logit, affine normalisation.

For integers 0 … L − 1, completed by uniform noise to reals in [0, L), the logit of a part m off
the edges is

.. math:: f(x) = \frac{1}{a} \left[ \log(m + k x) - \log(m + k (L - x)) \right],
    \qquad k = (1 - 2 m) / L,

in which, unlike in logit(m + k x), nothing cancels at either end.

The steps of a table's columns have constants of shape (D,), one for every column: buffers, not
trained.
"""

__all__ = ["ActNorm", "Affine", "Bounded", "Dequantise", "DequantiseCategories",
           "DequantiseColumns", "JohnsonSU", "Logit"]  # fmt: skip

import math

import torch
from torch import Tensor, nn

from ..randomness import Generator, uniform
from .activations import Elementwise
from .base import ConstantJacobian, hold, sum_event


class Dequantise(ConstantJacobian):
    """Creates the step from integers 0 … levels − 1 to reals in [0, levels).

    With u uniform on the unit cube, E log p(x + u) ≤ log P(x): the likelihood of the completed
    data bounds the log-mass of the integers from below. As a bijection of completed data it is
    the identity; its inverse rounds down.

    Arguments:
        levels: The number of integer levels, 256 for 8-bit images.
    """

    pixelwise = True

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels: found {levels}, expected at least 2")
        self.levels = levels

    def extra_repr(self) -> str:
        """Names the levels."""
        return f"levels={self.levels}"

    def dequantise(self, x: Tensor, like: Tensor, generator: Generator) -> Tensor:
        """Returns ``x`` in the type of ``like``, with noise on rows whose values are all integers.

        Raises:
            ValueError: if a value lies outside [0, levels).
        """
        if x.numel() and (x.dtype != torch.uint8 or self.levels < 256):
            self._check(x.detach())
        return self.completed(x, like, uniform(x.shape, like, generator))

    def completed(self, x: Tensor, like: Tensor, noise: Tensor) -> Tensor:
        """Returns ``x`` in the type of ``like``, with this noise in [0, 1) on whole rows."""
        y = x.to(like)
        before = (y + 1) * (1 - torch.finfo(like.dtype).eps / 2)  # the next number below y + 1
        completed = torch.minimum(y + noise, before)
        if not x.is_floating_point():
            return completed
        whole = (x == x.floor()).flatten(1).all(1)
        return torch.where(whole.view(-1, *[1] * (x.ndim - 1)).to(y.device), completed, y)

    def _check(self, x: Tensor) -> None:
        low, high = (float(value) for value in x.aminmax())
        if not (low >= 0 and high < self.levels):
            raise ValueError(
                f"x: found values in [{low:g}, {high:g}], expected [0, {self.levels}) of "
                f"{self.levels} levels"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns completed data unchanged."""
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the integer below, clamped to the levels."""
        return y.floor().clamp(0, self.levels - 1)

    linear = transpose = forward

    def log_det(self) -> Tensor:
        """Returns zero."""
        return torch.zeros(())


class Logit(Elementwise):
    r"""Creates the logit above, from (0, L) to the real line.

    With a margin it is continued by its tangents where m + k x leaves [margin, 1 − margin], and
    so a bijection of the whole line with a continuous slope: with c the point nearest to x where
    it has not,

    .. math:: f(x) = f(c) + (x - c) f'(c), \qquad f'(c) = \frac{k}{a \, l \, r}, \quad
        l = m + k c, \; r = m + k (L - c).

    Outside, ψ' = ψ'' = 0; at the ends they are those of the inside.

    Warning:
        Without a margin, inputs where l or r is not positive raise ValueError: their logit does
        not exist. With one, a density has mass where bounded data have none.

    Arguments:
        scale: The divisor a > 0; the paper has 0.5 for dense nets.
        upper: L, the upper end of the data's range.
        inset: m in [0, 1/2), how far the ends of the range are moved inside (0, 1).
        margin: In (0, 1/2), from where on f is linear; None: it is not.
    """

    def __init__(
        self,
        scale: float = 1.0,
        *,
        upper: float = 1.0,
        inset: float = 0.0,
        margin: float | None = None,
    ) -> None:
        super().__init__()
        if not (scale > 0 and upper > 0):
            raise ValueError(f"scale, upper: found {scale}, {upper}, expected positive numbers")
        if not 0 <= inset < 0.5:
            raise ValueError(f"inset: found {inset}, expected a number in [0, 1/2)")
        if margin is not None and not 0 < margin < 0.5:
            raise ValueError(f"margin: found {margin}, expected a number in (0, 1/2) or None")
        self.scale, self.upper, self.inset, self.margin = scale, upper, inset, margin
        self.slope = (1 - 2 * inset) / upper

    def extra_repr(self) -> str:
        """Names the four constants."""
        return f"scale={self.scale}, upper={self.upper}, inset={self.inset}, margin={self.margin}"

    def value(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        if self.margin is None:
            self._check(x)
            return self._logit(x)
        c = self._inside(x)
        left, right = self._sides(c)
        return self._logit(c) + (x - c) * (self.slope / self.scale) / (left * right)

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        """Returns f' = k / (a l r) and the derivatives of log f'."""
        c = self._inside(x)
        left, right = self._sides(c)
        d1 = self.slope / self.scale / (left * right)
        if order == 1:
            return (d1,)
        curved, left, right = x == c, self.slope / left, self.slope / right
        return (d1, (right - left) * curved, (left**2 + right**2) * curved)[:order]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x, of which the distance to the nearer end of the range is exact."""
        near = (torch.sigmoid(-self.scale * y.abs()) - self.inset) / self.slope
        x = torch.where(y < 0, near, self.upper - near)
        if self.margin is None:
            return x
        c = self._inside(x)
        left, right = self._sides(c)
        return c + (y - self._logit(c)) * (left * right) * (self.scale / self.slope)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x, and Σ log f'(x) from y itself: x has rounded near the ends of the range."""
        sides = [torch.sigmoid(sign * self.scale * y) for sign in (1, -1)]
        if self.margin is not None:
            sides = [side.clamp(self.margin, 1 - self.margin) for side in sides]
        log_slope = math.log(self.slope / self.scale) - sides[0].log() - sides[1].log()
        return self.inverse(y), sum_event(log_slope, y)

    def _inside(self, x: Tensor) -> Tensor:
        if self.margin is None:
            return x
        low = (self.margin - self.inset) / self.slope
        return x.clamp(low, self.upper - low)

    def _sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inset + self.slope * x, self.inset + self.slope * (self.upper - x)

    def _logit(self, x: Tensor) -> Tensor:
        left, right = self._sides(x)
        return (left.log() - right.log()) / self.scale

    def _check(self, x: Tensor) -> None:
        if torch.compiler.is_exporting():  # a graph of tensors raises nothing
            return
        left, right = self._sides(x.detach())
        if not ((left > 0) & (right > 0)).all():
            low = -self.inset / self.slope
            raise ValueError(
                f"logit: found values in [{x.min():.6g}, {x.max():.6g}], expected the open "
                f"interval ({low + 0.0:.6g}, {self.upper - low:.6g})"
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
        hold(self, trainable=trainable, shift=shift, log_scale=scale.log())

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


class ActNorm(Affine):
    """Creates a trainable affine layer a channel that ``initialise`` makes standardise a batch.

    Afterwards every channel of that batch has mean 0 and variance 1, and training goes on from
    there; a channel that is constant in it keeps its scale. Until then the layer is the identity.
    Whether it was initialised is part of its state, so that a checkpoint and a copy carry it.

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039.

    Arguments:
        shape: The shape of an event, (C, *); a vector's elements are its channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels = (shape[0], *[1] * (len(shape) - 1))
        super().__init__(torch.zeros(channels), torch.ones(channels), shape, trainable=True)
        self.register_buffer("seen", torch.tensor(False))

    @property
    def initialised(self) -> bool:
        """Whether the layer has seen data."""
        return bool(self.seen)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets shift and scale to the mean and 1 / the standard deviation of every channel."""
        deviation, mean = torch.std_mean(x, dim=[0, *range(2, x.ndim)], correction=0, keepdim=True)
        self.shift.copy_(mean[0])
        self.log_scale.copy_(-torch.where(deviation > 0, deviation, 1.0).log()[0])
        self.seen.fill_(True)


class DequantiseColumns(Dequantise):
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
        super(Dequantise, self).__init__()
        free = torch.full_like(steps, torch.inf)
        hold(self, trainable=False, origin=origin, steps=steps, least=-free, most=free)

    def extra_repr(self) -> str:
        """Names the number of columns that have a step."""
        return f"columns={int((self.steps > 0).sum())} of {len(self.steps)}"

    def end(self, lower: Tensor, upper: Tensor) -> None:
        """Lets the inverse give no point whose step leaves bounds, (D,) each, perhaps infinite."""
        self.least.copy_((self._cells(lower) - 1e-6).ceil())
        self.most.copy_((self._cells(upper) + 1e-6).floor() - 1)

    def dequantise(self, x: Tensor, like: Tensor, generator: Generator) -> Tensor:
        """Returns ``x`` in the type of ``like``, with noise on rows that lie on the grids."""
        if not (self.steps > 0).any():
            return x.to(like)
        return self.completed(x, like, uniform(x.shape, like, generator))

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


class DequantiseCategories(DequantiseColumns):
    r"""Creates the same step of a table in which columns of categories are one-hot.

    With u uniform on [0, 1), a level k is completed to :math:`y = e_k + u`, of which element k
    is the largest: the inverse is the level of the largest element. The log-mass of the levels is
    bounded as that of a grid of step 1.

    Arguments:
        origin: a with shape (D,), 0 of elements of categories.
        steps: h with shape (D,), 1 of elements of categories.
        groups: For each element the number of its column of categories, −1 of one of numbers.
    """

    def __init__(self, origin: Tensor, steps: Tensor, groups: Tensor) -> None:
        super().__init__(origin, steps)
        self.groups = nn.Buffer(groups.clone())

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the level of the largest element, and the point of other grids below."""
        x = super().inverse(y)
        for group in self.groups.unique().tolist():
            if group >= 0:
                some = self.groups == group
                best = y[..., some].argmax(-1)
                x[..., some] = nn.functional.one_hot(best, int(some.sum())).to(x)
        return x


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
