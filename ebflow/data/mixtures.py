r"""Mixtures of Gaussians: exact densities, scores and samples in any dimension.

.. math:: p(x) = \sum_k w_k \, N(x; \mu_k, \Sigma_k), \qquad
    r_k(x) = \frac{w_k N(x; \mu_k, \Sigma_k)}{p(x)}, \qquad
    a_k(x) = -\Sigma_k^{-1} (x - \mu_k)

The score is :math:`s = \sum_k r_k a_k`, and along a direction v
:math:`v^\top \nabla s\, v = \sum_k r_k \left( (v \cdot a_k - v \cdot s)^2
- v^\top \Sigma_k^{-1} v \right)`, a variance less a mean: nothing large cancels. Every component
is handled by :math:`W_k` with :math:`W_k^\top W_k = \Sigma_k^{-1}`, so that its distances are
:math:`\|z_k\|` with :math:`z_k = W_k (x - \mu_k)`, and responsibilities are a softmax of
logarithms: modes may lie any number of standard deviations apart.

Noise of N(0, σ² I) turns a mixture into one with :math:`\Sigma_k + \sigma^2 I`.
"""

__all__ = ["GaussianMixture"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..estimate import Estimate
from ..randomness import normal, uniform

CHUNK = 1 << 22
"""Most numbers of an intermediate (K, B, D), so that thousands of components take 32 MiB."""


class GaussianMixture:
    """Creates a mixture of K Gaussians over D features, a ``LogDensity`` that is normalised.

    Every evaluation costs O(K B D), O(K B D²) with full covariances.

    Arguments:
        weights: The weights w, with shape (K,); positive, and scaled here to sum to 1.
        means: The means μ, with shape (K, D).
        covariances: The covariances Σ: variances with shape (K,) or (K, 1) if isotropic, with
            shape (K, D) if diagonal, or matrices with shape (K, D, D).

    Raises:
        ValueError: If shapes do not agree, a weight is not positive, or a covariance is not
            positive definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        _check(weights, means, covariances)
        self.weights, self.means = weights / weights.sum(), means
        self.covariances = covariances[:, None] if covariances.ndim == 1 else covariances
        self._roots = _inverse_roots(self.covariances)

    @property
    def size(self) -> int:
        """The number of features D."""
        return self.means.shape[1]

    @property
    def full(self) -> bool:
        """Whether covariances are matrices."""
        return self.covariances.ndim == 3

    def smoothed(self, sigma: float) -> "GaussianMixture":
        """Returns the law of x + σ n with n from N(0, I)."""
        noise = sigma**2 * torch.eye(self.size).to(self.means) if self.full else sigma**2
        return GaussianMixture(self.weights, self.means, self.covariances + noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,), for ``x`` with shape (B, D)."""
        return self._by_rows(lambda x: self._log_joint(self._whiten(x)).logsumexp(0), x)

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x) in nats with shape (B,)."""
        return -self.log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p(x) with shape (B, D)."""
        return self._by_rows(lambda x: self._score(*self._at(x)), x)

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v with shape (K', B), for ``v`` with shape (K', B, D)."""
        score, curvature = self.score_and_curvature(x, v)
        return (v * score).sum(-1), curvature

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s with shape (B, D) and v·∇s·v with shape (K', B)."""
        pairs = zip(x.split(self._rows), v.split(self._rows, dim=1), strict=True)
        scores, bends = zip(*(self._bent(*pair) for pair in pairs), strict=True)
        return torch.cat(scores), torch.cat(bends, 1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Returns ``n`` independent samples with shape (n, D)."""
        return self.draw(n, generator=generator)[0]

    def draw(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns ``n`` samples with shape (n, D), and the components that they are of, (n,)."""
        u = uniform((n,), self.means, generator)
        last = len(self.weights) - 1
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp(max=last)
        return self.given(k, generator=generator), k

    def given(self, k: Tensor, *, generator: torch.Generator) -> Tensor:
        """Returns a sample of each of the components ``k`` with shape (n,), with shape (n, D)."""
        noise = normal((len(k), self.size), self.means, generator)
        if self.full:
            noise = (self._factors()[k] @ noise[..., None]).squeeze(-1)
        else:
            noise = self.covariances[k].sqrt() * noise
        return self.means[k] + noise

    def entropy(self, n: int = 100_000, *, generator: torch.Generator) -> Estimate:
        r"""Returns the entropy −E log p in nats, with the standard error of n samples.

        :math:`\sum_k w_k (h_k - \log w_k)`, with the entropies :math:`h_k` of the components, is
        exact, and only the uncertainty of the component, :math:`-E \log r_k(x)`, is estimated:
        the error is zero for one component and vanishes as modes move apart.
        """
        x, k = self.draw(n, generator=generator)
        own = self._by_rows(self._log_responsibility, x, k)
        parts = 0.5 * self.size * math.log(2 * math.pi * math.e) - self._log_dets()
        return Estimate.of(own, name="log r") + float(
            (self.weights * (parts - self.weights.log())).sum()
        )

    def _factors(self) -> Tensor:
        return torch.linalg.cholesky(self.covariances)

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z with shape (K, B, D) and r with shape (K, B)."""
        z = self._whiten(x)
        return z, self._log_joint(z).softmax(0)

    def _whiten(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ValueError(f"x: found shape {tuple(x.shape)}, expected (B, {self.size})")
        return self._root(x - self.means[:, None])

    def _root(self, v: Tensor) -> Tensor:
        """Returns W v with shape (K, B, D)."""
        return v @ self._roots.mT if self.full else v * self._roots[:, None]

    def _log_joint(self, z: Tensor) -> Tensor:
        """Returns log w_k N(x; μ_k, Σ_k) with shape (K, B)."""
        constant = self.weights.log() + self._log_dets() - 0.5 * self.size * math.log(2 * math.pi)
        return constant[:, None] - 0.5 * (z * z).sum(-1)

    def _log_dets(self) -> Tensor:
        """Returns log det W with shape (K,)."""
        diagonal = self._roots.diagonal(dim1=1, dim2=2) if self.full else self._roots
        return diagonal.log().expand(-1, self.size).sum(1)

    def _score(self, z: Tensor, r: Tensor) -> Tensor:
        weighed = r[..., None] * z
        pulled = weighed @ self._roots if self.full else weighed * self._roots[:, None]
        return -pulled.sum(0)

    def _bent(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        z, r = self._at(x)
        score = self._score(z, r)
        return score, torch.stack([self._bend(z, r, score, row) for row in v])

    def _bend(self, z: Tensor, r: Tensor, score: Tensor, v: Tensor) -> Tensor:
        Wv = self._root(v.expand(len(z), *v.shape))
        slopes = -(Wv * z).sum(-1)
        return (r * ((slopes - (v * score).sum(-1)) ** 2 - (Wv * Wv).sum(-1))).sum(0)

    def _log_responsibility(self, x: Tensor, k: Tensor) -> Tensor:
        return self._log_joint(self._whiten(x)).log_softmax(0).gather(0, k[None])[0]

    @property
    def _rows(self) -> int:
        return max(1, CHUNK // self.means.numel())

    def _by_rows(self, f: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        parts = zip(*(t.split(self._rows) for t in tensors), strict=True)
        return torch.cat([f(*part) for part in parts])

    def __repr__(self) -> str:
        return f"GaussianMixture(components={len(self.weights)}, features={self.size})"


def _inverse_roots(covariances: Tensor) -> Tensor:
    """Returns W: reciprocal deviations, or inverses of Cholesky factors."""
    if covariances.ndim == 2:
        return covariances.rsqrt()
    factors = torch.linalg.cholesky(covariances)
    identity = torch.eye(factors.shape[-1]).to(factors)
    return torch.linalg.solve_triangular(factors, identity, upper=False)


def _check(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    if weights.ndim != 1 or not len(weights) or not bool((weights > 0).all()):
        raise ValueError(f"weights: found {weights}, expected positive numbers with shape (K,)")
    if means.ndim != 2 or len(means) != len(weights):
        raise ValueError(
            f"means: found shape {tuple(means.shape)}, expected ({len(weights)}, D) as in weights"
        )
    K, D = means.shape
    known = ((K,), (K, 1), (K, D), (K, D, D))
    if tuple(covariances.shape) not in known:
        raise ValueError(
            f"covariances: found shape {tuple(covariances.shape)}, expected one of {known}"
        )
    if not _positive(covariances):
        raise ValueError("covariances: found one that is not positive definite")


def _positive(covariances: Tensor) -> bool:
    if covariances.ndim < 3:
        return bool((covariances > 0).all())
    return not torch.linalg.cholesky_ex(covariances).info.any()
