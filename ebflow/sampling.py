r"""Sampling by a score alone, and the error of what it puts in place of missing elements.

Langevin's discretized diffusion

.. math:: x \leftarrow x + \varepsilon\, s(x) + \sqrt{2 \varepsilon}\, z, \qquad z \sim N(0, I),

has the density as its law for small :math:`\varepsilon`; of a Gaussian with precision P the mean
is exact at any step and the covariance is :math:`P^{-1} (I - \varepsilon P / 2)^{-1}`. A flow has
exact samples without it (``Flow.sample``), yet not conditionally on some of its elements.

A *sampler* is a function ``(density, x, *, generator, free) -> x`` that moves the elements of
``x``, with shape (B, *event), where the boolean tensor ``free`` is true, and holds the others. All
computes without gradients, at one score a step: 2 L GEMMs for a dense flow.
"""

__all__ = ["Sampler", "adaptive_langevin", "annealed_langevin", "blur", "imputation_error",
           "langevin", "largest_curvature"]  # fmt: skip

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .density import LogDensity
from .errors import NonFinite
from .estimates import Estimate
from .randomness import Generator, normal, uniform


class Sampler(Protocol):
    """A Markov chain on the elements that are free."""

    def __call__(
        self, density: LogDensity, x: Tensor, *, generator: Generator, free: Tensor | None
    ) -> Tensor:
        """Returns where the chains end that begin at ``x``."""
        ...


@torch.no_grad()
def langevin(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    free: Tensor | None = None,
    step: float = 1e-2,
    steps: int = 1000,
    momentum: float = 0.0,
) -> Tensor:
    """Runs x ← x + ε s(x) + √(2ε) z, or the same with momentum.

    With δ = √(2ε), a velocity v gets half a kick ½δ s, is refreshed to ρ v + √(1 − ρ²) z, gets
    the other half, and moves x by δ v. With ρ = 0 this is the line above. The law at the end is
    the same for every ρ, that of a Gaussian exactly so; what takes κ steps without momentum, for
    curvatures that differ by a factor κ, takes √κ with a ρ of about 1 − 1/√κ.

    Source: Generalized Hamiltonian Monte Carlo as in A generalized guided Monte Carlo algorithm
    (Horowitz, 1991), Physics Letters B 268, without its test of acceptance.

    Arguments:
        density: The density, up to a constant.
        x: Where the chains begin, with shape (B, *event).
        generator: Where z comes from.
        free: Which elements move, broadcastable to ``x``; None: all.
        step: ε, in squared units of ``x``; stable below 2 / the largest curvature of −log p.
        steps: The number of steps.
        momentum: ρ in [0, 1), the share of the velocity that a step keeps.

    Raises:
        NonFinite: if the chains have left every bound.
    """
    delta, velocity = math.sqrt(2 * step), torch.zeros_like(x)
    for _ in range(steps):
        kick = delta / 2 * density.at(x).score
        fresh = math.sqrt(1 - momentum**2) * normal(x.shape, x, generator)
        velocity = momentum * (velocity + kick) + fresh + kick
        x = _moved(x, x + delta * velocity, free)
    return _finite(x, "langevin: lower the step")


def annealed_langevin(
    density: Callable[[float], LogDensity],
    x: Tensor,
    *,
    generator: Generator,
    ladder: Sequence[float],
    free: Tensor | None = None,
    step: float = 1e-2,
    steps: int = 100,
) -> Tensor:
    """Runs Langevin's diffusion at one noise level after another, from the coarse to the fine.

    At level σ the step is ε σ²/σ_L², with σ_L the last one: a ratio of drift to noise that does
    not depend on the level. What is near to each other under coarse noise may change places, so
    that modes get their weights, which plain Langevin leaves as they were.

    Source: Generative Modeling by Estimating Gradients of the Data Distribution (Song, Ermon,
    2019), arXiv:1907.05600.

    Arguments:
        density: From σ to the density smoothed by σ. A density of one level is given by
            ``lambda sigma: density``, and only the step is then annealed.
        x: Where the chains begin, with shape (B, *event).
        generator: Where the noise comes from.
        ladder: The levels σ, from the largest to the least, in the units of ``x``.
        free: Which elements move; None: all.
        step: ε of the last level.
        steps: The number of steps at each level.
    """
    for sigma in ladder:
        scaled = step * (sigma / ladder[-1]) ** 2
        x = langevin(density(sigma), x, generator=generator, free=free, step=scaled, steps=steps)
    return x


