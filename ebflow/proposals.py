r"""A mixture of Gaussians given what is known of each row: closed-form proposals for what is not.

Of a component with weight :math:`w`, mean :math:`\mu` and precision :math:`\Lambda`, and a row
whose elements :math:`o` are known and :math:`m` are not, with :math:`d = y_o - \mu_o` and
:math:`\Lambda_{mm} = A A^\top`,

.. math::
    y_m \mid y_o \sim N(\mu_m - \Lambda_{mm}^{-1} \Lambda_{mo} d, \; \Lambda_{mm}^{-1}), \qquad
    \log w + \tfrac12 \log |\Lambda| - \log |A|
        - \tfrac12 \left( d^\top \Lambda_{oo} d - \| A^{-1} \Lambda_{mo} d \|^2 \right)

is its law, and the logarithm of its weight up to a constant.

Where J points are known that nearly have the law, kernels around them make better proposals,
beside the mixture's own, whose tails they lack:

.. math::
    \alpha \, q(y_m) + \frac{1 - \alpha}{J |L|} \sum_j N(z; z_j, h^2 I), \qquad
    z = L^{-1} (y_m - c), \quad h^{d+4} = \frac{4}{(d + 2) J}

with q the mixture's density, and d the number of missing elements.

Source: Density Estimation for Statistics and Data Analysis (Silverman, 1986), 4.3, for h.
"""

__all__ = ["Given", "Kernels", "mixture_of"]

import math

import torch
from torch import Tensor

from .bases import GaussianMixture
from .mixtures import fit_components
from .randomness import normal, uniform

WIDE = 1.1
"""Deviations of proposals, in those of the mixture: tails that are too light make chains stick."""

ROWS = 10
"""Samples for every column and component."""

RIDGE = 1e-3
"""What is added to variances of standardised columns."""

DEFENCE = 0.25
"""α, the share of proposals that are the mixture's."""


