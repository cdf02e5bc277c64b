r"""The asymptotic efficiency of score matching: samples needed, relative to maximum likelihood.

An estimator with :math:`\sqrt n (\hat\theta - \theta) \to N(0, \Gamma)` needs more samples by the
ratio of Γ to the inverse Fisher information. Here θ is the weight of a mode, by quadrature:
θ = logit w of :math:`w N(a, 1) + (1 - w) N(-a, 1)`. With :math:`r = \mathrm{sigmoid}(\theta +
2 a x)`, :math:`s = -x + a (2 r - 1)` and :math:`\psi = ds/d\theta`, implicit score matching has
the estimating function :math:`h = s \psi + \psi'` and

.. math:: \Gamma = \frac{E h^2}{(E \psi^2)^2}, \qquad
    \Gamma_{ML} = \frac{1}{\operatorname{Var} r}, \qquad
    \frac{\Gamma}{\Gamma_{ML}} \to \frac{a}{\sqrt{2 \pi}}\, e^{a^2/2} \quad (w = \tfrac12).

Denoising at σ, averaged over the noise, replaces 1 by V = 1 + σ² in s and r, and h by its mean
over the noise. If the noise is as wide as the distance of the modes, it is as efficient as
maximum likelihood.

Source: Statistical Efficiency of Score Matching: The View from Isoperimetry (Koehler, Heckett,
Risteski, 2022), arXiv:2210.00726, for the exponential loss in cuts.
"""

__all__ = ["estimates", "mode_weight", "mode_weight_ml"]

import math

import numpy as np
import torch
from torch import Tensor

NODES = 4001
"""Nodes of the trapezium rule over x; for smooth functions that vanish, its error is rounding."""

HERMITE = 12
"""Nodes of the Gauss-Hermite rule over the noise of an estimate."""

WIDE = 80
"""Nodes of the Gauss-Hermite rule for asymptotic values."""

CHUNK = 1 << 15
"""Samples at a time, so that they stay in the cache."""

STEPS, REACH = 6, 2.0
"""The number of steps of Newton's method, and the length of the longest."""


def mode_weight_ml(a: float, w: float = 0.5) -> float:
    """Returns Γ of maximum likelihood, 1 / Var r; 1/(w (1 − w)) for modes far apart."""
    x, p = _line(a, w, 1.0)
    r = _responsibility(x, _logit(w), a, 1.0)
    mean = p @ r
    return float(1 / (p @ (r - mean) ** 2))


def mode_weight(a: float, sigma: float = 0.0, w: float = 0.5) -> float:
    """Returns Γ of implicit score matching, or of denoising, averaged over noise of ``sigma``."""
    theta, variance = _logit(w), 1 + sigma**2
    x, p = _line(a, w, 1.0)
    h = _averaged(x, theta, a, sigma, WIDE)
    y, q = _line(a, w, variance)
    slope = _psi(_responsibility(y, theta, a, variance), a, variance)
    return float(p @ h**2 / (q @ slope**2) ** 2)


def estimates(x: Tensor, a: float, sigma: float | None) -> Tensor:
    """Returns θ̂ of every trial by Newton's method, started at 0, with shape (trials,).

    Arguments:
        x: Samples with shape (trials, n).
        a: Half the distance of the modes.
        sigma: The noise of denoising score matching, which is averaged by quadrature; 0: implicit
            score matching; None: maximum likelihood.
    """
    parts = x.split(max(1, CHUNK // x.shape[1]))
    return torch.cat([_root(part, a, sigma) for part in parts])


def _root(x: Tensor, a: float, sigma: float | None) -> Tensor:
    """Returns the θ at which the mean of the estimating function is 0, with shape (trials,)."""
    theta = x.new_zeros(len(x), 1)
    for _ in range(STEPS):
        theta.requires_grad_()
        if sigma is None:
            value = torch.sigmoid(theta) - _responsibility(x, theta, a, 1.0)
        else:
            value = _averaged(x, theta, a, sigma, HERMITE)
        value = value.mean(1, keepdim=True)
        slope = torch.autograd.grad(value.sum(), theta)[0]
        theta = theta.detach() - (value.detach() / slope.abs()).clamp(-REACH, REACH)
    return theta[:, 0]


def _averaged(x: Tensor, theta: Tensor | float, a: float, sigma: float, nodes: int) -> Tensor:
    """Returns the mean of h over the noise, by quadrature."""
    pairs = zip(*_hermite(nodes if sigma else 1), strict=True)
    terms = (w * _estimating(x + sigma * z, theta, a, 1 + sigma**2) for z, w in pairs)
    return sum(terms, start=torch.zeros(()))


def _hermite(count: int) -> tuple[Tensor, Tensor]:
    """Returns the nodes and weights of a mean over N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def _responsibility(x: Tensor, theta: Tensor | float, a: float, variance: float) -> Tensor:
    return torch.sigmoid(theta + 2 * a * x / variance)


def _psi(r: Tensor, a: float, variance: float) -> Tensor:
    return 2 * a / variance * r * (1 - r)


def _estimating(x: Tensor, theta: Tensor | float, a: float, variance: float) -> Tensor:
    """Returns h = s ψ + ψ'."""
    r = _responsibility(x, theta, a, variance)
    psi = _psi(r, a, variance)
    s = (a * (2 * r - 1) - x) / variance
    return s * psi + 2 * a / variance * psi * (1 - 2 * r)


def _line(a: float, w: float, variance: float) -> tuple[Tensor, Tensor]:
    """Returns points and their probabilities under the mixture with this variance."""
    deviation = math.sqrt(variance)
    reach = a + 12 * deviation
    x = torch.linspace(-reach, reach, NODES, dtype=torch.float64)
    sides = ((x - a) / deviation) ** 2, ((x + a) / deviation) ** 2
    p = w * torch.exp(-0.5 * sides[0]) + (1 - w) * torch.exp(-0.5 * sides[1])
    return x, p / p.sum()


def _logit(w: float) -> float:
    return math.log(w / (1 - w))
