r"""The trace of the Jacobian of a score, exactly.

In general :math:`\operatorname{tr} \nabla s = \sum_k e_k^\top \nabla s\, e_k`: D tangent sweeps.

A chain in which one layer alone is bent, and acts on every element alone (dense – activation –
dense), has a closed form. Let A be the Jacobian of what stands before that layer and C of what
stands behind it, both constant, :math:`f` the layer and :math:`s` the score over its output:

.. math::
    \operatorname{tr} \nabla s_x = -f'^\top \left[ (A A^\top) \circ (C^\top C) \right] f'
        + \operatorname{diag}(A A^\top)^\top \left( s \circ f'' + \psi'' \right).

The two Gram matrices are one for all rows of a batch; nothing is factorised. Without such a layer
the trace is :math:`-\|A\|_F^2`.
"""

__all__ = ["closed_laplacian", "trace"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .bijections.base import Bijection, ConstantJacobian, Linearization, units

ELEMENTS = 2**22
"""Elements of the tangents that are carried at a time."""


def trace(curvature: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns Σ_k e_k·∇s·e_k with shape (B,), by D directions, a part of them at a time.

    While gradients are recorded, all parts are kept for the backward pass: O(B D²) numbers a
    layer.

    Arguments:
        curvature: From directions with shape (K, 1, *event) to v·∇s·v with shape (K, B).
        x: The points, with shape (B, *event).
    """
    parts = units(x[0]).unsqueeze(1).split(max(1, ELEMENTS // x.numel()))
    total = sum((curvature(part).sum(0) for part in parts), start=x.new_zeros(()))
    return total.expand(len(x))


def closed_laplacian(
    layers: Sequence[Bijection], at: Sequence[Linearization], scores: Sequence[Tensor], x: Tensor
) -> Tensor | None:
    """Returns tr ∇s with shape (B,) if the chain has the closed form, and None if it has not.

    Arguments:
        layers: The chain, from data to latent.
        at: Its layers at ``x``.
        scores: The scores over u, x_{L−1}, …, x.
        x: The points, with shape (B, *event).
    """
    bent = [index for index, layer in enumerate(layers) if not layer.constant_jacobian]
    if not bent:
        return -_columns(layers, x[0]).square().sum().expand(len(x))
    index = bent[0]
    parts = at[index].diagonal(scores[len(layers) - 1 - index])
    if len(bent) > 1 or parts is None:
        return None
    slope, bend = (part.flatten(1) for part in parts)
    before = _Gram.apply(_columns(layers[:index], x[0]).mT)
    behind = _Gram.apply(_columns(layers[index + 1 :], at[index].y[0]))
    spread = (slope @ (before * behind) * slope).sum(1)
    return (bend * before.diagonal()).sum(1) - spread


def _columns(layers: Sequence[ConstantJacobian], event: Tensor) -> Tensor:
    """Returns the columns of the layers' Jacobian as rows, flattened: Jᵀ with shape (D, D)."""
    if not layers:
        return units(event).flatten(1)
    columns = layers[0].columns(event)
    for layer in layers[1:]:
        columns = layer.linear(columns)
    return columns.flatten(1)


class _Gram(torch.autograd.Function):
    """R ↦ R Rᵀ, whose gradient is one product instead of the two of a general one."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        (rows,) = ctx.saved_tensors
        return (grad + grad.mT) @ rows
