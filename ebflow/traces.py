r"""Estimators of the trace of a log-density's Hessian.

Let :math:`f = \log p = -E`, :math:`g = \nabla f`, :math:`H = \nabla^2 f`, and u a random direction
with :math:`E[u u^\top] = I`. With one direction each of these has the mean
:math:`\operatorname{tr} H`, the differences up to :math:`O(\sigma^2)`:

==============  =======================================  ============
``hutchinson``  u·H·u                                    V
``taylor``      2 [f(x + σu) − f(x)] / σ²                V + 4‖g‖²/σ²
``taylor_cv``   2 [f(x + σu) − f(x) − σ g·u] / σ²        V
``two_sided``   [f(x + σu) + f(x − σu) − 2 f(x)] / σ²    V
``exact``       tr H                                     0
==============  =======================================  ============

The last column is the variance to leading order in σ, exact where f is quadratic; V is that of
:math:`u^\top H u`, 2‖H‖² for Gaussian directions. The linear term that ``taylor`` drops has mean
zero and, at small σ, nearly all of the variance; g is at hand, so ``taylor_cv`` costs no more.
The differences have the bias :math:`\tfrac{\sigma^2}{4} \Delta^2 f` with Gaussian directions and
:math:`\tfrac{\sigma^2}{12} (3 \Delta^2 f - 2 \sum_i \partial_i^4 f)` with signs, to leading order;
``taylor`` has a further variance of :math:`4 \, g \cdot \nabla \operatorname{tr} H`, whatever σ.

Rademacher signs see the diagonal of H without noise; orthogonal directions do not look the same
way twice. Draws have the batch as their first dimension: a row's directions are its own.

A difference of energies of rounding error η|f| has one of about 2η|f|/σ²: at σ = 0.03 and
|f| = 1000 it is 0.3 nats in float32. It is refused below float32, where nothing would be left:
TF32 and bfloat16 have a relative error of about 1e-3, which such a difference multiplies by 2,000.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, for ``taylor``; Efficient Learning of Generative
Models via Finite-Difference Score Matching (Pang et al., 2020), arXiv:2007.03317, for
``two_sided``.
"""

__all__ = ["DIFFERENCES", "DIRECTIONS", "ESTIMATORS", "directions", "exact",
           "full_products", "hutchinson", "taylor", "taylor_cv", "two_sided",
           "variance"]  # fmt: skip

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .density import LogDensity, sum_event
from .randomness import Generator, normal, rademacher

Traces = tuple[Tensor, Tensor]
"""The score with shape (B, *event), and one estimate a direction with shape (K, B)."""


def hutchinson(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and u·H·u; a tangent sweep, or a second backward pass, for every direction."""
    return density.score_and_curvature(x, u)


def exact(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and tr H, with K = 1, whatever the directions."""
    score, laplacian = density.score_and_laplacian(x)
    return score, laplacian.unsqueeze(0)


def taylor(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and 2 [f(x + σu) − f(x)] / σ²; one energy for every direction."""
    score, rise = _rise(density, x, step * u)
    return score, 2 / step**2 * rise


def taylor_cv(density: LogDensity, x: Tensor, u: Tensor, step: float) -> Traces:
    """Returns s and 2 [f(x + σu) − f(x) − σ g·u] / σ²; one energy for every direction.

    The control variate stays in the graph: of the gradient it takes noise as of the value.
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
"""The estimators from energies alone; all of a batch's directions in one pass."""

ESTIMATORS = {f.__name__: f for f in (hutchinson, exact)} | DIFFERENCES


def variance(
    estimator: str,
    gradient: Tensor,
    hessian: Tensor,
    *,
    directions: str = "gaussian",
    slices: int = 1,
    step: float = 1.0,
) -> Tensor:
    """Returns the variance of the mean of K estimates at a point, with shape (B,).

    It is the leading order in the step, and exact for a quadratic f.

    Arguments:
        estimator: A name in ``ESTIMATORS``.
        gradient: g, with shape (B, D).
        hessian: H, with shape (B, D, D).
        directions: A name in ``DIRECTIONS``.
        slices: K.
        step: σ.
    """
    if estimator == "exact":
        return gradient.new_zeros(len(gradient))
    linear = 4 / step**2 * gradient.square().sum(1) if estimator == "taylor" else 0.0
    return (_of_form(hessian, directions, slices) + linear) / slices


def _of_form(hessian: Tensor, directions: str, slices: int) -> Tensor:
    """Returns K times the variance of the mean of u·H·u over K directions."""
    size, squares = hessian.shape[-1], hessian.square().sum((1, 2))
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    if directions == "gaussian":
        return 2 * squares
    if directions == "rademacher":
        return 2 * (squares - diagonal.square().sum(1))
    spread = 2 * size / (size + 2) * (squares - diagonal.sum(1).square() / size)
    # All D orthogonal directions give the trace itself, which fixes the covariance of two.
    return spread * (1 - (slices - 1) / max(size - 1, 1)) if directions == "orthogonal" else spread


def _sphere(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    draw = normal(shape, like, generator)
    return _scaled(draw.flatten(2)).view(shape)


def _orthogonal(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    """Rows of a Haar-distributed matrix: the Q of a normal draw, R's diagonal made positive."""
    draw = normal(shape, like, generator).flatten(2)
    if shape[1] > draw.shape[2]:
        raise ValueError(
            f"slices: found {shape[1]}, expected at most D = {draw.shape[2]} orthogonal directions"
        )
    q, r = torch.linalg.qr(draw.mT)
    basis = (q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)).mT
    return _scaled(basis).view(shape)


def _scaled(rows: Tensor) -> Tensor:
    return rows * (math.sqrt(rows.shape[2]) / rows.norm(dim=2, keepdim=True))


DIRECTIONS: dict[str, Callable[[Sequence[int], Tensor, Generator], Tensor]] = {
    "rademacher": rademacher,
    "gaussian": normal,
    "sphere": _sphere,
    "orthogonal": _orthogonal,
}
"""From a shape (B, K, *event) to directions: signs; N(0, I); uniform of norm √D; the same and, of
one example, orthogonal to each other (K ≤ D, O(B D K²))."""


def directions(kind: str, slices: int, x: Tensor, generator: Generator) -> Tensor:
    """Returns directions at ``x`` with shape (K, B, *event).

    Raises:
        ValueError: if there is no such kind, or more orthogonal directions than dimensions.
    """
    if kind not in DIRECTIONS:
        raise ValueError(f"directions: found {kind!r}, expected one of {', '.join(DIRECTIONS)}")
    return DIRECTIONS[kind]((len(x), slices, *x.shape[1:]), x, generator).transpose(0, 1)


def full_products(x: Tensor) -> None:
    """Raises ValueError unless products of tensors like ``x`` have the full float32 precision.

    It is looked at in the forward pass; the backward pass needs the same.
    """
    found = "highest"
    if x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type):
        found = "half precision"
    elif x.dtype == torch.float32:
        found = torch.get_float32_matmul_precision()
        if x.is_cuda and torch.backends.cudnn.allow_tf32:
            found = "TF32 convolutions"
    if found != "highest":
        raise ValueError(
            f"precision: found {found}, expected highest: differences of energies have no digits "
            'otherwise (torch.set_float32_matmul_precision("highest"), '
            "torch.backends.cudnn.allow_tf32 = False, no autocast)"
        )
