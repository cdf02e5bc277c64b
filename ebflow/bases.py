r"""Normalized densities with closed scores: bases of flows, and exact reference densities.

A *base* is the density of a flow's latents. Its energy is −log p, normalizer included.

A mixture of Gaussians is

.. math:: p(x) = \sum_k w_k \, N(x; \mu_k, \Sigma_k), \qquad
    r_k(x) = \frac{w_k N(x; \mu_k, \Sigma_k)}{p(x)}, \qquad
    a_k(x) = -\Sigma_k^{-1} (x - \mu_k)

Its score is :math:`s = \sum_k r_k a_k`, and along a direction v
:math:`v^\top \nabla s\, v = \sum_k r_k \left( (v \cdot a_k - v \cdot s)^2
- v^\top \Sigma_k^{-1} v \right)`, a variance less a mean: nothing large cancels. Every component
is stored as :math:`W_k` with :math:`W_k^\top W_k = \Sigma_k^{-1}`, so that its distances are
:math:`\|z_k\|` with :math:`z_k = W_k (x - \mu_k)`. Responsibilities are a softmax of logarithms,
so modes may be any number of standard deviations apart.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from .bijections.base import sum_event
from .density import Evaluation, LogDensity, without_nan
from .randomness import Generator, normal, uniform

CHUNK = 1 << 22  # Largest intermediate (K, B, D), so that thousands of components need 32 MiB


class Base(LogDensity, nn.Module):
    """A normalized density of latents, with exact samples; trainable if it has parameters."""

    @property
    def spec(self) -> dict[str, Any] | None:
        """The JSON-able argument of ``build`` for a base of this form; None for other classes."""
        return None

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,), for ``x`` with shape (B, *event)."""
        return -self.energy(x)

    @abstractmethod
    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (n, *event), differentiable in the parameters."""

    def condition(self, context: Tensor) -> "Base":
        """Returns the density given contexts as in ``Bijection.condition``; itself without any."""
        return self


class _ClosedForms(Evaluation):
    """A base that has its score and its curvature in closed form, at one batch of points."""

    def __init__(self, base: "StandardNormal | GaussianMixture", x: Tensor) -> None:
        self.base, self.x = base, x

    @cached_property
    def energy(self) -> Tensor:
        return self.base.energy(self.x)

    @cached_property
    def score(self) -> Tensor:
        return self.base.score(self.x)

    def curvature(self, v: Tensor) -> Tensor:
        return self.base._curvature(self.x, v)


class StandardNormal(Base):
    """Creates N(0, I) over events of any shape."""

    unit_curvature = True

    @property
    def spec(self) -> dict[str, Any]:
        return {"name": "normal"}

    def energy(self, x: Tensor) -> Tensor:
        """Returns ½ ‖x‖² + ½ D log 2π with shape (B,)."""
        return 0.5 * (sum_event(x * x, x) + math.prod(x.shape[1:]) * math.log(2 * math.pi))

    def at(self, x: Tensor) -> Evaluation:
        return _ClosedForms(self, x)

    def score(self, x: Tensor) -> Tensor:
        return -x

    def _curvature(self, x: Tensor, v: Tensor) -> Tensor:
        return -sum_event(v * v, x)

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        return normal(shape, like, generator)


class GaussianMixture(Base):
    """Creates a mixture of K Gaussians over D features.

    Every evaluation costs O(K B D), O(K B D²) with full covariances. Events of another shape than
    (D,) are flattened to rows.

    Arguments:
        weights: The weights w, with shape (K,); positive, and scaled here to sum to 1.
        means: The means μ, with shape (K, D).
        covariances: The covariances Σ: variances with shape (K,) or (K, 1) if isotropic, with
            shape (K, D) if diagonal, or matrices with shape (K, D, D).
        trainable: True if log w, μ and W are parameters; buffers otherwise.

    Raises:
        ValueError: if shapes do not agree, a weight is not positive, or a covariance is not
            positive definite.
    """

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor, *, trainable: bool = False
    ) -> None:
        super().__init__()
        _check(weights, means, covariances)
        covariances = covariances[:, None] if covariances.ndim == 1 else covariances
        hold = nn.Parameter if trainable else partial(nn.Buffer, persistent=True)
        self.log_weights = hold((weights / weights.sum()).log())
        full = covariances.ndim == 3
        roots = _inverse(torch.linalg.cholesky(covariances)) if full else covariances.rsqrt()
        self.means, self.roots = hold(means.clone()), hold(roots)

    @property
    def spec(self) -> dict[str, Any]:
        trainable = isinstance(self.means, nn.Parameter)
        return {"name": "mixture", "roots": list(self.roots.shape), "features": self.size,
                "trainable": trainable}  # fmt: skip

    @property
    def weights(self) -> Tensor:
        """The weights w, with shape (K,)."""
        return self.log_weights.softmax(0)

    @property
    def covariances(self) -> Tensor:
        """The covariances Σ, with shape (K, 1), (K, D) or (K, D, D)."""
        if not self.full:
            return self.roots.square().reciprocal()
        factors = _inverse(self.triangles)
        return factors @ factors.mT

    @property
    def triangles(self) -> Tensor:
        """W as lower triangles, with shape (K, D, D)."""
        if self.full:
            return self.roots.tril()
        return self.roots.expand(-1, self.size).diag_embed()

    @property
    def size(self) -> int:
        """The number of features D."""
        return self.means.shape[1]

    @property
    def full(self) -> bool:
        """True if covariances are matrices."""
        return self.roots.ndim == 3

    def trainable(self) -> "GaussianMixture":
        """Returns the same mixture with log w, μ and W as parameters."""
        return GaussianMixture(self.weights, self.means, self.covariances, trainable=True)

    def smoothed(self, sigma: float) -> "GaussianMixture":
        """Returns the mixture of x + σ n, n from N(0, I): its covariances are Σ + σ² I."""
        noise = sigma**2 * torch.eye(self.size).to(self.means) if self.full else sigma**2
        return GaussianMixture(self.weights, self.means, self.covariances + noise)

    def marginal(self, features: Sequence[int]) -> "GaussianMixture":
        """Returns the marginal distribution of some features."""
        features = list(features)
        covariances = self.covariances[:, features]
        if self.full:
            covariances = covariances[:, :, features]
        return GaussianMixture(self.weights, self.means[:, features], covariances)

    def energy(self, x: Tensor) -> Tensor:
        log_p = self._by_rows(lambda x: self._joint(x)[1].logsumexp(0), self._flat(x))
        return without_nan(-log_p, x)

    def at(self, x: Tensor) -> Evaluation:
        return _ClosedForms(self, x)

    def score(self, x: Tensor) -> Tensor:
        return self._by_rows(self._score_of_rows, self._flat(x)).view_as(x)

    def _curvature(self, x: Tensor, v: Tensor) -> Tensor:
        v = v.expand(-1, *x.shape).flatten(2).transpose(0, 1)
        return self._by_rows(self._bent, self._flat(x), v).mT

    def responsibilities(self, x: Tensor) -> Tensor:
        """Returns r, the probabilities of components given x, with shape (K, B)."""
        return self._by_rows(lambda x: self._joint(x)[1].softmax(0).mT, self._flat(x)).mT

    def _flat(self, x: Tensor) -> Tensor:
        """Returns events as rows, with shape (B, D)."""
        if math.prod(x.shape[1:]) != self.size or x.ndim < 2:
            raise ValueError(f"x: found shape {tuple(x.shape)}, expected (B, {self.size})")
        return x.flatten(1)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Returns ``n`` independent samples with shape (n, D)."""
        return self.sample_with_components(n, generator=generator)[0]

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (n, *event); the choice of components has no gradient."""
        return self.sample(shape[0], generator=generator).to(like).view(shape)

    def sample_with_components(
        self, n: int, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns ``n`` samples with shape (n, D), and their components with shape (n,)."""
        u = uniform((n,), self.means, generator).contiguous()
        last = len(self.weights) - 1
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp(max=last)
        return self.sample_components(k, generator=generator), k

    def sample_components(self, k: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Returns a sample of each of the components ``k`` with shape (n,), with shape (n, D)."""
        noise = normal((len(k), self.size), self.means, generator)
        if not self.full:
            return self.means[k] + noise / self.roots[k]
        x, factors = self.means[k], _inverse(self.triangles)
        for index in k.unique():  # gathered factors would need n D² numbers
            own = k == index
            x[own] = x[own] + noise[own] @ factors[index].mT
        return x

    def _joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z with shape (K, B, D) and log w_k N(x; μ_k, Σ_k) with shape (K, B)."""
        z = self._root(x - self.means[:, None])
        constant = self.log_weights.log_softmax(0) + self._log_dets()
        constant = constant - 0.5 * self.size * math.log(2 * math.pi)
        return z, constant[:, None] - 0.5 * (z * z).sum(-1)

    def _root(self, v: Tensor) -> Tensor:
        """Returns W v with shape (K, B, D)."""
        return v @ self.triangles.mT if self.full else v * self.roots[:, None]

    def _log_dets(self) -> Tensor:
        """Returns log det W with shape (K,)."""
        diagonal = self.roots.diagonal(dim1=1, dim2=2) if self.full else self.roots
        return diagonal.abs().log().expand(-1, self.size).sum(1)

    def _score(self, z: Tensor, r: Tensor) -> Tensor:
        """Returns the score, for responsibilities r."""
        weighed = r[..., None] * z
        pulled = weighed @ self.triangles if self.full else weighed * self.roots[:, None]
        return -pulled.sum(0)

    def _score_of_rows(self, x: Tensor) -> Tensor:
        z, log_joint = self._joint(x)
        return self._score(z, log_joint.softmax(0))

    def _bent(self, x: Tensor, v: Tensor) -> Tensor:
        """Returns v·∇s·v with shape (B, K), for ``v`` with shape (B, K, D)."""
        z, log_joint = self._joint(x)
        r = log_joint.softmax(0)
        score, bends = self._score(z, r), []
        for row in v.unbind(1):
            Wv = self._root(row.expand(len(z), *row.shape))
            slopes = -(Wv * z).sum(-1)
            bend = (slopes - (row * score).sum(-1)) ** 2 - (Wv * Wv).sum(-1)
            bends.append((r * bend).sum(0))
        return torch.stack(bends, -1)

    def _by_rows(self, f: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # a fixed number of parts would fix the number of rows
            return f(*tensors)
        rows = max(1, CHUNK // self.means.numel())
        parts = zip(*(t.split(rows) for t in tensors), strict=True)
        return torch.cat([f(*part) for part in parts])

    def extra_repr(self) -> str:
        return f"components={len(self.means)}, features={self.size}"


def log_mass(base: "StandardNormal | GaussianMixture", ends: Tensor) -> Tensor:
    """Returns log P of intervals of one element, with shape (…,) for their ends (…, 2)."""
    z, log_weights = ends.double()[..., None, :], ends.new_zeros(1).double()
    if isinstance(base, GaussianMixture):
        z = base.triangles[:, 0] * (z - base.means)
        log_weights = base.log_weights.log_softmax(0)
    z = torch.where(z.sum(-1, keepdim=True) > 0, -z, z)  # Φ has more digits on the left
    low, high = torch.special.log_ndtr(z).sort().values.unbind(-1)
    part = -torch.expm1((low - high).clamp(max=-torch.finfo(z.dtype).tiny))
    return (log_weights + high + part.log()).logsumexp(-1)


def build(spec: dict[str, Any]) -> Base:
    """Returns a base of the form of ``Base.spec``, to load a state into."""
    match spec["name"]:
        case "normal":
            return StandardNormal()
        case "mixture":
            weights, covariances = torch.ones(spec["roots"][0]), torch.ones(spec["roots"])
            if covariances.ndim == 3:
                covariances = torch.ones(spec["roots"][:2]).diag_embed()
            means = torch.zeros(len(weights), spec["features"])
            return GaussianMixture(weights, means, covariances, trainable=spec["trainable"])
    raise ValueError(f"base: found {spec['name']!r}, expected normal or mixture")


def _inverse(triangles: Tensor) -> Tensor:
    """Returns the inverses of lower triangles, with shape (K, D, D)."""
    identity = torch.eye(triangles.shape[-1]).to(triangles)
    return torch.linalg.solve_triangular(triangles, identity, upper=False)


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
    matrices = covariances.ndim == 3
    bad = torch.linalg.cholesky_ex(covariances).info if matrices else covariances <= 0
    if bool(bad.any()):
        raise ValueError("covariances: found one that is not positive definite")
