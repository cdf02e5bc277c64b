"""Uniform dequantisation of integer data."""

__all__ = ["Dequantise"]

import torch
from torch import Tensor

from ..randomness import uniform
from .base import ConstantJacobian


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

    def dequantise(self, x: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
        """Returns ``x`` in the type of ``like``, with noise if all its values are integers.

        Raises:
            ValueError: if a value lies outside [0, levels).
        """
        if x.dtype != torch.uint8 or self.levels < 256:
            self._check(x.detach())
        y = x.to(like)
        if x.is_floating_point() and not torch.equal(x, x.floor()):
            return y
        return torch.minimum(y + uniform(x.shape, like, generator), torch.nextafter(y + 1, y))

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