def mixture_of(samples: Tensor, most: int, generator: torch.Generator) -> GaussianMixture:
    """Returns a mixture fitted to finite samples with shape (N, D), in float64.

    Arguments:
        samples: The samples.
        most: Most components; there are fewer if samples are few for their width.
        generator: Where its start comes from.
    """
    count = max(1, min(most, len(samples) // (ROWS * samples.shape[1])))
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    found = fit_components(samples, count, ridge=RIDGE, seed=seed)
    covariances = WIDE**2 * found.covariances
    return GaussianMixture(found.weights, found.means, covariances).to(samples.device)


class Given:
    """The mixture given what rows know, each by its own pattern; O(K N D³), K N D² numbers.

    Arguments:
        mixture: A mixture of K Gaussians with full covariances.
        y: Rows with shape (N, D), in its type.
        missing: True where an element is not known, with the shape of ``y``.
        contexts: Leading elements that are contexts: known, and no part of a completion.
    """

    def __init__(
        self, mixture: GaussianMixture, y: Tensor, missing: Tensor, *, contexts: int = 0
    ) -> None:
        free = missing.to(y)
        roots, means = mixture.triangles, mixture.means
        precisions = roots.mT @ roots
        inner = precisions * (free[:, None, :, None] * free[:, None, None, :])
        root = torch.linalg.cholesky(inner + (1 - free).diag_embed()[:, None])
        away = torch.where(missing[:, None], 0.0, y[:, None] - means)
        pull = torch.einsum("kij,nkj->nki", precisions, away)
        lead = _solved(root, pull * free[:, None])
        shift = _solved(root.mT, lead, upper=True)
        means = torch.where(missing[:, None], means - shift, y[:, None])
        self.log_scale = _log_diagonal(root)
        odds = mixture.log_weights + _log_diagonal(roots) - self.log_scale
        odds = odds - 0.5 * ((away * pull).sum(2) - lead.square().sum(2))
        self.log_shares = odds.log_softmax(1)
        self.missing, self.means = missing[:, contexts:], means[..., contexts:]
        self.root = root[..., contexts:, contexts:]
        eye = torch.eye(self.root.shape[2]).to(y)
        self.inverse = torch.linalg.solve_triangular(self.root, eye, upper=False)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns ``count`` completions of every row, with shape (N, count, D)."""
        shares = self.log_shares.exp().cumsum(1)
        u = uniform((len(shares), count), shares, generator)
        last = shares.shape[1] - 1
        k = torch.searchsorted(shares, u.contiguous(), right=True).clamp(max=last)
        noise = normal((*k.shape, self.means.shape[2]), self.means, generator)
        noise = torch.where(self.missing[:, None], noise, 0.0)
        found = self.means.gather(1, k[..., None].expand(noise.shape))
        for index in range(last + 1):
            own = torch.where((k == index)[..., None], noise, 0.0)
            found = torch.baddbmm(found, own, self.inverse[:, index])
        return found

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns the log-density of completions with shape (N, M, D), up to a row's constant."""
        parts = []
        for root, mean, scale, share in zip(
            self.root.unbind(1), self.means.unbind(1), self.log_scale.T, self.log_shares.T,
            strict=True,
        ):  # fmt: skip
            z = torch.where(self.missing[:, None], y - mean[:, None], 0.0) @ root
            parts.append((share + scale)[:, None] - 0.5 * z.square().sum(2))
        return torch.stack(parts).logsumexp(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Returns mean (N, D), and a factor (N, D, D), lower triangular, of the covariance.

        It is 0 but between missing elements.
        """
        shares = self.log_shares.exp()[..., None]
        mean = (shares * self.means).sum(1)
        away = (self.means - mean[:, None]) * shares.sqrt()
        covariance = away.mT @ away
        known = (~self.missing).to(mean).diag_embed()
        for inverse, share in zip(self.inverse.unbind(1), shares.unbind(1), strict=True):
            covariance = covariance + share[..., None] * (inverse.mT @ inverse - known)
        return mean, torch.linalg.cholesky(covariance + known) - known


class Kernels:
    """Kernels around points of each row, and its mixture; O(J D) a completion.

    Arguments:
        given: The mixture given what N rows know.
        centre: c, with shape (N, D).
        scale: L, with shape (N, D, D), lower triangular, 0 but between missing elements.
        points: z of J points of each row, with shape (N, J, D), 0 where an element is known.
    """

    def __init__(self, given: Given, centre: Tensor, scale: Tensor, points: Tensor) -> None:
        self.given, self.centre, self.scale, self.points = given, centre, scale, points
        self.root = scale + (~given.missing).to(scale).diag_embed()
        width, count = given.missing.to(scale).sum(1), points.shape[1]
        self.width = (4 / (count * (width + 2))) ** (1 / (width + 4))
        self.log_scale = width * self.width.log() + _log_diagonal(self.root) + math.log(count)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns ``count`` completions of every row, with shape (N, count, D)."""
        y = self.given.sample(count, generator)
        u = uniform((2, *y.shape[:2]), y, generator)
        j = (u[0] * self.points.shape[1]).long()
        z = self.points.gather(1, j[..., None].expand(y.shape))
        z = z + self.width[:, None, None] * normal(z.shape, z, generator)
        near = (u[1] >= DEFENCE)[..., None] & self.given.missing[:, None]
        return torch.where(near, self.centre[:, None] + z @ self.scale.mT, y)

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns the log-density of completions with shape (N, M, D), up to a row's constant."""
        away = torch.where(self.given.missing[:, None], y - self.centre[:, None], 0.0)
        z = torch.linalg.solve_triangular(self.root, away.mT, upper=False).mT
        near = torch.cdist(z, self.points) / self.width[:, None, None]
        kernels = (-0.5 * near.square()).logsumexp(2) - self.log_scale[:, None]
        mixture = math.log(DEFENCE) + self.given.log_prob(y)
        return torch.logaddexp(mixture, math.log1p(-DEFENCE) + kernels)


def _solved(root: Tensor, v: Tensor, *, upper: bool = False) -> Tensor:
    """Returns A⁻¹ v of vectors with shape (…, D)."""
    return torch.linalg.solve_triangular(root, v[..., None], upper=upper)[..., 0]


def _log_diagonal(root: Tensor) -> Tensor:
    return root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
