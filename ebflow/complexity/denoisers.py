r"""Many small rectified networks at once, trained by denoising score matching.

A network computes the mean of :math:`x_0` given x, and so the score :math:`s = (D - x)/\sigma^2`:

.. math:: D(x, \sigma) = R\, f(x/R, \; x/(3 \sqrt V), \; \log(\sigma / \sigma_0))
    + x\, \tau^2 / V, \qquad V = \tau^2 + \sigma^2.

If R ≫ σ, the input needs both scales, and the output the scale R. The last term is the score of
the bulk. All E networks are one module: weights have shape (E, in, out), and a layer is one
batched matrix product. A step of B examples costs E × 6 B P FLOP for P weights per network.
"""

__all__ = ["Denoisers", "Ensemble", "Level", "Minibatches", "fit", "start", "train_in_parts"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..randomness import normal, uniform


class Ensemble(Protocol):
    """E denoisers in one module."""

    count: int

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of the same shape."""
        ...

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns the weight of the squared error at σ."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields the trained parameters."""
        ...


class Denoisers(nn.Module):
    """Creates E independent networks, weights uniform in ±1/√(fan-in).

    Arguments:
        count: E.
        size: The dimension d.
        radius: R.
        sigma: σ₀, the least noise level.
        tau: τ, the standard deviation of the bulk.
        width: The width of the hidden layers.
        depth: The number of hidden layers.
        generator: Source of the weights.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        radius: float,
        sigma: float,
        tau: float,
        width: int = 32,
        depth: int = 2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.radius, self.sigma, self.tau = radius, sigma, tau
        widths = (2 * size + 1, *[width] * depth, size)
        shapes = [(count, *pair) for pair in pairwise(widths)]
        self.weights = nn.ParameterList(start(shape, shape[1], generator) for shape in shapes)
        self.biases = nn.ParameterList(
            start((count, 1, shape[2]), shape[1], generator) for shape in shapes
        )

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype)
        variance = self.tau**2 + sigma**2
        level = (sigma / self.sigma).log().expand(*x.shape[:2], 1)
        h = torch.cat([x / self.radius, x / (3 * variance.sqrt()), level], -1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = (h.relu() if index else h) @ weight + bias
        return self.radius * h + x * (self.tau**2 / variance)

    @property
    def count(self) -> int:
        """E."""
        return len(self.weights[0])

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns 1/σ²: training minimizes E ‖σ s + z‖²."""
        return 1 / sigma**2

    def at(self, sigma: float) -> "Level":
        """Returns the scores at one noise level."""
        return Level(self, sigma)


@dataclass(frozen=True)
class Level:
    """The scores of all networks at one noise level.

    Attributes:
        denoisers: The networks.
        sigma: σ.
    """

    denoisers: Ensemble
    sigma: float

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """Returns s(x) with shape (E, B, d), for ``x`` with shape (E, B, d) or (B, d)."""
        x = x.expand(self.denoisers.count, *x.shape[-2:])
        return (self.denoisers(x, self.sigma) - x) / self.sigma**2


class Minibatches:
    """Creates the minibatches of E networks, each from the first m of its own samples.

    Arguments:
        clean: x₀ with shape (S, N, d), of S training sets.
        owner: The training set of every network, with shape (E,).
        sizes: The m of every network, with shape (E,).
        generator: Source of batches and fresh noise.
        noise: z with the shape of ``clean``, one noise vector per sample as in the theorems;
            None: fresh noise in every batch, the limit of many noise vectors, with less variance.
    """

    def __init__(
        self,
        clean: Tensor,
        owner: Tensor,
        sizes: Tensor,
        generator: torch.Generator,
        noise: Tensor | None = None,
    ) -> None:
        self.clean = clean.flatten(0, 1)
        self.noise = None if noise is None else noise.flatten(0, 1)
        self.start, self.sizes = owner[:, None] * clean.shape[1], sizes[:, None]
        self.generator = generator

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        """Returns x₀ and z, each with shape (E, rows, d)."""
        u = uniform((len(self.sizes), rows), self.clean, self.generator)
        index = self.start + (u * self.sizes).long().clamp(max=self.sizes - 1)
        clean = self.clean[index]
        if self.noise is None:
            return clean, normal(clean.shape, clean, self.generator)
        return clean, self.noise[index]


def fit(denoisers: Ensemble, batches: Minibatches, *, steps: int = 1000, **options: Any) -> None:  # noqa: ANN401
    """Trains all networks; ``options`` are those of ``train_in_parts``."""
    for _ in train_in_parts(denoisers, batches, lengths=(steps,), **options):
        pass


def train_in_parts(
    denoisers: Ensemble,
    batches: Minibatches,
    *,
    lengths: Sequence[int],
    least: float,
    highest: float | None = None,
    rows: int = 128,
    lr: float = 3e-3,
) -> Iterator[int]:
    r"""Trains all networks by Adam with a cosine schedule, and pauses after some steps.

    The loss is :math:`E\, \lambda(\sigma) \|D(x_0 + \sigma z, \sigma) - x_0\|^2`, with the
    networks' own weight λ.

    Arguments:
        denoisers: The networks.
        batches: Their data.
        lengths: The increasing numbers of steps after which to pause; training ends at the last.
        least: The noise level σ.
        highest: For samplers: σ is sampled log-uniformly between ``least`` and this level.
        rows: The batch size of each network.
        lr: The initial learning rate.

    Yields:
        Each of ``lengths``.
    """
    optimizer = torch.optim.Adam(denoisers.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lengths[-1])
    for step in range(1, lengths[-1] + 1):
        clean, z = batches.batch(rows)
        sigma = _levels(least, highest, z, batches.generator)
        losses = (denoisers(clean + sigma * z, sigma) - clean).square().sum(-1, keepdim=True)
        optimizer.zero_grad()
        (denoisers.weight(sigma) * losses).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if step in lengths:
            yield step


def _levels(
    least: float, highest: float | None, like: Tensor, generator: torch.Generator
) -> Tensor | float:
    if highest is None:
        return least
    share = uniform((*like.shape[:2], 1), like, generator)
    return least * torch.exp(share * math.log(highest / least))


def start(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """Returns weights uniform in ±1/√(fan-in)."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
