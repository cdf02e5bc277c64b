r"""An instance on which every empirical minimizer fails, although the truth is trivial.

The truth is N(0, 1), with the score s(x) = −x. Its two rivals are :math:`s \pm g` with a step

.. math:: g(x) = S\, \mathrm{sigmoid}(S (x - t)), \qquad
    \sigma^2 E\, g^2 \approx \sigma^2 S^2\, \bar\Phi(t) = \epsilon^2,

where :math:`\bar\Phi(t)` is the mass beyond t. With the residual :math:`n = y - s(x)` of the
labels, the sum of losses of a rival over that of the truth is

.. math:: \sum_i g(x_i)^2 \mp 2\, g(x_i)\, n_i.

If no sample lies beyond t, g is tiny at all of them. Then the second term decides: one of both
rivals has *less* loss than the truth, and it is the only empirical minimizer. So every minimizer
fails with a probability of about

.. math:: (1 - \bar\Phi(t))^m,

and m must grow as :math:`1 / \bar\Phi(t) = S^2 \sigma^2 / \epsilon^2` for a small error in mean
square. At the (1 − δ)-quantile no rival errs, if δ is above the mass beyond t. A step is two
ReLUs, so the class is one of shallow networks of weights of size S.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, has the score of a mixture with a far component for the step, which
has the same shape; both signs of it, and t as a free parameter, are ours.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .instances import HALF


def tail(at: float) -> float:
    """Returns the mass of N(0, 1) beyond t."""
    return 0.5 * math.erfc(at / math.sqrt(2))


def step_height(at: float, epsilon: float) -> float:
    """Returns the S at which σ S √tail(t) = ε, which is about the error in mean square."""
    return epsilon / (HALF * math.sqrt(tail(at)))


def step(x: Tensor, height: float, at: float) -> Tensor:
    """Returns g(x), with the shape of ``x``."""
    return height * torch.sigmoid(height * (x - at))


def minimizer(
    x: Tensor, residual: Tensor, sizes: Sequence[int], *, height: float, at: float
) -> Tensor:
    """Returns the only empirical minimizer of the first m samples: 0 for s, 1 and 2 for s ± g.

    The result has shape (sizes,). Sums are compared by their logarithms, so there are no ties,
    even if g is below the least positive number at every sample.

    Arguments:
        x: Noisy samples with shape (N,).
        residual: y − s(x), with shape (N,).
        sizes: The increasing m, N at most.
        height: S.
        at: t.
    """
    last = torch.as_tensor(sizes) - 1
    log_g = math.log(height) + F.logsigmoid(height * (x - at))
    squares = (2 * log_g).logcumsumexp(0)[last]
    above, below = (
        (log_g + part.clamp(min=0).log()).logcumsumexp(0)[last] for part in (residual, -residual)
    )
    larger, smaller = torch.maximum(above, below), torch.minimum(above, below)
    gain = math.log(2) + larger + torch.log1p(-torch.exp(smaller - larger))
    return torch.where(gain > squares, torch.where(above > below, 1, 2), 0)
