r"""Many denoisers at once, trained by denoising score matching.

All E networks are one module: a layer is one batched matrix product, or one convolution of E
groups. A step of B examples costs E × 6 B P FLOP for P weights per network.

``Denoisers`` are small rectified networks. One computes the mean of :math:`x_0` given x, and so
the score :math:`s = (D - x)/\sigma^2`:

.. math:: D(x, \sigma) = R\, f(x/R, \; x/(3 \sqrt V), \; \log(\sigma / \sigma_0))
    + x\, \tau^2 / V, \qquad V = \tau^2 + \sigma^2, \quad \tau = \sigma_0 = \sqrt{1/2}.

If R ≫ σ, the input needs both scales, and the output the scale R. The last term is the score of
the bulk.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import skip_init

from ebflow.complexity.closed_forms import HALF
from ebflow.networks import started
from ebflow.randomness import uniform
from pipelines.sample_complexity.training_sets import TrainingSets


class Ensemble(nn.Module, ABC):
    """E independent denoisers D(x, σ) in one module.

    Arguments:
        networks: Their E networks, of one architecture.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        weights, _ = stack_module_state(networks)
        self.count, self.names = len(networks), [*weights]
        self.weights = nn.ParameterList(weights.values())
        template = networks[0].to("meta")
        self.batched = vmap(lambda weights, *inputs: functional_call(template, weights, inputs))

    def networks(self, *inputs: Tensor) -> Tensor:
        """Returns the outputs of all networks, for inputs with shape (E, B, ...)."""
        return self.batched(dict(zip(self.names, self.weights, strict=True)), *inputs)

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""

    @abstractmethod
    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns the weight of the squared error of D at σ in the loss."""

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns D with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return self(x.expand(self.count, *x.shape[-2:]), sigma)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """Returns s with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return (self.denoise(x, sigma) - x) / sigma**2


class Denoisers(Ensemble):
    """Creates E rectified networks, weights uniform in ±1/√(fan-in).

    Arguments:
        count: E.
        size: The dimension d.
        radius: R.
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
        width: int = 32,
        depth: int = 2,
        generator: torch.Generator,
    ) -> None:
        def network() -> nn.Module:
            layers: list[nn.Module] = []
            for pair in pairwise((2 * size + 1, *[width] * depth, size)):
                layers += [started(skip_init(nn.Linear, *pair), generator), nn.ReLU()]
            return nn.Sequential(*layers[:-1])

        super().__init__([network() for _ in range(count)])
        self.radius = radius

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype)
        variance = HALF**2 + sigma**2
        level = (sigma / HALF).log().expand(*x.shape[:2], 1)
        inputs = torch.cat([x / self.radius, x / (3 * variance.sqrt()), level], -1)
        return self.radius * self.networks(inputs) + x * (HALF**2 / variance)

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns 1/σ²: training minimizes E ‖σ s + z‖²."""
        return 1 / sigma**2


def fit(denoisers: Ensemble, sets: TrainingSets, *, steps: int, **options: Any) -> None:  # noqa: ANN401
    """Trains all networks; ``options`` are those of ``train_in_parts``."""
    for _ in train_in_parts(denoisers, sets, lengths=(steps,), **options):
        pass


def train_in_parts(
    denoisers: Ensemble,
    sets: TrainingSets,
    *,
    generator: torch.Generator,
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
        sets: Their training sets.
        generator: Source of batches, noise and noise levels.
        lengths: The increasing numbers of steps after which to pause; training ends at the last.
        least: The noise level σ.
        highest: For samplers: σ is sampled log-uniformly between ``least`` and this level.
        rows: The batch size per network.
        lr: The initial learning rate.

    Yields:
        Each of ``lengths``.
    """
    optimizer = torch.optim.Adam(denoisers.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lengths[-1])
    for step in range(1, lengths[-1] + 1):
        clean, z = sets.batch(rows, generator)
        sigma = least
        if highest is not None:
            share = uniform((*z.shape[:2], 1), z, generator)
            sigma = least * torch.exp(share * math.log(highest / least))
        losses = (denoisers(clean + sigma * z, sigma) - clean).square().sum(-1, keepdim=True)
        optimizer.zero_grad()
        (denoisers.weight(sigma) * losses).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if step in lengths:
            yield step
