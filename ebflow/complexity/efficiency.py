r"""The asymptotic efficiency of score matching: samples needed, relative to maximum likelihood.

An estimator with :math:`\sqrt n (\hat\theta - \theta) \to N(0, \Gamma)` needs more samples by the
ratio of Γ to the inverse Fisher information. Here θ is the weight of a mode, by quadrature:
θ = logit w of :math:`w N(a, 1) + (1 - w) N(-a, 1)`, at w = ½. With
:math:`r = \mathrm{sigmoid}(\theta + 2 a x)`, :math:`s = -x + a (2 r - 1)` and
:math:`\psi = ds/d\theta`, implicit score matching has the estimating function
:math:`h = s \psi + \psi'` and

.. math:: \Gamma = \frac{E h^2}{(E \psi^2)^2}, \qquad
    \Gamma_{ML} = \frac{1}{\operatorname{Var} r}, \qquad
    \frac{\Gamma}{\Gamma_{ML}} \to \frac{a}{\sqrt{2 \pi}}\, e^{a^2/2}.

Denoising at σ, averaged over the noise, replaces 1 by V = 1 + σ² in s and r, and h by its mean
over the noise. If the noise is as wide as the distance of the modes, it is as efficient as
maximum likelihood.

Source: Statistical Efficiency of Score Matching: The View from Isoperimetry (Koehler, Heckett,
Risteski, 2022), arXiv:2210.00726, for the exponential loss in cuts.
"""

__all__ = ["estimates", "mode_weight", "mode_weight_ml", "pair_truth"]

import numpy as np
import torch
from torch import Tensor

from ..bases import GaussianMixture

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


def pair_truth(a: float, w: float) -> GaussianMixture:
    """Returns w N(a, 1) + (1 − w) N(−a, 1)."""
    means = torch.tensor([[a], [-a]], dtype=torch.float64)
    return GaussianMixture(torch.tensor([w, 1 - w]).to(means), means, torch.ones(2).to(means))


def mode_weight_ml(a: float) -> float:
    """Returns Γ of maximum likelihood, 1 / Var r; 4 for modes far apart."""
    x, p = _line(a, 0.0)
    r = _responsibility(x, 0.0, a, 1.0)
    return float(1 / (p @ (r - 0.5) ** 2))


def mode_weight(a: float, sigma: float = 0.0) -> float:
    """Returns Γ of implicit score matching, or of denoising, averaged over noise of ``sigma``."""
    variance = 1 + sigma**2
    x, p = _line(a, 0.0)
    h = _averaged(x, 0.0, a, sigma, WIDE)
    y, q = _line(a, sigma)
    slope = _psi(_responsibility(y, 0.0, a, variance), a, variance)
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
    """Returns the mean of h over the noise, by a Gauss-Hermite rule."""
    noises, weights = np.polynomial.hermite_e.hermegauss(nodes if sigma else 1)
    pairs = zip(noises, weights / weights.sum(), strict=True)
    terms = (w * _estimating(x + sigma * z, theta, a, 1 + sigma**2) for z, w in pairs)
    return sum(terms, start=torch.zeros(()))


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


def _line(a: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Returns points and their probabilities under the mixture with noise."""
    reach = a + 12 * (1 + sigma**2) ** 0.5
    x = torch.linspace(-reach, reach, NODES, dtype=torch.float64)
    p = pair_truth(a, 0.5).smoothed(sigma).log_prob(x[:, None]).exp()
    return x, p / p.sum()
