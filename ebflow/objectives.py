r"""Training objectives, one signature for all.

``NAME(density, x, *, generator, **hyperparameters) -> (B,)``: one loss a sample, in nats, not
reduced and not divided by the dimension D. With :math:`s = \nabla_x \log p_\theta(x)` and
:math:`H = \nabla_x s`, score matching (Hyvärinen, 2005) minimises

.. math:: \mathcal{J} = E_{x \sim data} \left[ \tfrac12 \|s\|^2 + \operatorname{tr} H \right]
    = \text{Fisher divergence} + \text{const},

which does not see the normaliser. Costs are GEMMs of 2 B D² FLOP for a step (forward and
backward) of a dense flow with L layers; ``costs.py`` has them as functions.

``x`` has shape (B, *event); noise and directions come from ``generator``.
"""

__all__ = ["OBJECTIVES", "Objective", "dsm", "fd_ssm", "lazy_ml", "ml", "relative_ml", "sml",
           "ssm", "ssm_vr"]  # fmt: skip

from typing import Protocol

import torch
from torch import Tensor

from .anchor import Anchor
from .bijections.base import sum_event
from .density import LogDensity
from .flow import Flow
from .randomness import normal, rademacher


class Objective(Protocol):
    """A loss a sample of a density at data ``x``."""

    def __call__(self, density: LogDensity, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Returns the loss of every sample in nats, with shape (B,)."""
        ...


def ml(density: Flow, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns −log p(x), the exact negative log-likelihood.

    Unbiased for the Kullback-Leibler divergence up to the data's entropy. Costs 3L − 1 GEMMs
    and, for every dense layer, (2/3 + 2) D³ FLOP: a slogdet and its gradient W⁻ᵀ.
    """
    return density.energy(x) + density.log_normalizer()


def relative_ml(density: Flow, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns E(x), whose backward leaves G WᵀW in every dense layer's gradient.

    G is the exact gradient of ``ml``, so the step is exact maximum likelihood in the relative
    geometry, with no inverse and no log-determinant: 4L − 1 GEMMs. The value lacks log Z, which
    would cost O(D³); it is not a likelihood.

    Source: Relative gradient optimization of the Jacobian term in unsupervised deep learning
    (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090.
    """
    return density.relative_energy(x)


def lazy_ml(density: Flow, x: Tensor, *, generator: torch.Generator, anchor: Anchor) -> Tensor:
    """Returns E(x) + the anchor's first-order log Z: likelihood with a stale W⁻ᵀ.

    Its gradient is the likelihood's but for the drift of the weights since the anchor's last
    refresh. Costs 3L − 1 GEMMs, and an inverse a layer at each refresh.
    """
    return density.energy(x) + anchor.log_normalizer()


def sml(density: Flow, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns E(x) − E(x̃) with x̃ ~ p_θ, exact samples held constant.

    The gradient is unbiased for the likelihood's; the value tends to 0 and is not a likelihood.
    Costs 7L − 2 GEMMs, L of them the sampler's triangular solves, and an LU of every W.

    Source: Chao et al. (2023), arXiv:2305.15267, without its code's factor 1/2.
    """
    samples = density.sample(len(x), generator=generator)
    return density.energy(x) - density.energy(samples)


def dsm(
    density: LogDensity, x: Tensor, *, generator: torch.Generator, sigma: float = 0.3
) -> Tensor:
    """Returns ½ ‖s(x + σn) + n/σ‖² with n ~ N(0, I).

    Unbiased, up to a constant, for the Fisher divergence from the data *smoothed by σ*: the
    fitted density is p * N(0, σ²), not p. Costs 6L − 1 GEMMs.

    Source: A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011).
    """
    noise = normal(x.shape, x, generator)
    residual = density.score(torch.add(x, noise, alpha=sigma)) + noise / sigma
    return 0.5 * sum_event(residual * residual, x)


def ssm(density: LogDensity, x: Tensor, *, generator: torch.Generator, slices: int = 1) -> Tensor:
    """Returns the mean over K Rademacher slices v of ½ (v·s)² + v·H·v.

    Unbiased for ½‖s‖² + tr H. Taylor mode: one sweep of jets, 9L − 5 GEMMs at K = 1, all of a
    layer's in one call.

    Source: Sliced Score Matching (Song, Garg, Shi, Ermon, 2019), arXiv:1905.07088.
    """
    v = rademacher((len(x), slices, *x.shape[1:]), x, generator).transpose(0, 1)
    slope, curvature = density.directional(x, v)
    return (0.5 * slope * slope + curvature).mean(0)


def ssm_vr(
    density: LogDensity, x: Tensor, *, generator: torch.Generator, slices: int = 1
) -> Tensor:
    """Returns ½‖s‖² + the mean over K Rademacher slices of v·H·v.

    Unbiased for ½‖s‖² + tr H. Only the trace is sliced, which near the fit has less variance than
    ``ssm``; at a single point it may have more.
    Costs 9L − 2 GEMMs at K = 1 and 3L − 1 for every further slice, which shares the score.

    Source: Song, Garg, Shi, Ermon (2019), arXiv:1905.07088.
    """
    v = rademacher((len(x), slices, *x.shape[1:]), x, generator).transpose(0, 1)
    score, curvature = density.score_and_curvature(x, v)
    return 0.5 * sum_event(score * score, x) + curvature.mean(0)


def fd_ssm(
    density: LogDensity, x: Tensor, *, generator: torch.Generator, epsilon: float = 0.1
) -> Tensor:
    """Returns D/ε² · [(E₊ − E₋)²/8 + 2E − E₊ − E₋], E± = E(x ± v), v uniform with ‖v‖ = ε.

    Unbiased for ½‖s‖² + tr H up to O(ε²); three energies in one batch of 3B, no second
    derivative: 9L − 3 GEMMs. In float32 the value carries rounding of about D/ε² ulp(E) a sample:
    some 10 nats at D = 784, ε = 0.1.

    Source: Efficient Learning of Generative Models via Finite-Difference Score Matching (Pang,
    Xu, Li, Song, Ermon, Zhu, 2020), arXiv:2007.03317.
    """
    v = normal(x.shape, x, generator)
    v = v * (epsilon / sum_event(v * v, x).sqrt()).view(-1, *[1] * (x.ndim - 1))
    here, plus, minus = density.energy(torch.cat([x, x + v, x - v])).chunk(3)
    size = x[0].numel()
    return size / epsilon**2 * ((plus - minus) ** 2 / 8 + 2 * here - plus - minus)


OBJECTIVES = {f.__name__: f for f in (ml, relative_ml, lazy_ml, sml, dsm, ssm, ssm_vr, fd_ssm)}
