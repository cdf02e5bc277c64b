r"""A mixture of Gaussians over contexts and data, given the contexts.

.. math:: p(x \mid c) = \sum_k r_k(c) \, N(x; m_k(c), S_k), \qquad
    r_k(c) \propto w_k N(c; \mu_{k,c}, \Sigma_{k,cc}), \quad
    m_k(c) = \mu_{k,x} + \Sigma_{k,xc} \Sigma_{k,cc}^{-1} (c - \mu_{k,c})

with the Schur complements :math:`S_k`. One component is linear regression with Gaussian residuals.
"""

__all__ = ["ConditionedMixture"]

from collections.abc import Sequence

import torch
from torch import Tensor

from .bases import Base, GaussianMixture
from .randomness import Generator, normal, uniform


class ConditionedMixture(Base):
    """Creates the base above; O(K B (C + D)²) with full covariances.

    Arguments:
        joint: The mixture over (c, x), with shape (C + D,).
        count: The number C of elements of a context.
    """

    def __init__(self, joint: GaussianMixture, count: int) -> None:
        super().__init__()
        if not 0 < count < joint.size:
            raise ValueError(f"count: found {count}, expected 1 … {joint.size - 1}")
        self.joint, self.count = joint, count

    def energy(self, x: Tensor) -> Tensor:
        """Raises ValueError: it is a density only given a context."""
        raise ValueError(f"context: found None, expected shape (*, {self.count})")

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Raises ValueError, as ``energy``."""
        return self.energy(like)

    def conditioned(self, context: Tensor) -> "Base":
        """Returns the density given contexts with shape (B, C)."""
        return _Conditioned(self.joint, context)


class _Conditioned(Base):
    """The density whose row i has the context i mod B."""

    def __init__(self, joint: GaussianMixture, context: Tensor) -> None:
        super().__init__()
        self.joint, self.context = joint, context

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x | c) with shape (R B,)."""
        rows = torch.cat([self._contexts(len(x)), x.flatten(1)], 1)
        return self.joint.conditional_energy(rows, self.context.shape[1])

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (R B, *event)."""
        joint, c = self.joint, self._contexts(shape[0])
        count = c.shape[1]
        lead = (c - joint.means[:, None, :count])[..., None]
        full = joint.triangles if joint.full else joint.roots.expand(-1, joint.size).diag_embed()
        own, cross, inner = (
            full[:, :count, :count],
            full[:, count:, :count],
            full[:, count:, count:],
        )
        z = (own[:, None] @ lead).squeeze(-1)
        shares = joint._log_joint(z).softmax(0).cumsum(0).mT.contiguous()
        u = uniform((len(c), 1), like, generator).to(shares)
        k = torch.searchsorted(shares, u, right=True).clamp(max=len(full) - 1).squeeze(1)
        noise = normal((len(c), joint.size - count), like, generator).to(shares)
        pull = noise[..., None] - cross[k] @ lead[k, torch.arange(len(c))]
        x = torch.linalg.solve_triangular(inner[k], pull, upper=False).squeeze(-1)
        return (joint.means[k, count:] + x).to(like).view(shape)

    def _contexts(self, rows: int) -> Tensor:
        return self.context.repeat(rows // len(self.context), 1)
