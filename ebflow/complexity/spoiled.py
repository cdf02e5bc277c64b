r"""Scores that are right but for a small error, and wrong on a set of small mass.

At each of N noise levels a score is spoiled twice. On a set of probability :math:`\delta / N` it
is off by a huge :math:`B / \sigma`; everywhere it is off by :math:`\epsilon' / \sigma`, with

.. math:: \epsilon' = \frac{\epsilon}{\sqrt{\log(\sigma_1 / \sigma_N)}}, \qquad
    B = \frac{J N}{2 \log(\sigma_1 / \sigma_N)},

always in the direction of the first axis. A sample that meets the set is moved by about
:math:`J \sigma` in one step, with J = 10, so it leaves the distribution. The quantile error is
:math:`D^{\delta / N} = \epsilon' / \sigma`, as the theorem of sampling requires, while the mean
square error is about :math:`(B / \sigma) \sqrt{\delta / N}`.

A path of the reverse SDE meets a spoiled point with probability :math:`\delta` at most. Elsewhere
Girsanov's theorem and Pinsker's inequality bound the total variation by
:math:`\sqrt{KL / 2}`, with

.. math:: KL = \tfrac12 \sum_k \frac{c_k^2}{\sigma_k^2 - \sigma_{k+1}^2}
    \frac{\epsilon'^2}{\sigma_k^2} \to \epsilon^2,

in which :math:`c_k` is the factor of the score in a step. So the total variation from samples of
the exact score is at most :math:`\delta + \epsilon / \sqrt2`, if steps are many.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745, for the theorem; the constants are derived here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import uniform
from .distances import along, cdf
from .samplers import step_length

JUMP = 10.0  # J, by how far a sample in the spoiled set is moved in one step, in units of σ


@dataclass(frozen=True)
class Spoiled:
    """The spoiled scores of a mixture, at the noise levels of a sampler.

    The set is a slab: the first coordinate lies between two quantiles, at a place that is random
    for each level.
    """

    clean: GaussianMixture  #: The distribution without noise
    levels: tuple[float, ...]  #: The noise levels, the highest first
    delta: float  #: δ, the mass of the spoiled sets over all levels
    epsilon: float  #: ε, the error at all points, over all levels
    places: Tensor  #: The lower quantile of the slab of each level

    @classmethod
    def at(
        cls,
        clean: GaussianMixture,
        levels: Sequence[float],
        *,
        delta: float,
        epsilon: float,
        generator: torch.Generator,
    ) -> "Spoiled":
        """Returns scores whose slabs lie at random places.

        Raises:
            ValueError: unless 0 ≤ δ < 1 and ε ≥ 0.
        """
        if not (0 <= delta < 1 and epsilon >= 0):
            raise ValueError(
                f"delta, epsilon: found {delta} and {epsilon}, expected 0 ≤ delta < 1, epsilon ≥ 0"
            )
        places = uniform((len(levels),), clean.means, generator) * (1 - delta / len(levels))
        return cls(clean, tuple(levels), delta, epsilon, places)

    @property
    def steps(self) -> int:
        """N, the number of steps of the sampler."""
        return len(self.levels) - 1

    @property
    def error(self) -> float:
        """ε', the error at all points of each level, multiplied by σ."""
        return self.epsilon / math.sqrt(self._log_range)

    @property
    def huge(self) -> float:
        """B, the error on the spoiled set of each level, multiplied by σ."""
        return JUMP * self.steps / (2 * self._log_range)

    @property
    def _log_range(self) -> float:
        return math.log(self.levels[0] / self.levels[-1])

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Returns the spoiled scores at points with shape (B, D)."""
        smooth = self.clean.smoothed(sigma)
        size = torch.full_like(x[:, 0], self.error)
        if self.delta:
            size = torch.where(self.is_spoiled(x, sigma), self.huge, size)
        score = smooth.score(x)
        score[:, 0] += size / sigma
        return score

    def is_spoiled(self, x: Tensor, sigma: float) -> Tensor:
        """Returns True for the points in the slab of a level, with shape (B,)."""
        smooth = self.clean.smoothed(sigma)
        u = cdf(along(smooth, torch.eye(smooth.size).to(smooth.means)[0]), x[:, 0])
        low = self.places[self.levels.index(sigma)]
        return (u >= low) & (u < low + self.delta / self.steps)

    @property
    def mean_square(self) -> float:
        """The L2 error of each level, multiplied by σ."""
        share = self.delta / self.steps
        return math.sqrt(share * self.huge**2 + (1 - share) * self.error**2)

    @property
    def bound(self) -> float:
        """The bound of the total variation from samples of the exact score by the reverse SDE."""
        return self.delta + math.sqrt(path_divergence(self.levels, [self.error] * self.steps) / 2)


def path_divergence(levels: Sequence[float], errors: Sequence[float]) -> float:
    """Returns the KL divergence in nats between paths of the reverse SDE with two scores.

    Arguments:
        levels: The noise levels, the highest first.
        errors: The distance of both scores, multiplied by σ, at every level but the last.
    """
    terms = [
        (step_length(here, there) * error / here) ** 2 / (here**2 - there**2)
        for (here, there), error in zip(pairwise(levels), errors, strict=True)
    ]
    return sum(terms) / 2
