r"""Distances of a learned score from the true one, which count rare errors differently.

For errors :math:`e = \|\hat s(x) - s(x)\|` at points x of probability w:

.. math:: L_2 = \sqrt{E e^2}, \qquad D^\delta = \inf\{e_0 : \Pr[e \ge e_0] \le \delta\}.

By Markov's inequality :math:`D^\delta \le L_2 / \sqrt\delta`. There is no converse: an error on
mass below δ does not count in :math:`D^\delta`. The truncated error
:math:`\sqrt{E \min(e, B)^2}` is between the two: it bounds the effect of a rare error. Multiplied
by σ, all are dimensionless. A denoiser D has the score :math:`(D(x, \sigma) - x) / \sigma^2`, so
:math:`\sigma e = \|\hat D - D\| / \sigma`.
"""

__all__ = ["Denoiser", "denoising_errors", "distances", "l2", "measures", "over_levels",
           "quantile", "summary", "survival", "truncated"]  # fmt: skip

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .instances import Score, Stratified

if TYPE_CHECKING:
    from .truths import Truth

Denoiser = Callable[[Tensor, float], Tensor]
"""From x with shape (N, D) and σ to the mean of x₀, with shape (..., N, D)."""


@torch.no_grad()
def distances(learnt: Score, truth: Score, x: Tensor) -> Tensor:
    """Returns ‖ŝ − s‖ with shape (N,), at points with shape (N, D)."""
    return (learnt.score(x) - truth.score(x)).norm(dim=-1)


def l2(errors: Tensor, weights: Tensor, where: Tensor | None = None) -> Tensor:
    """Returns √(E e²), for ``errors`` with shape (..., N) and weights (N,).

    Arguments:
        errors: The errors e.
        weights: The probability of each.
        where: True at the points that count, with shape (N,); None: all.
    """
    weights = weights if where is None else weights * where
    return (errors.square() @ weights.to(errors.dtype)).sqrt()


def quantile(errors: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Returns Dᵟ, the (1 − δ)-quantile, for ``errors`` with shape (..., N) and weights (N,).

    Raises:
        ValueError: unless 0 ≤ δ < 1.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta: found {delta}, expected 0 ≤ delta < 1")
    sizes, mass = survival(errors, weights)
    index = (mass <= delta).sum(-1, keepdim=True).clamp(max=sizes.shape[-1] - 1)
    return sizes.gather(-1, index).squeeze(-1)


def truncated(errors: Tensor, weights: Tensor, bound: float) -> Tensor:
    """Returns √E min(e, B)², for ``errors`` with shape (..., N) and weights (N,)."""
    return l2(errors.clamp(max=bound), weights)


def survival(errors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the errors in descending order, and Pr[e ≥ each of them], with shape (..., N)."""
    sizes, order = errors.sort(dim=-1, descending=True)
    return sizes, weights.double()[order].cumsum(-1)


@torch.no_grad()
def denoising_errors(
    denoise: Denoiser,
    truth: "Truth",
    sigma: float,
    *,
    deltas: Sequence[float] = (0.1,),
    bound: float | None = None,
    points: int = 200,
    generator: torch.Generator | Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """Returns the ``measures`` of the errors of any denoiser at one noise level, times σ.

    Cost: ``points`` × K evaluations of the denoiser and of the truth.

    Arguments:
        denoise: The denoiser of points with shape (N, D), or several of them, whose results have
            one more leading dimension.
        truth: The distribution with exact scores.
        sigma: σ.
        deltas: Masses δ; for a sampler of N levels, the theorems require δ/N at each.
        bound: B, times σ; None: √D, the size of the noise.
        points: Test points per component, also of rare ones, with weights.
        generator: Source of the points; or one for each of E denoisers, which then have their
            own points, with shape (E, N, D).
    """
    alone = isinstance(generator, torch.Generator)
    generators = [generator] if alone else generator
    tests = [truth.stratified(points, sigma, generator=one) for one in generators]
    x = torch.stack([test.noisy for test in tests])
    exact = torch.stack([truth.denoise(noisy, sigma) for noisy in x])
    denoised = denoise(x[0] if alone else x, sigma)
    sizes = (denoised - (exact[0] if alone else exact)).norm(dim=-1) / sigma
    measured = partial(measures, deltas=deltas, bound=bound or exact.shape[-1] ** 0.5)
    if alone:
        return measured(sizes, tests[0].weights)
    each = [measured(size, test.weights) for size, test in zip(sizes, tests, strict=True)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def measures(
    sizes: Tensor, weights: Tensor, deltas: Sequence[float], bound: float
) -> dict[str, Tensor]:
    """Returns ``sigma_l2``, ``sigma_truncated`` and ``sigma_d_DELTA`` for every δ.

    Arguments:
        sizes: σ e with shape (..., N); results have shape (...).
        weights: The probability of each point, with shape (N,).
        deltas: δ.
        bound: The bound of the truncated error, times σ.
    """
    return {
        "sigma_l2": l2(sizes, weights),
        "sigma_truncated": truncated(sizes, weights, bound),
        **{f"sigma_d_{delta:g}": quantile(sizes, weights, delta) for delta in deltas},
    }


def summary(
    errors: Tensor, test: Stratified, sigma: float, deltas: Sequence[float]
) -> dict[str, Tensor]:
    """Returns measures of errors with shape (..., N), times σ, each with shape (...).

    They are ``sigma_l2`` of all points, of the bulk and of the far mode, ``sigma_truncated`` at
    √d, and ``sigma_d_DELTA`` for every δ.
    """
    scaled, weights = sigma * errors, test.weights
    far = test.component > 0
    return {
        "sigma_l2": l2(scaled, weights),
        "sigma_l2_bulk": l2(scaled, weights, ~far),
        "sigma_l2_far": l2(scaled, weights, far),
        "sigma_truncated": truncated(scaled, weights, test.noisy.shape[-1] ** 0.5),
        **{f"sigma_d_{delta:g}": quantile(scaled, weights, delta) for delta in deltas},
    }


def over_levels(levels: Sequence[Mapping[str, Tensor]], delta: float) -> dict[str, Tensor]:
    """Returns the errors over all N levels of a sampler, with shape (E,).

    ``levels_l2``, ``levels_t`` and ``levels_q`` are the root mean squares over levels of the L2
    error, the truncated error and Dᵟ. ``levels_d`` is the largest Dᵟ with δ/N, which the theorems
    of sampling require.
    """
    names = {"l2": "sigma_l2", "t": "sigma_truncated", "q": f"sigma_d_{delta:g}"}
    columns = {k: torch.stack([one[name] for one in levels]) for k, name in names.items()}
    rare = torch.stack([one[f"sigma_d_{delta / len(levels):g}"] for one in levels])
    means = {f"levels_{k}": values.square().mean(0).sqrt() for k, values in columns.items()}
    return means | {"levels_d": rare.amax(0)}