@torch.no_grad()
def adaptive_langevin(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    free: Tensor | None = None,
    image: tuple[int, int, int] | None = None,
    steps: int = 500,
    h: float = 0.5,
    snr: float = 0.1,
    smoothing: float = 0.05,
) -> Tensor:
    """Runs drift, smoothing and noise of adapted size on images: what the flow's paper imputes by.

    With r = (mean ‖n‖ / mean ‖s‖)², n ~ N(0, I), norms of whole images, means over the batch:
    x ← x + ½h² s + c (blur(x) − x) + snr · r · h · n, and no noise in the last step. The blur has
    a new width in U(0.1, 2) pixels at every step. The law of the chain is not the density's; it
    is a picture near a mode.

    Source: Chao et al. (2023), arXiv:2305.15267; Score-Based Generative Modeling through
    Stochastic Differential Equations (Song et al., 2021), arXiv:2011.13456, for the adapted noise.

    Arguments:
        density: The density, up to a constant.
        x: Where the chains begin, with shape (B, *event).
        generator: Where n and the blur's widths come from.
        free: Which elements move, broadcastable to ``x``; None: all.
        image: (C, H, W), if events are images in rows.
        steps: The number of steps.
        h: h, in the units of ``x``.
        snr: The size of the noise.
        smoothing: c; the paper has 0.05 for STL-10 and 0.01 for CelebA.

    Raises:
        NonFinite: if the chains have left every bound.
    """
    shape = (len(x), *(image or x.shape[1:]))
    for index in range(steps):
        score, noise = density.at(x).score, normal(x.shape, x, generator)
        width = 0.1 + 1.9 * uniform((1,), x, generator)
        smooth = blur(x.view(shape), width).view(x.shape) - x
        target = x + h**2 / 2 * score + smoothing * smooth
        if index < steps - 1:
            target = target + snr * h * _size(noise, score) * noise
        x = _moved(x, target, free)
    return _finite(x, "adaptive_langevin: lower h or snr")


def _size(noise: Tensor, score: Tensor) -> Tensor:
    """Returns r = (mean ‖n‖ / mean ‖s‖)²."""
    first, second = (t.flatten(1).norm(dim=1).mean() for t in (noise, score))
    return (first / second).square()


def blur(images: Tensor, sigma: Tensor | float) -> Tensor:
    """Returns images convolved with a 5×5 Gaussian, mirrored at their edges.

    Arguments:
        images: With shape (B, C, H, W), H and W at least 3.
        sigma: The standard deviation in pixels.
    """
    at = torch.arange(-2, 3, dtype=images.dtype, device=images.device)
    row = torch.softmax(-0.5 * (at / sigma) ** 2, 0)
    kernel = torch.outer(row, row).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), "reflect"), kernel, groups=images.shape[1])


def largest_curvature(
    density: LogDensity,
    x: Tensor,
    *,
    generator: Generator,
    free: Tensor | None = None,
    iterations: int = 30,
) -> float:
    """Returns the largest eigenvalue of −∇s, in size and over the batch, by power iteration.

    Langevin's drift is stable for steps below 2 / it. It is approached from below.

    Cost: one score and ``iterations`` backward passes through it.

    Arguments:
        density: The density, up to a constant.
        x: Where, with shape (B, *event).
        generator: Where the first directions come from.
        free: Which elements move, broadcastable to ``x``: the block of −∇s of these; None: all.
        iterations: The number of products with ∇s, which is symmetric.
    """
    v = normal(x.shape, x, generator)
    fixed = torch.zeros_like(v)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = density.at(x).score
    for _ in range(iterations):
        v = _unit(_moved(fixed, v, free))
        v = torch.autograd.grad(score, x, v, retain_graph=True)[0]
    return float(_moved(fixed, v, free).flatten(1).norm(dim=1).max())


def _unit(v: Tensor) -> Tensor:
    """Returns ``v`` with events of norm 1; what is 0 stays."""
    return F.normalize(v.flatten(1)).view_as(v)


def imputation_error(truth: Tensor, imputed: Tensor, missing: Tensor) -> Estimate:
    """Returns the root-mean-square error of a missing element, in raw units.

    A draw from the true conditional law has √2 times the error of its mean; to judge the mean,
    average several draws. The standard error is that of a ratio of sums over images, by the
    delta method.

    Arguments:
        truth: Raw data with shape (B, *event).
        imputed: What was put in its place, broadcastable to ``truth``.
        missing: True where an element was missing, broadcastable to ``truth``.

    Raises:
        ValueError: if nothing is missing.
    """
    missing = missing.expand(truth.shape)
    if not missing.any():
        raise ValueError("missing: found no missing element, expected at least one")
    squares = ((imputed.double() - truth.double()).square() * missing).flatten(1).sum(1)
    counts = missing.flatten(1).sum(1).double()
    mean_square = squares.sum() / counts.sum()
    found = Estimate.of((squares - mean_square * counts) / counts.mean(), name="imputation")
    error = float(mean_square.sqrt())
    return Estimate(error, found.se / (2 * error) if error else 0.0, found.count)


def _moved(x: Tensor, target: Tensor, free: Tensor | None) -> Tensor:
    return target if free is None else torch.where(free, target, x)


def _finite(x: Tensor, hint: str) -> Tensor:
    if not x.isfinite().all():
        raise NonFinite(f"{hint}; found values that are not finite")
    return x
