"""Langevin's diffusion, with momentum and annealed, and its largest stable step."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..density import LogDensity
from ..errors import NonFinite
from ..randomness import normal


class Sampler(Protocol):
    """A Markov chain on the elements that are free."""

    def __call__(
        self, density: LogDensity, x: Tensor, *, generator: torch.Generator, free: Tensor | None
    ) -> Tensor:
        """Returns the ends of the chains that start at ``x``."""
        ...


@torch.no_grad()
def langevin(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    free: Tensor | None = None,
    step: float = 1e-2,
    steps: int = 1000,
    momentum: float = 0.0,
) -> Tensor:
    """Runs x ← x + ε s(x) + √(2ε) z, or the same with momentum.

    With δ = √(2ε), a velocity v gets half a kick ½δ s, becomes ρ v + √(1 − ρ²) z, gets the other
    half, and moves x by δ v. With ρ = 0 this is the line above. The distribution at the end is the
    same for every ρ, exactly so for a Gaussian. If curvatures differ by a factor κ, a chain takes
    about κ steps without momentum, and √κ with a ρ of about 1 − 1/√κ.

    Source: Generalized Hamiltonian Monte Carlo as in A generalized guided Monte Carlo algorithm
    (Horowitz, 1991), Physics Letters B 268, without its test of acceptance.

    Arguments:
        density: The density, up to a constant.
        x: The starts of the chains, with shape (B, *event).
        generator: The source of z.
        free: True where an element moves, broadcastable to ``x``; None: all move.
        step: ε, in squared units of ``x``; stable below 2 / the largest curvature of −log p.
        steps: The number of steps.
        momentum: ρ in [0, 1), the share of the velocity that a step keeps.

    Raises:
        NonFinite: if a chain diverges.
    """
    delta = math.sqrt(2 * step)
    fresh = math.sqrt(1 - momentum**2)
    velocity = torch.zeros_like(x)
    for _ in range(steps):
        kick = delta / 2 * density.score(x)
        noise = normal(x.shape, x, generator)
        velocity = momentum * (velocity + kick) + fresh * noise + kick
        x = finite(moved(x, x + delta * velocity, free), "langevin: lower the step")
    return x


def annealed_langevin(
    density: Callable[[float], LogDensity],
    x: Tensor,
    *,
    generator: torch.Generator,
    levels: Sequence[float],
    free: Tensor | None = None,
    step: float = 1e-2,
    steps: int = 100,
) -> Tensor:
    """Runs Langevin's diffusion at one noise level after another, from the largest to the least.

    At level σ the step is ε σ²/σ_L², with the last level σ_L, so that the ratio of drift to noise
    is the same at each level. Chains pass between modes where the noise is large. The modes so get
    their weights, which Langevin's diffusion at the least level leaves as they are at the start.

    Source: Generative Modeling by Estimating Gradients of the Data Distribution (Song, Ermon,
    2019), arXiv:1907.05600.

    Arguments:
        density: Returns the density smoothed by σ.
        x: The starts of the chains, with shape (B, *event).
        generator: The source of noise.
        levels: The levels σ, in decreasing order, in the units of ``x``.
        free: True where an element moves; None: all move.
        step: ε of the last level.
        steps: The number of steps at each level.
    """
    for sigma in levels:
        scaled = step * (sigma / levels[-1]) ** 2
        x = langevin(density(sigma), x, generator=generator, free=free, step=scaled, steps=steps)
    return x


def largest_curvature(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    free: Tensor | None = None,
    iterations: int = 30,
) -> float:
    """Returns the largest absolute eigenvalue of −∇s over the batch, by power iteration.

    Langevin's drift is stable for steps below 2 / it. The value approaches it from below.

    Cost: one score and ``iterations`` backward passes through it.

    Arguments:
        density: The density, up to a constant.
        x: The points, with shape (B, *event).
        generator: The source of the first directions.
        free: True for the elements whose block of −∇s is meant, broadcastable to ``x``; None: all.
        iterations: The number of products with ∇s, which is symmetric.
    """
    v = normal(x.shape, x, generator)
    fixed = torch.zeros_like(v)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = density.score(x)
    for _ in range(iterations):
        v = F.normalize(moved(fixed, v, free).flatten(1)).view_as(v)
        v = torch.autograd.grad(score, x, v, retain_graph=True)[0]
    return float(moved(fixed, v, free).flatten(1).norm(dim=1).max())


def moved(x: Tensor, target: Tensor, free: Tensor | None) -> Tensor:
    """Returns ``target`` where elements are free, and ``x`` elsewhere."""
    return target if free is None else torch.where(free, target, x)


def finite(x: Tensor, hint: str) -> Tensor:
    """Returns ``x``; raises NonFinite with a hint if a value is infinite or NaN."""
    if not x.isfinite().all():
        raise NonFinite(f"{hint}; found values that are not finite")
    return x
