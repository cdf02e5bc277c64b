r"""Mixtures of factor analysers: Gaussians of low rank in many dimensions.

.. math:: \Sigma_k = F_k F_k^\top + \Psi_k, \qquad F_k \in R^{D \times Q},

with a diagonal :math:`\Psi_k`. By the singular values T and vectors U of :math:`\Psi_k^{-1/2} F_k`

.. math:: W_k = (I - U (I - (I + T^2)^{-1/2}) U^\top) \Psi_k^{-1/2}, \qquad
    W_k^\top W_k = \Sigma_k^{-1},

is a root of the precision: its product with a vector costs O(D Q), and Mahalanobis distances are
sums of squares.

Source: The EM Algorithm for Mixtures of Factor Analyzers (Ghahramani, Hinton, 1997).
"""

import torch
from torch import Tensor, nn

from ..bases import GaussianMixture
from ..randomness import Generator, normal


class FactorMixture(GaussianMixture):
    """A mixture of K factor analysers over D features; an evaluation costs O(K B D Q).

    Arguments:
        weights: The weights, with shape (K,); positive, and normalized to sum to 1.
        means: The means μ, with shape (K, D).
        factors: The loadings F, with shape (K, D, Q).
        noise: The diagonals of Ψ, with shape (K, D), positive.

    Raises:
        ValueError: if shapes do not agree, or a weight or a variance is not positive.
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor, noise: Tensor) -> None:
        super().__init__(weights, means, noise)
        if factors.ndim != 3 or factors.shape[:2] != means.shape:
            expected = f"({len(means)}, {means.shape[1]}, Q) as of the means"
            raise ValueError(f"factors: found shape {tuple(factors.shape)}, expected {expected}")
        scaled = factors * self.roots[..., None]
        directions, spread, _ = torch.linalg.svd(scaled, full_matrices=False)
        self.factors = nn.Buffer(factors.clone())
        self.directions, self.spread = nn.Buffer(directions), nn.Buffer(spread)

    @property
    def spec(self) -> None:
        """None: ``bases.build`` does not support it."""
        return None

    @property
    def noise(self) -> Tensor:
        """The diagonals of Ψ, with shape (K, D)."""
        return self.roots.square().reciprocal()

    @property
    def covariances(self) -> Tensor:
        """The covariances, with shape (K, D, D)."""
        return self.factors @ self.factors.mT + torch.diag_embed(self.noise)

    def smoothed(self, sigma: float) -> "FactorMixture":
        return FactorMixture(self.weights, self.means, self.factors, self.noise + sigma**2)

    def sample_components(self, k: Tensor, *, generator: Generator | None = None) -> Tensor:
        x = super().sample_components(k, generator=generator)
        latent = normal((len(k), self.factors.shape[2]), self.means, generator)
        for index in k.unique():
            x[k == index] += latent[k == index] @ self.factors[index].mT
        return x

    def _root(self, v: Tensor) -> Tensor:
        return self._shrunk(v * self.roots[:, None])

    def _shrunk(self, v: Tensor) -> Tensor:
        """Returns (I − U (I − (I + T²)^−½) Uᵀ) v, for ``v`` with shape (K, B, D)."""
        share = 1 - self.spread.square().add(1).rsqrt()
        return v - (v @ self.directions * share[:, None]) @ self.directions.mT

    def _log_dets(self) -> Tensor:
        return super()._log_dets() - 0.5 * self.spread.square().log1p().sum(1)

    def _score(self, z: Tensor, r: Tensor) -> Tensor:
        return -(self._shrunk(r[..., None] * z) * self.roots[:, None]).sum(0)
