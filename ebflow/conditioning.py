r"""Mixtures of Gaussians given the observed elements of rows, in closed form.

Take a component with weight :math:`w`, mean :math:`\mu` and precision :math:`\Lambda = W^\top W`,
and a row with observed elements :math:`o` and missing elements :math:`m`. With :math:`d = y_o -
\mu_o` and :math:`\Lambda_{mm} = A A^\top`,

.. math::
    y_m \mid y_o \sim N(\mu_m - \Lambda_{mm}^{-1} \Lambda_{mo} d, \; \Lambda_{mm}^{-1}), \qquad
    \log w + \log |W| - \log |A|
        - \tfrac12 \left( d^\top \Lambda_{oo} d - \| A^{-1} \Lambda_{mo} d \|^2 \right)

are its conditional distribution and, up to :math:`-\tfrac12 |o| \log 2\pi`, the logarithm of
:math:`w` times its density of :math:`y_o`. One component is linear regression.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .bases import Base, GaussianMixture
from .bijections.base import Conditioned
from .randomness import Generator, normal, uniform


class Conditional:
    """A mixture of Gaussians given observed elements; P patterns of R rows each.

    Cost: O(K D³) once for each different pattern and O(P K R D²); P K D (D + R) numbers.

    Arguments:
        mixture: A mixture of K Gaussians over D features.
        y: Rows with shape (P, R, D); missing elements may have any value.
        missing: True where an element is missing, with shape (P, D).
        contexts: The number of leading features that are contexts: observed, and not returned.
    """

    def __init__(
        self, mixture: GaussianMixture, y: Tensor, missing: Tensor, *, contexts: int = 0
    ) -> None:
        patterns, index = missing.unique(dim=0, return_inverse=True)
        free, roots = missing.to(y)[:, None, :, None], mixture.triangles
        precisions, some = roots.mT @ roots, patterns.to(y)
        inner = precisions * (some[:, None, :, None] * some[:, None, None, :])
        root = torch.linalg.cholesky(inner + (1 - some).diag_embed()[:, None])
        eye = torch.eye(root.shape[-1]).to(y)
        inverse = torch.linalg.solve_triangular(root, eye, upper=False)[index]
        hidden, columns = missing[:, None, :, None], y.mT[:, None]
        away = torch.where(hidden, 0.0, columns - mixture.means[..., None])
        pull = precisions @ away
        lead = inverse @ (pull * free)
        means = torch.where(hidden, mixture.means[..., None] - inverse.mT @ lead, columns).mT
        self.log_scale = _log_diagonal(root)[index]
        odds = (mixture.weights.log() + _log_diagonal(roots) - self.log_scale)[..., None]
        odds = odds - 0.5 * ((away * pull).sum(2) - lead.square().sum(2))
        self.log_shares = odds.log_softmax(1)
        self.missing, self.means = missing[:, contexts:], means[..., contexts:]
        self.root = root[index][..., contexts:, contexts:]
        self.inverse = inverse[..., contexts:, contexts:]

    @property
    def covariances(self) -> Tensor:
        """The components' covariances with shape (P, K, D, D), 0 except between missing ones."""
        observed = (~self.missing).to(self.root).diag_embed()
        return self.inverse.mT @ self.inverse - observed[:, None]

    def sample(self, count: int, generator: Generator | None) -> Tensor:
        """Returns completions with shape (P, count, D), where R is 1 or ``count``."""
        u = uniform((len(self.missing), count), self.means, generator)
        shape = (*u.shape, self.means.shape[-1])
        return self.completions(u, normal(shape, self.means, generator))

    def completions(self, u: Tensor, noise: Tensor) -> Tensor:
        """Returns completions (P, M, D) by uniform (P, M) and normal numbers; R is 1 or M."""
        noise = torch.where(self.missing[:, None], noise, 0.0)
        shares = self.log_shares.mT.exp().cumsum(2).expand(-1, u.shape[1], -1).contiguous()
        k = torch.searchsorted(shares, u[..., None].contiguous(), right=True)
        k = k.clamp(max=shares.shape[2] - 1)
        means = self.means.movedim(1, 2).expand(-1, u.shape[1], -1, -1)
        rows = means.gather(2, k[..., None].expand(-1, -1, 1, noise.shape[2]))[:, :, 0]
        for component in range(shares.shape[2]):  # gathered roots would take P M D² numbers
            rows = rows + torch.where(k == component, noise, 0.0) @ self.inverse[:, component]
        return rows

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns log p (P, M) of the missing elements of completions (P, M, D); R is 1 or M."""
        parts = []
        for k in range(self.means.shape[1]):
            z = torch.where(self.missing[:, None], y - self.means[:, k], 0.0) @ self.root[:, k]
            scale = self.log_shares[:, k] + self.log_scale[:, k, None]
            parts.append(scale - 0.5 * z.square().sum(2))
        missing = self.missing.sum(1, keepdim=True)
        return torch.stack(parts).logsumexp(0) - 0.5 * missing * math.log(2 * math.pi)


class ConditionedMixture(Conditioned, Base):
    r"""Creates a mixture of Gaussians over contexts and data, conditional on the contexts.

    .. math:: p(x \mid c) = \frac{p(c, x)}{p(c)},

    O(K B (C + D)²) with full covariances. One component is linear regression with Gaussian
    residuals. Without contexts, evaluations and samples raise ValueError.

    Arguments:
        joint: The mixture over (c, x), with shape (C + D,).
        count: The number C of elements of a context.
    """

    def __init__(self, joint: GaussianMixture, count: int) -> None:
        super().__init__()
        self.joint, self.marginal, self.context = joint, joint.marginal(range(count)), count

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x | c) with shape (R B,)."""
        c = self.contexts(x)
        return self.joint.energy(torch.cat([c, x.flatten(1)], 1)) - self.marginal.energy(c)

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (R B, *event)."""
        c, joint = self.contexts(like.new_empty(shape[0])).to(self.joint.means), self.joint
        rows = torch.cat([c, c.new_zeros(len(c), joint.size - self.context)], 1)
        missing = torch.arange(joint.size, device=c.device) >= self.context
        given = Conditional(joint, rows[None], missing[None], contexts=self.context)
        return given.sample(len(c), generator)[0].to(like).view(shape)


def _log_diagonal(root: Tensor) -> Tensor:
    return root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
