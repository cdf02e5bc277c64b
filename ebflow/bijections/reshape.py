"""Layers that move elements without changing them: volume is kept, so log |det J| = 0."""

__all__ = ["Permutation", "Reshape", "Squeeze"]

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import ConstantJacobian


class Reshape(ConstantJacobian):
    """Creates the map from events of shape ``source`` to events of shape ``target``.

    Raises:
        ValueError: if the shapes have different numbers of elements.
    """

    def __init__(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        super().__init__()
        if math.prod(source) != math.prod(target):
            raise ValueError(f"reshape: {source} and {target} differ in their number of elements")
        self.source, self.target = tuple(source), tuple(target)

    def extra_repr(self) -> str:
        """Names the two shapes."""
        return f"{self.source} -> {self.target}"

    def _to(self, t: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
        return t.reshape(*t.shape[: t.ndim - len(source)], *target)

    def forward(self, x: Tensor) -> Tensor:
        """Returns x as events of the target shape."""
        return self._to(x, self.source, self.target)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns y as events of the source shape."""
        return self._to(y, self.target, self.source)

    linear, transpose = forward, inverse

    def log_det(self) -> Tensor:
        """Returns zero."""
        return torch.zeros(())


class Permutation(ConstantJacobian):
    """Creates y_i = x_{order[i]} along the last dimension.

    Arguments:
        order: A permutation of 0 … D − 1, with shape (D,).
    """

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        if not torch.equal(order.sort().values, torch.arange(order.numel())):
            raise ValueError("order: expected a permutation of 0 … D − 1")
        self.register_buffer("order", order.clone())
        self.register_buffer("reverse", order.argsort())

    def forward(self, x: Tensor) -> Tensor:
        """Returns x with its last dimension reordered."""
        return x[..., self.order]

    def inverse(self, y: Tensor) -> Tensor:
        """Undoes the reordering."""
        return y[..., self.reverse]

    linear, transpose = forward, inverse

    def log_det(self) -> Tensor:
        """Returns zero."""
        return torch.zeros((), device=self.order.device)


class Squeeze(ConstantJacobian):
    """Creates the map (C, H, W) → (4C, H/2, W/2) of 2×2 pixels into channels (c, dy, dx).

    Arguments:
        shape: (C, H, W), with H and W even.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise ValueError(f"shape: found {tuple(shape)}, expected (C, H, W), H and W even")
        channels, height, width = shape
        self.source = tuple(shape)
        self.target = (4 * channels, height // 2, width // 2)

    def extra_repr(self) -> str:
        """Names the two shapes."""
        return f"{self.source} -> {self.target}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns pixels as channels."""
        return F.pixel_unshuffle(x, 2)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns channels as pixels."""
        return F.pixel_shuffle(y, 2)

    linear, transpose = forward, inverse

    def log_det(self) -> Tensor:
        """Returns zero."""
        return torch.zeros(())
