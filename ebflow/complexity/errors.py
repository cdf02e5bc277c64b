r"""Distances of a learned score from the true one, which count rare errors differently.

For errors :math:`e = \|\hat s(x) - s(x)\|` at points x of probability w:

.. math:: L_2 = \sqrt{E e^2}, \qquad D^\delta = \inf\{e_0 : \Pr[e \ge e_0] \le \delta\}.

By Markov's inequality :math:`D^\delta \le L_2 / \sqrt\delta`. There is no converse: an error on
mass below δ does not count in :math:`D^\delta`. Multiplied by σ, both are dimensionless. A
denoiser D has the score :math:`(D(x, \sigma) - x) / \sigma^2`, so
:math:`\sigma e = \|\hat D - D\| / \sigma`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .instances import Stratified
from .truths import Truth

#: From x with shape (N, D) and σ to the mean of x₀, with shape (..., N, D)
Denoiser = Callable[[Tensor, float], Tensor]


def l2(errors: Tensor, weights: Tensor) -> Tensor:
    """Returns √(E e²), for ``errors`` with shape (..., N) and weights (N,)."""
    return (errors.square() @ weights.to(errors.dtype)).sqrt()


def quantile(errors: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Returns Dᵟ, the (1 − δ)-quantile, for ``errors`` with shape (..., N) and weights (N,).

    Raises:
        ValueError: unless 0 ≤ δ < 1.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta: found {delta}, expected 0 ≤ delta < 1")
    sizes, order = errors.sort(dim=-1, descending=True)
    mass = weights.double()[order].cumsum(-1)
    index = (mass <= delta).sum(-1, keepdim=True).clamp(max=sizes.shape[-1] - 1)
    return sizes.gather(-1, index).squeeze(-1)


@torch.no_grad()
def denoising_errors(
    denoise: Denoiser,
    truth: Truth,
    sigma: float,
    *,
    deltas: Sequence[float] = (0.1,),
    points: int = 200,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Returns the ``measures`` of the errors of any denoiser at one noise level, times σ.

    Cost: ``points`` evaluations of the denoiser and of the truth for each component. Of several
    denoisers the results have more leading dimensions.
    """
    test = truth.stratified(points, sigma, generator=generator)
    gaps = denoise(test.noisy, sigma) - truth.denoise(test.noisy, sigma)
    return measures(gaps.norm(dim=-1) / sigma, test, deltas)


def measures(scaled: Tensor, test: Stratified, deltas: Sequence[float]) -> dict[str, Tensor]:
    """Returns ``sigma_l2``, and ``sigma_d_DELTA`` for every δ, of σ e with shape (..., N)."""
    return {
        "sigma_l2": l2(scaled, test.weights),
        **{f"sigma_d_{delta:g}": quantile(scaled, test.weights, delta) for delta in deltas},
    }


def summary(scaled: Tensor, test: Stratified, deltas: Sequence[float]) -> dict[str, Tensor]:
    """Returns the ``measures``, and ``sigma_l2_bulk`` and ``sigma_l2_far``.

    The last two count only the errors in the bulk, and only those at the far mode. Their squares
    sum to that of ``sigma_l2``.
    """
    far = test.component > 0
    return measures(scaled, test, deltas) | {
        "sigma_l2_bulk": l2(scaled, test.weights * ~far),
        "sigma_l2_far": l2(scaled, test.weights * far),
    }


def over_levels(levels: Sequence[Mapping[str, Tensor]], delta: float) -> dict[str, Tensor]:
    """Returns the errors over all N levels of a sampler, with shape (E,).

    ``levels_l2`` and ``levels_q`` are the root mean squares over levels of the L2 error and Dᵟ.
    ``levels_d`` is the largest Dᵟ with δ/N, which the theorems of sampling require.
    """
    names = {"l2": "sigma_l2", "q": f"sigma_d_{delta:g}"}
    columns = {k: torch.stack([one[name] for one in levels]) for k, name in names.items()}
    rare = torch.stack([one[f"sigma_d_{delta / len(levels):g}"] for one in levels])
    means = {f"levels_{k}": values.square().mean(0).sqrt() for k, values in columns.items()}
    return means | {"levels_d": rare.amax(0)}
