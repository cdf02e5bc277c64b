r"""Training objectives with one signature, and their directions and trace estimators.

``NAME(density, x, *, generator, **hyperparameters) -> (B,)`` returns one loss per sample in nats,
neither reduced nor divided by the dimension D. With :math:`s = \nabla_x \log p_\theta(x)` and
:math:`H = \nabla_x s`, score matching (Hyvärinen, 2005) minimizes

.. math:: \mathcal{J} = E_{x \sim data} \left[ \tfrac12 \|s\|^2 + \operatorname{tr} H \right]
    = \text{Fisher divergence} + \text{const},

which does not depend on the normalizer. Costs are GEMMs of 2 B D² FLOP for a step (forward and
backward) of a dense flow with L layers; tests compare them with PyTorch's counts.

``ESTIMATORS`` have tr H from directions, and ``DIFFERENCES`` are those of them that subtract
energies, without second derivatives. Lower precisions than float32 raise an error there: see
"Objectives" on the site.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, for ``taylor``; Efficient Learning of Generative
Models via Finite-Difference Score Matching (Pang et al., 2020), arXiv:2007.03317, for
``two_sided``.

A density given a context with shape (B, C) treats K B points as K copies of the batch, one after
another.

    >>> flow = ebflow.architectures.dense((3,))
    >>> ebflow.objectives.dsm(flow, x, generator=torch.Generator(), sigma=0.3).shape
    torch.Size([60])
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .anchor import Anchor
from .bijections.base import sum_event
from .density import LogDensity
from .distribution import FlowDistribution
from .randomness import Generator, normal, rademacher

# The score with shape (B, *event), and one estimate a direction with shape (K, B).
Traces = tuple[Tensor, Tensor]


def hutchinson(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and u·H·u, a tangent sweep or a backward pass for every direction; no step."""
    at = density.at(x)
    curvature = at.curvature(u)  # before the score: the sweep computes the score too
    return at.score, curvature


