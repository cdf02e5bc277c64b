r"""Preprocessing layers: dequantization of integers, the logit, affine normalization.

Integers 0 … L − 1 plus uniform noise are reals in [0, L). With a margin of m at both ends their
logit is

.. math:: f(x) = \frac{1}{a} \left[ \log(m + k x) - \log(m + k (L - x)) \right],
    \qquad k = (1 - 2 m) / L.

Unlike in logit(m + k x), no digits cancel at either end.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from ..randomness import Generator, noise
from .activations import Elementwise
from .base import Bijection, ConstantJacobian, sum_event


class Dequantizer(Bijection):
    """A first layer that adds noise to discrete values.

    With u uniform on the unit cube, E log p(x + u) ≤ log P(x): the density of dequantized data is
    a lower bound of the log-probability of discrete data. As a bijection of dequantized data the
    layer is the identity. Its inverse returns the discrete values.
    """

    noisy = True  #: True if some values get noise

    def forward(self, x: Tensor) -> Tensor:
        return x

    def dequantize(self, x: Tensor, like: Tensor, generator: Generator) -> Tensor:
        """Returns ``x`` with noise from ``generator``, in the dtype of ``like``."""
        u = noise(x, like, generator) if self.noisy else like.new_zeros(())
        return self.add_noise(x, like, u)

    @abstractmethod
    def add_noise(self, x: Tensor, like: Tensor, noise: Tensor) -> Tensor:
        """Returns ``x`` with noise in [0, 1), in the dtype of ``like``."""

    def off_grid(self, x: Tensor) -> Tensor:
        """Returns True for values of rows of columns that had only other values, (N, *event)."""
        return torch.zeros_like(x, dtype=torch.bool)


class Dequantize(Dequantizer, ConstantJacobian):
    """Dequantization of integers 0 … levels − 1 to reals in [0, levels).

    Rows with a value that is no integer are used as they are.
    """

    pixelwise = True

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels: found {levels}, expected at least 2")
        self.levels = levels

    def check(self, x: Tensor) -> None:
        """Raises ValueError for a value outside [0, levels)."""
        if x.numel() and (x.dtype != torch.uint8 or self.levels < 256):
            low, high = torch.stack(x.detach().aminmax()).tolist()
            if not (low >= 0 and high < self.levels):
                raise ValueError(
                    f"x: found values in [{low:g}, {high:g}], expected [0, {self.levels}) of "
                    f"{self.levels} levels"
                )

    def add_noise(self, x: Tensor, like: Tensor, noise: Tensor) -> Tensor:
        y = x.to(like)
        before = (y + 1) * (1 - torch.finfo(like.dtype).eps / 2)  # the next number below y + 1
        dequantized = torch.minimum(y + noise, before)
        if not x.is_floating_point():
            return dequantized
        whole = (x == x.floor()).flatten(1).all(1)
        return torch.where(whole.view(-1, *[1] * (x.ndim - 1)).to(y.device), dequantized, y)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the integer below, clamped to the levels."""
        return y.floor().clamp(0, self.levels - 1)

    linear = transpose = forward

    def log_det(self) -> Tensor:
        return torch.zeros(())


