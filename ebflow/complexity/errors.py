r"""How far a learnt score is from the true one, with a few far errors and without.

With errors :math:`e = \|\hat s(x) - s(x)\|` at points x of probability w:

.. math:: L_2 = \sqrt{E e^2}, \qquad D^\delta = \inf\{e_0 : \Pr[e \ge e_0] \le \delta\}.

By Markov's inequality :math:`D^\delta \le L_2 / \sqrt\delta`, and there is no converse: an error
on mass below δ does not count in :math:`D^\delta`. Between the two is the truncated error
:math:`\sqrt{E \min(e, B)^2}`, which bounds how much a rare error counts. Multiplied by σ all are
without unit; a denoiser D gives the score :math:`(D(x, \sigma) - x) / \sigma^2`, so that
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
        where: Which of them count, with shape (N,); the others as 0. None: all.
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
    """Returns the errors from the largest on, and Pr[e ≥ each of them], with shape (..., N)."""
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
    """Returns the errors of any denoiser at one noise, times σ: those of ``measures``.

    Cost: ``points`` × K evaluations of the denoiser and of the truth.

    Arguments:
        denoise: The denoiser, or several that answer with a dimension of their own in front. It is
            given points with shape (N, D).
        truth: The law with exact scores.
        sigma: σ.
        deltas: Masses δ; of a sampler of N levels, the theorems ask for δ/N at each.
        bound: B, times σ; None: √D, the size of the noise.
        points: Test points of every component, drawn alike of rare ones, weighed by their law.
        generator: Where they come from; or one for each of E denoisers, which are given points of
            their own, with shape (E, N, D).
    """
    alone = isinstance(generator, torch.Generator)
    generators = [generator] if alone else generator
    tests = [truth.stratified(points, sigma, generator=one) for one in generators]
    x = torch.stack([test.noisy for test in tests])
    exact = torch.stack([truth.denoise(noisy, sigma) for noisy in x])
    found = denoise(x[0] if alone else x, sigma)
    sizes = (found - (exact[0] if alone else exact)).norm(dim=-1) / sigma
    told = partial(measures, deltas=deltas, bound=bound or exact.shape[-1] ** 0.5)
    if alone:
        return told(sizes, tests[0].weights)
    each = [told(size, test.weights) for size, test in zip(sizes, tests, strict=True)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def measures(
    sizes: Tensor, weights: Tensor, deltas: Sequence[float], bound: float
) -> dict[str, Tensor]:
    """Returns what is told of σ e with shape (..., N), each with shape (...).

    ``sigma_l2``, ``sigma_truncated`` and ``sigma_d_DELTA`` for every δ.
    """
    return {
        "sigma_l2": l2(sizes, weights),
        "sigma_truncated": truncated(sizes, weights, bound),
        **{f"sigma_d_{delta:g}": quantile(sizes, weights, delta) for delta in deltas},
    }


def summary(
    errors: Tensor, test: Stratified, sigma: float, deltas: Sequence[float]
) -> dict[str, Tensor]:
    """Returns what is told of errors with shape (..., N), times σ, each with shape (...).

    ``sigma_l2``, of bulk and far mode together and of each, ``sigma_truncated``, at √d, and
    ``sigma_d_DELTA`` for every δ.
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


def over_levels(found: Sequence[Mapping[str, Tensor]], delta: float) -> dict[str, Tensor]:
    """Returns the errors over all N levels of a sampler, from those of each, with shape (E,).

    ``levels_l2``, ``levels_t`` and ``levels_q`` are roots of means of squares of the errors in
    mean square, truncated and at δ; ``levels_d`` is the largest Dᵟ with δ/N, which the theorems of
    sampling ask for.
    """
    names = {"l2": "sigma_l2", "t": "sigma_truncated", "q": f"sigma_d_{delta:g}"}
    columns = {k: torch.stack([one[name] for one in found]) for k, name in names.items()}
    rare = torch.stack([one[f"sigma_d_{delta / len(found):g}"] for one in found])
    means = {f"levels_{k}": values.square().mean(0).sqrt() for k, values in columns.items()}
    return means | {"levels_d": rare.amax(0)}