def taylor(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and 2 [f(x + σu) − f(x)] / σ²; one energy for every direction."""
    score, rise = _rise(density, x, step * u)
    return score, 2 / step**2 * rise


def taylor_cv(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and 2 [f(x + σu) − f(x) − σ g·u] / σ²; one energy for every direction.

    The control variate stays in the graph: it reduces the noise of the gradient too.
    """
    score, rise = _rise(density, x, step * u)
    return score, 2 / step**2 * (rise - step * sum_event(score * u, x))


def two_sided(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and [f(x + σu) + f(x − σu) − 2 f(x)] / σ²; two energies for every direction."""
    score, rise = _rise(density, x, torch.cat([step * u, -step * u]))
    return score, rise.view(2, len(u), len(x)).sum(0) / step**2


def _rise(density: LogDensity, x: Tensor, v: Tensor) -> Traces:
    """Returns s(x), and f(x + v) − f(x) with shape (K, B), all points v in one batch."""
    full_products(x)
    at = density.at(x)
    score, others = at.score, density.at((x + v).flatten(0, 1))
    return score, at.energy - others.energy.view(v.shape[:2])


DIFFERENCES = {f.__name__: f for f in (taylor, taylor_cv, two_sided)}
ESTIMATORS = {"hutchinson": hutchinson, **DIFFERENCES}


def sphere(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    """Returns directions (B, K, *event) that are uniform on the sphere of radius √D."""
    return _scaled(normal(shape, like, generator).flatten(2)).view(shape)


def orthogonal(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    """Returns the same, and the K directions of a row orthogonal to each other; O(B D K²).

    They are rows of a Haar-distributed matrix: the Q of a normal matrix, with R's diagonal made
    positive. All D of them give the exact trace.

    Raises:
        ValueError: if K is larger than D.
    """
    directions = normal(shape, like, generator).flatten(2)
    count, size = directions.shape[1:]
    if count > size:
        raise ValueError(
            f"slices: found {count}, expected at most D = {size} orthogonal directions"
        )
    q, r = torch.linalg.qr(directions.mT)
    signs = r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
    return _scaled((q * signs).mT).view(shape)


def _scaled(rows: Tensor) -> Tensor:
    return rows * (math.sqrt(rows.shape[2]) / rows.norm(dim=2, keepdim=True))


DIRECTIONS = {
    "rademacher": rademacher,
    "gaussian": normal,
    "sphere": sphere,
    "orthogonal": orthogonal,
}


def draw_directions(kind: str, slices: int, x: Tensor, generator: Generator) -> Tensor:
    """Returns directions at ``x`` with shape (K, B, *event).

    Raises:
        ValueError: if ``kind`` is not in ``DIRECTIONS``, or there are more orthogonal directions
            than dimensions.
    """
    if kind not in DIRECTIONS:
        raise ValueError(f"directions: found {kind!r}, expected one of {', '.join(DIRECTIONS)}")
    return DIRECTIONS[kind]((len(x), slices, *x.shape[1:]), x, generator).transpose(0, 1)


def full_products(x: Tensor) -> None:
    """Raises ValueError unless products of tensors like ``x`` have the full float32 precision.

    It checks the forward pass; the backward pass needs the same precision.
    """
    found = "highest" if x.dtype == torch.float64 else torch.get_float32_matmul_precision()
    if x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type):
        found = "half precision"
    elif x.dtype == torch.float32 and x.is_cuda and torch.backends.cudnn.allow_tf32:
        found = "TF32 convolutions"
    if found != "highest":
        raise ValueError(
            f"precision: found {found}, expected highest: differences of energies have no digits "
            'otherwise (torch.set_float32_matmul_precision("highest"), '
            "torch.backends.cudnn.allow_tf32 = False, no autocast)"
        )


#: From a density, data with shape (B, *event) and ``generator`` to (B,) losses in nats
Objective = Callable[..., Tensor]


def ml(density: FlowDistribution, x: Tensor, *, generator: Generator) -> Tensor:
    """Returns −log p(x), the exact negative log-likelihood.

    Unbiased for the Kullback-Leibler divergence up to the data's entropy. Costs 3L − 1 GEMMs
    and, for every dense layer, (2/3 + 2) D³ FLOP: a slogdet and its gradient W⁻ᵀ.
    """
    return density.at(x).energy + density.log_normalizer()


def relative_ml(density: FlowDistribution, x: Tensor, *, generator: Generator) -> Tensor:
    """Returns E(x), whose backward leaves G WᵀW in every dense layer's gradient.

    G is the exact gradient of ``ml``, so the step is exact maximum likelihood in the relative
    geometry, with no inverse and no log-determinant: 4L − 1 GEMMs. The value is not a likelihood:
    it lacks log Z, which would cost O(D³).

    Source: Relative gradient optimization of the Jacobian term in unsupervised deep learning
    (Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen, 2020), arXiv:2006.15090.
    """
    total: Tensor | float = 0.0
    for layer in density.layers:
        step = layer.relative if layer.constant_jacobian else layer.forward_and_log_det
        x, log_det = step(x)
        total = total + log_det
    return density.base.energy(x) - total


def lazy_ml(
    density: FlowDistribution, x: Tensor, *, generator: Generator, anchor: Anchor
) -> Tensor:
    """Returns E(x) + the anchor's first-order log Z: likelihood with a stale W⁻ᵀ.

    Its gradient is the likelihood's but for the drift of the weights since the anchor's last
    refresh. Costs 3L − 1 GEMMs, and an inverse a layer at each refresh.
    """
    return density.at(x).energy + anchor.log_normalizer()


def sml(density: FlowDistribution, x: Tensor, *, generator: Generator) -> Tensor:
    """Returns E(x) − E(x̃) with x̃ ~ p_θ, exact samples held constant.

    The gradient is unbiased for the likelihood's; the value tends to 0 and is not a likelihood.
    Costs 7L − 2 GEMMs, L of them the sampler's triangular solves, and an LU of every W.

    Source: Chao et al. (2023), arXiv:2305.15267, without its code's factor 1/2.
    """
    samples = density.sample(() if density.batch_shape else len(x), generator=generator)
    return density.at(x).energy - density.at(samples).energy


def dsm(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    sigma: float = 0.3,
    antithetic: bool = False,
) -> Tensor:
    """Returns ½ ‖s(x + σn) + n/σ‖² with n ~ N(0, I).

    Unbiased, up to a constant, for the Fisher divergence from the data *smoothed by σ*: the
    fitted density is p * N(0, σ²), not p. Costs 6L − 1 GEMMs.

    Source: A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011).

    Arguments:
        sigma: σ in the units of ``x``.
        antithetic: True for the mean over n and −n, in one batch of 2B: the same mean, and a
            gradient whose variance does not grow as σ falls; 12L − 2 GEMMs.
    """
    if not sigma > 0:
        raise ValueError(f"sigma: found {sigma}, expected a positive number")
    noise, level = normal(x.shape, x, generator), x.new_full((), sigma)
    noises = torch.stack([noise, -noise]) if antithetic else noise.unsqueeze(0)
    points = torch.addcmul(x, level, noises).flatten(0, 1)
    residual = density.at(points).score.view(noises.shape) + noises / level
    return 0.5 * sum_event(residual * residual, x).mean(0)


def exact_sm(density: LogDensity, x: Tensor, *, generator: Generator) -> Tensor:
    """Returns ½‖s‖² + tr H with the exact trace: Hyvärinen's objective, without noise.

    It is the mean of ``ssm``, ``ssm_vr`` and, up to their bias, ``fd_ssm`` and ``taylor_sm`` over
    their directions, at zero variance. ``generator`` is not used.

    For a dense flow of two layers it costs 14 GEMMs, and 12 D³ FLOP for two products of D×D
    matrices and their gradients. For L ≥ 3 it costs D tangents, 6L − 1 + 3 D (L − 1) GEMMs and
    4 D³ FLOP, all of them in memory: use it as a reference, or for small D.

    Source: Estimation of Non-Normalized Statistical Models by Score Matching (Hyvärinen, 2005).
    """
    at = density.at(x)
    return 0.5 * sum_event(at.score * at.score, x) + at.laplacian()


def ssm(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    slices: int = 1,
    directions: str = "rademacher",
) -> Tensor:
    """Returns the mean over K = ``slices`` directions v of ½ (v·s)² + v·H·v.

    Unbiased for ½‖s‖² + tr H. Costs 9L − 5 GEMMs at K = 1, and 3L − 1 for every further slice.
    K orthogonal directions have less variance than K independent ones of the same norm. Signs may
    have less still if H is nearly diagonal.

    Source: Sliced Score Matching (Song, Garg, Shi, Ermon, 2019), arXiv:1905.07088.

    Arguments:
        slices: K; at most D if directions are orthogonal.
        directions: A name in ``DIRECTIONS``.
    """
    v = draw_directions(directions, slices, x, generator)
    slope, curvature = density.at(x).directional(v)
    return (0.5 * slope * slope + curvature).mean(0)


def ssm_vr(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    slices: int = 1,
    directions: str = "rademacher",
) -> Tensor:
    """Returns ½‖s‖² + the mean over K = ``slices`` directions v of v·H·v.

    Unbiased for ½‖s‖² + tr H: the estimator ``hutchinson``. Only the trace is sliced, which near
    the fit has less variance than ``ssm``; at a single point it may have more. Source and
    arguments as there. Costs 9L − 2 GEMMs at K = 1 and 3L − 1 for every further slice, which
    shares the score.
    """
    v = draw_directions(directions, slices, x, generator)
    score, curvature = hutchinson(density, x, v, 0.0)
    return 0.5 * sum_event(score * score, x) + curvature.mean(0)


def taylor_sm(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    estimator: str = "taylor_cv",
    slices: int = 1,
    directions: str = "rademacher",
    step: float = 0.03,
) -> Tensor:
    """Returns ½‖s‖² + the trace of H by differences of energies at a distance of order σ.

    Unbiased for ½‖s‖² + tr H up to O(σ²), by K = ``slices`` directions. No second derivative in x:
    6L − 1 GEMMs for the score, which gives E(x) as well, and 3L − 1 for every further energy, all
    in one batch. Source: as for ``taylor``, with Gaussian directions and σ = 0.01.

    Arguments:
        estimator: ``taylor`` (one-sided), ``taylor_cv`` (with its control variate) or
            ``two_sided``, with two energies for a direction.
        slices, directions: As in ``ssm``.
        step: σ in the units of ``x``: a displacement has norm σ√D.

    Raises:
        ValueError: below float32's precision, or if the estimator is not in ``DIFFERENCES``.
    """
    if estimator not in DIFFERENCES:
        expected = ", ".join(DIFFERENCES)
        raise ValueError(f"estimator: found {estimator!r}, expected one of {expected}")
    u = draw_directions(directions, slices, x, generator)
    score, traces = DIFFERENCES[estimator](density, x, u, step)
    return 0.5 * sum_event(score * score, x) + traces.mean(0)


def fd_ssm(
    density: LogDensity, x: Tensor, *, generator: Generator, epsilon: float = 0.1
) -> Tensor:
    """Returns D/ε² · [(E₊ − E₋)²/8 + 2E − E₊ − E₋], E± = E(x ± v), v uniform with ‖v‖ = ε.

    Unbiased for ½‖s‖² + tr H up to O(ε²); three energies in one batch of 3B, no second
    derivative: 9L − 3 GEMMs. In float32 the value carries rounding of about D/ε² ulp(E) a sample:
    some 10 nats at D = 784, ε = 0.1. Raises ValueError below float32, where the difference has no
    digits.

    Source: Efficient Learning of Generative Models via Finite-Difference Score Matching (Pang,
    Xu, Li, Song, Ermon, Zhu, 2020), arXiv:2007.03317.
    """
    full_products(x)
    v = normal(x.shape, x, generator)
    v = v * (epsilon / sum_event(v * v, x).sqrt()).view(-1, *[1] * (x.ndim - 1))
    here, plus, minus = density.at(torch.cat([x, x + v, x - v])).energy.chunk(3)
    size = x[0].numel()
    return size / epsilon**2 * ((plus - minus) ** 2 / 8 + 2 * here - plus - minus)


OBJECTIVES = {
    f.__name__: f
    for f in (ml, relative_ml, lazy_ml, sml, dsm, exact_sm, ssm, ssm_vr, fd_ssm, taylor_sm)
}
