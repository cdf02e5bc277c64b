r"""Random directions whose mean outer product is the identity.

With :math:`E[v v^\top] = I`, :math:`E[v^\top H v] = \operatorname{tr} H`. Rademacher signs see the
diagonal of H without noise; orthogonal directions do not look the same way twice. The variances
are in ``traces.py``.

Draws have the batch as their first dimension, so that workers that share a batch draw its rows.
"""

__all__ = ["DIRECTIONS", "directions"]

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .randomness import normal, rademacher


def _sphere(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    draw = normal(shape, like, generator)
    return _scaled(draw.flatten(2)).view(shape)


def _orthogonal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Gram and Schmidt's procedure, every row twice: rows of a Haar-distributed matrix."""
    draw = normal(shape, like, generator).flatten(2)
    if shape[1] > draw.shape[2]:
        raise ValueError(
            f"slices: found {shape[1]}, expected at most D = {draw.shape[2]} orthogonal directions"
        )
    basis = draw[:, :0]
    for row in draw.split(1, dim=1):
        for _ in range(2):
            row = row - row @ basis.mT @ basis
        basis = torch.cat([basis, row / row.norm(dim=2, keepdim=True)], 1)
    return _scaled(basis).view(shape)


def _scaled(rows: Tensor) -> Tensor:
    return rows * (math.sqrt(rows.shape[2]) / rows.norm(dim=2, keepdim=True))


DIRECTIONS: dict[str, Callable[[Sequence[int], Tensor, torch.Generator], Tensor]] = {
    "rademacher": rademacher,
    "gaussian": normal,
    "sphere": _sphere,
    "orthogonal": _orthogonal,
}
"""From a shape (B, K, *event) to directions: signs; N(0, I); uniform of norm √D; the same and, of
one example, orthogonal to each other (K ≤ D, O(B D K²))."""


def directions(kind: str, slices: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """Returns directions at ``x`` with shape (K, B, *event).

    Raises:
        ValueError: if there is no such kind, or more orthogonal directions than dimensions.
    """
    if kind not in DIRECTIONS:
        raise ValueError(f"directions: found {kind!r}, expected one of {', '.join(DIRECTIONS)}")
    return DIRECTIONS[kind]((len(x), slices, *x.shape[1:]), x, generator).transpose(0, 1)