class Logit(Elementwise):
    r"""The logit of the module's docstring on [0, L], and its tangents at 0 and at L outside.

    It is a bijection of the whole line with a continuous slope. With the nearest point c in
    [0, L],

    .. math:: f(x) = f(c) + (x - c) f'(c), \qquad f'(c) = \frac{k}{a \, l \, r}, \quad
        l = m + k c, \; r = m + k (L - c).

    Outside, ψ' = ψ'' = 0; at the ends they are those of the inside.

    Arguments:
        scale: The divisor a > 0; the paper uses 0.5 for dense networks.
        upper: L, the upper end of the data's range.
        margin: m in (0, 1/2), the distance of the data from 0 and 1 before the logit.
    """

    pixelwise = True

    def __init__(self, scale: float = 1.0, *, upper: float = 1.0, margin: float = 1e-6) -> None:
        super().__init__()
        if not (scale > 0 and upper > 0):
            raise ValueError(f"scale, upper: found {scale}, {upper}, expected positive numbers")
        if not 0 < margin < 0.5:
            raise ValueError(f"margin: found {margin}, expected a number in (0, 1/2)")
        self.scale, self.upper, self.margin = scale, upper, margin
        self.slope = (1 - 2 * margin) / upper

    def value(self, x: Tensor) -> Tensor:
        c = self._inside(x)
        left, right = self._sides(c)
        tangent = (x - c) * (self.slope / self.scale) / (left * right)
        return (left.log() - right.log()) / self.scale + tangent

    def derivatives(self, x: Tensor, order: int) -> tuple[Tensor, ...]:
        c = self._inside(x)
        left, right = self._sides(c)
        d1 = self.slope / self.scale / (left * right)
        if order == 1:
            return (d1,)
        curved, left, right = x == c, self.slope / left, self.slope / right
        return (d1, (right - left) * curved, (left**2 + right**2) * curved)[:order]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x, of which the distance to the nearer end of the range is exact."""
        near = (torch.sigmoid(-self.scale * y.abs()) - self.margin) / self.slope
        c = self._inside(torch.where(y < 0, near, self.upper - near))
        left, right = self._sides(c)
        rest = y - (left.log() - right.log()) / self.scale
        return c + rest * (left * right) * (self.scale / self.slope)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x, and Σ log f'(x) from y itself: x has rounded near the ends of the range."""
        left, right = (
            torch.sigmoid(sign * self.scale * y).clamp(self.margin, 1 - self.margin)
            for sign in (1, -1)
        )
        log_slope = math.log(self.slope / self.scale) - left.log() - right.log()
        return self.inverse(y), sum_event(log_slope, y)

    def _inside(self, x: Tensor) -> Tensor:
        return x.clamp(min=0.0).clamp(max=self.upper)  # ONNX has no operator of two ends

    def _sides(self, c: Tensor) -> tuple[Tensor, Tensor]:
        return self.margin + self.slope * c, self.margin + self.slope * (self.upper - c)


class Affine(ConstantJacobian):
    """The affine normalization of every element, y = (x − shift) · exp(log_scale).

    Shift and scale > 0 have shape (*event) or are broadcastable to it. They are parameters if
    ``trainable``, buffers otherwise, of torch's default type unless ``dtype`` is another one.
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
        hold = nn.Parameter if trainable else nn.Buffer
        self.shift, self.log_scale = hold(shift.clone()), hold(scale.log())

    @property
    def pixelwise(self) -> bool:
        return self.shift.numel() == self.log_scale.numel() == 1

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) * self.log_scale.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() + self.shift

    def linear(self, v: Tensor) -> Tensor:
        return v * self.log_scale.exp()

    transpose = linear

    def log_det(self) -> Tensor:
        count = math.prod(self.event_shape) // self.log_scale.numel()
        return self.log_scale.sum() * count


class ActNorm(Affine):
    """A trainable affine layer of every channel, which starts by standardizing a batch.

    After ``initialize`` every channel of the batch has mean 0 and variance 1; a constant channel
    has the same scale. Before, the layer is the identity. Events have shape (C, *): a vector's
    elements are its channels.

    Source: Glow (Kingma, Dhariwal, 2018), arXiv:1807.03039.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels = (shape[0], *[1] * (len(shape) - 1))
        super().__init__(torch.zeros(channels), torch.ones(channels), shape, trainable=True)
        self.register_buffer("seen", torch.tensor(False))

    @property
    def initialized(self) -> bool:
        return bool(self.seen)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        deviation, mean = torch.std_mean(x, dim=[0, *range(2, x.ndim)], correction=0, keepdim=True)
        self.shift.copy_(mean[0])
        self.log_scale.copy_(-torch.where(deviation > 0, deviation, 1.0).log()[0])
        self.seen.fill_(True)
