r"""Imputation of images by Markov chains that need only a score, and its error.

Langevin's discretized diffusion

.. math:: x \leftarrow x + \varepsilon\, s(x) + \sqrt{2 \varepsilon}\, z, \qquad z \sim N(0, I),

samples the density for small :math:`\varepsilon`. For a Gaussian with precision P its mean is
exact at any step, and its covariance is :math:`P^{-1} (I - \varepsilon P / 2)^{-1}`.

A *sampler* is a function ``(density, x, *, generator, free) -> x``. It moves the elements of
``x``, with shape (B, *event), where the boolean tensor ``free`` is true. It uses no gradients, and
one score a step: 2 L GEMMs for a dense flow.
"""

import math
from itertools import takewhile
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ebflow.bijections.weighted import fixed_weights
from ebflow.density import LogDensity
from ebflow.errors import NonFinite
from ebflow.estimates import Estimate
from ebflow.flow import Flow
from ebflow.randomness import Generator, normal, uniform


class Sampler(Protocol):
    """A Markov chain on the free elements."""

    def __call__(
        self, density: LogDensity, x: Tensor, *, generator: Generator, free: Tensor | None
    ) -> Tensor:
        """Returns the last states of the chains that start at ``x``."""
        ...


@torch.no_grad()
def impute(
    flow: Flow,
    x: Tensor,
    missing: Tensor,
    *,
    generator: torch.Generator,
    draws: int,
    sampler: Sampler,
) -> Tensor:
    """Returns samples of rows given their observed elements, with shape (N, K, *event).

    The missing elements start at N(0, 1) behind the leading layers that do the same to every
    element. Later layers, such as whitening, belong to the density.

    Arguments:
        flow: The flow, preprocessing included.
        x: Raw data with shape (N, *event); the missing elements may have any value.
        missing: True where an element is missing, broadcastable to ``x``.
        generator: The source of all random numbers.
        draws: K, the number of samples of a row.
        sampler: The chain.
    """
    layers = list(flow.layers)
    count = len(list(takewhile(lambda layer: layer.pixelwise, layers)))
    elementwise = Flow(flow.event_shape, layers[:count], n_preprocessing=count).to(flow.dtype)
    rows, free = (t.repeat_interleave(draws, 0) for t in (x, missing.expand(x.shape)))
    with fixed_weights(flow):
        y = elementwise.preprocess(rows.masked_fill(free, 0), generator=generator)
        y = torch.where(free, normal(y.shape, y, generator), y)
        y = sampler(flow.after(count), y, generator=generator, free=free)
        samples = torch.where(free, elementwise.from_latent(y).to(x.dtype), rows)
    return samples.view(len(x), draws, *x.shape[1:])


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
    the other half, and moves x by δ v. With ρ = 0 this is the line above. The distribution at the
    end is the same for every ρ, exactly so for a Gaussian. If curvatures differ by a factor κ,
    the chain needs κ steps without momentum and √κ with a ρ of about 1 − 1/√κ.

    Source: Generalized Hamiltonian Monte Carlo as in A generalized guided Monte Carlo algorithm
    (Horowitz, 1991), Physics Letters B 268, without its test of acceptance.

    Arguments:
        density: The density, up to a constant.
        x: The first states, with shape (B, *event).
        generator: The source of z.
        free: The elements that move, broadcastable to ``x``; None: all.
        step: ε, in squared units of ``x``; stable below 2 / the largest curvature of −log p.
        steps: The number of steps.
        momentum: ρ in [0, 1), the share of the velocity that a step keeps.

    Raises:
        NonFinite: if the chains diverge.
    """
    delta, velocity = math.sqrt(2 * step), torch.zeros_like(x)
    for _ in range(steps):
        kick = delta / 2 * density.at(x).score
        fresh = math.sqrt(1 - momentum**2) * normal(x.shape, x, generator)
        velocity = momentum * (velocity + kick) + fresh + kick
        x = _moved(x, x + delta * velocity, free)
    return _finite(x, "langevin: lower the step")


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
    """Runs the chain of the flow's paper: drift, smoothing and noise of adapted size.

    With r = (mean ‖n‖ / mean ‖s‖)², n ~ N(0, I), norms of whole images, means over the batch:
    x ← x + ½h² s + c (blur(x) − x) + snr · r · h · n, and no noise in the last step. The blur has
    a new width in U(0.1, 2) pixels at every step. The chain does not sample the density; it ends
    at a picture near a mode.

    Source: Chao et al. (2023), arXiv:2305.15267; Score-Based Generative Modeling through
    Stochastic Differential Equations (Song et al., 2021), arXiv:2011.13456, for the adapted noise.

    Arguments:
        density: The density, up to a constant.
        x: The first states, with shape (B, *event).
        generator: The source of n and of the blur's widths.
        free: The elements that move, broadcastable to ``x``; None: all.
        image: (C, H, W), if events are images in rows.
        steps: The number of steps.
        h: h, in the units of ``x``.
        snr: The size of the noise.
        smoothing: c; the paper has 0.05 for STL-10 and 0.01 for CelebA.

    Raises:
        NonFinite: if the chains diverge.
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

    Langevin's drift is stable for steps below 2 / this value. The result approaches it from below.

    Cost: one score and ``iterations`` backward passes through it.

    Arguments:
        density: The density, up to a constant.
        x: The points, with shape (B, *event).
        generator: The source of the first directions.
        free: The elements that move, broadcastable to ``x``, for their block of −∇s; None: all.
        iterations: The number of products with ∇s, which is symmetric.
    """
    v = normal(x.shape, x, generator)
    fixed = torch.zeros_like(v)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = density.at(x).score
    for _ in range(iterations):
        v = F.normalize(_moved(fixed, v, free).flatten(1)).view_as(v)
        v = torch.autograd.grad(score, x, v, retain_graph=True)[0]
    return float(_moved(fixed, v, free).flatten(1).norm(dim=1).max())


def imputation_error(truth: Tensor, imputed: Tensor, missing: Tensor) -> Estimate:
    """Returns the root-mean-square error of a missing element, in raw units.

    A sample of the true conditional distribution has √2 times the error of its mean; to judge the
    mean, average several samples. The standard error is that of a ratio of sums over images, by
    the delta method.

    Arguments:
        truth: Raw data with shape (B, *event).
        imputed: The imputed data, broadcastable to ``truth``.
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
    terms = (squares - mean_square * counts) / counts.mean()
    se, error = Estimate.of(terms, name="imputation").se, float(mean_square.sqrt())
    return Estimate(error, se / (2 * error) if error else 0.0, len(terms))


def _moved(x: Tensor, target: Tensor, free: Tensor | None) -> Tensor:
    return target if free is None else torch.where(free, target, x)


def _finite(x: Tensor, hint: str) -> Tensor:
    if not x.isfinite().all():
        raise NonFinite(f"{hint}; found values that are not finite")
    return x
