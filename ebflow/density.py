r"""Unnormalised log-densities: what an objective may ask of one.

A density over events is given by its energy :math:`E`, :math:`\log p(x) = -E(x) - \log Z`. Its
score :math:`s = \nabla_x \log p = -\nabla_x E` and the quadratic form :math:`v^\top \nabla s\, v`
do not see :math:`Z`. Objectives are written against ``LogDensity`` and nothing else.
"""

__all__ = ["AutogradDensity", "LogDensity"]

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from .bijections.base import sum_event
from .laplacian import trace


class LogDensity(Protocol):
    """A log-density up to a constant; ``x`` has shape (B, *event), values are in nats."""

    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) with shape (B,)."""
        ...

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p(x) with shape (B, *event), differentiable in the parameters."""
        ...

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns E(x) with shape (B,) and s with shape (B, *event)."""
        ...

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v with shape (K, B), for ``v`` with shape (K, B, *event)."""
        ...

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s with shape (B, *event) and v·∇s·v with shape (K, B)."""
        ...

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s with shape (B, *event) and tr ∇s, exactly, with shape (B,)."""
        ...


class AutogradDensity:
    """Creates a ``LogDensity`` from any twice differentiable log-density, by autograd.

    Costs one backward pass for the score and one more for every slice of the curvature; it is
    the fallback for densities without a closed-form chain, and the oracle of the tests.

    Arguments:
        log_density: A function from (B, *event) to (B,), up to a constant, in nats.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x), up to a constant."""
        return -self.log_density(x)

    def score(self, x: Tensor) -> Tensor:
        """Returns the gradient of the log-density."""
        return self._score(x)[1]

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both from one evaluation of the log-density."""
        _, score, log_p = self._score(x)
        return -log_p, score

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both derivatives along ``v`` by a backward pass for each slice."""
        score, curvature = self.score_and_curvature(x, v)
        return sum_event(score * v, x), curvature

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the score and v·∇s·v, differentiating the score once for each slice."""
        x, score, _ = self._score(x)
        return score, _curvature(x, score, v)

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the score and its trace, differentiating the score once for each dimension."""
        x, score, _ = self._score(x)
        return score, trace(partial(_curvature, x, score), x)

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            log_p = self.log_density(x)
            return x, torch.autograd.grad(log_p.sum(), x, create_graph=True)[0], log_p


def _curvature(x: Tensor, score: Tensor, v: Tensor) -> Tensor:
    if not score.requires_grad:  # the log-density is linear in x
        return x.new_zeros(v.shape[0], len(x))
    rows = [_gradient((score * row).sum(), x) for row in v]
    return sum_event(torch.stack(rows) * v, x)


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)[0]
