"""Layers that move elements without changing them, and bijections on a part of an event.

The former preserve volume: log |det J| = 0. The latter build multi-scale flows. The base of a flow
covers the whole latent, so elements that later layers skip need no prior of their own. The list of
layers stays flat, so that the normalizer includes every layer with a constant Jacobian.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Bijection, ConstantJacobian, Linearization


class Reshape(ConstantJacobian):
    """Creates the map from events of shape ``source`` to events of shape ``target``.

    It only moves elements: J is a permutation, whose transpose is its inverse.

    Raises:
        ValueError: if the shapes have different numbers of elements.
    """

    def __init__(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        super().__init__()
        if math.prod(source) != math.prod(target):
            raise ValueError(f"reshape: {source} and {target} differ in their number of elements")
        self.source, self.target = tuple(source), tuple(target)

    def extra_repr(self) -> str:
        return f"{self.source} -> {self.target}"

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.ndim - len(self.source)], *self.target)

    def inverse(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape[: y.ndim - len(self.target)], *self.source)

    def linear(self, v: Tensor) -> Tensor:
        return self.forward(v)

    def transpose(self, s: Tensor) -> Tensor:
        return self.inverse(s)

    def log_det(self) -> Tensor:
        return torch.zeros(())


class Squeeze(Reshape):
    """Creates the map (C, H, W) → (4C, H/2, W/2) of 2×2 pixels into channels (c, dy, dx)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise ValueError(f"shape: found {tuple(shape)}, expected (C, H, W), H and W even")
        channels, height, width = shape
        super().__init__(shape, (4 * channels, height // 2, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        return self._moved(F.pixel_unshuffle, x, self.target)

    def inverse(self, y: Tensor) -> Tensor:
        return self._moved(F.pixel_shuffle, y, self.source)

    def _moved(self, f: Callable[..., Tensor], t: Tensor, shape: tuple[int, ...]) -> Tensor:
        # For zero images PyTorch returns the input's shape.
        return f(t, 2) if t.numel() else t.reshape(*t.shape[:-3], *shape)


class Permutation(Reshape):
    """Creates the map of flat events to their elements in the order of these numbers."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__((len(order),), (len(order),))
        self.order = nn.Buffer(torch.tensor(order), persistent=False)

    def extra_repr(self) -> str:
        return f"{self.order.tolist()}"

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.order]

    def inverse(self, y: Tensor) -> Tensor:
        return y[..., self.order.argsort()]


class Part(ConstantJacobian):
    """Creates y = (f(x₁), x₂), with x₁ the leading elements, of this shape, of a flat event x.

    Its Jacobian is constant if that of the layer f is.
    """

    def __init__(self, layer: Bijection, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.constant_jacobian = layer.constant_jacobian
        self.layer, self.size = layer, math.prod(shape)
        self.before, self.after = tuple(shape), tuple(getattr(layer, "target", shape))

    def extra_repr(self) -> str:
        return f"{self.before} -> {self.after}"

    @property
    def initialized(self) -> bool:
        return self.layer.initialized

    def initialize(self, x: Tensor) -> None:
        self.layer.initialize(self.head(x, self.before))

    def head(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Returns the leading elements in a shape; any leading dimensions."""
        return t[..., : self.size].unflatten(-1, shape)

    def joined(self, head: Tensor, t: Tensor) -> Tensor:
        """Returns ``t`` with its leading elements replaced by ``head``, once for each ``head``."""
        flat = head.flatten(t.ndim - 1)
        return torch.cat([flat, t[..., self.size :].expand(*flat.shape[:-1], -1)], -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self.layer(self.head(x, self.before)), x)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.layer.forward_and_log_det(self.head(x, self.before))
        return self.joined(y, x), log_det

    def inverse(self, y: Tensor) -> Tensor:
        return self.joined(self.layer.inverse(self.head(y, self.after)), y)

    def condition(self, context: Tensor) -> Bijection:
        layer = self.layer.condition(context)
        return self if layer is self.layer else Part(layer, self.before)

    def linearize(self, x: Tensor) -> Linearization:
        kind = ConstantJacobian if self.constant_jacobian else Bijection
        return kind.linearize(self, x)

    @property
    def unwrapped(self) -> ConstantJacobian:
        return self.layer.unwrapped

    def log_det(self) -> Tensor:
        return self.layer.log_det()

    def linear(self, v: Tensor) -> Tensor:
        return self.joined(self.layer.linear(self.head(v, self.before)), v)

    def transpose(self, s: Tensor) -> Tensor:
        return self.joined(self.layer.transpose(self.head(s, self.after)), s)
