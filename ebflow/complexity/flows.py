r"""Flows as learners of scores: many at once, each for one noise level.

A flow's score is that of a normalized density, whatever its weights. The score of a free network
is any field: that of no density, or of one that has no finite mass. Both are trained by the same
denoising loss, as a denoiser :math:`D(x, \sigma) = x + \sigma^2 s(x)`.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, for flows that are trained by denoising score matching.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..architectures import dense
from ..flow import Flow
from .denoisers import Ensemble


class FlowScore(nn.Module):
    """The score of a flow, in closed form and without checks of its input, so that it vectorizes.

    Arguments:
        flow: A flow without context; its log-determinants of matrices are not computed.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.layers, self.base = flow.layers, flow.base

    def forward(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p(x) with shape (B, d)."""
        linearizations = []
        for layer in self.layers:
            linearizations.append(layer.linearize(x))
            x = linearizations[-1].y
        score = self.base.score(x)
        for linearization in reversed(linearizations):
            score = linearization.pullback(score)
        return score


class FlowDenoisers(Ensemble):
    """E flows for noisy data; each is trained at one noise level.

    Arguments:
        flows: The flows of x over ``scale``.
        scale: About the standard deviation of the noisy data.
    """

    def __init__(self, flows: Sequence[Flow], *, scale: float) -> None:
        super().__init__([FlowScore(flow) for flow in flows])
        self.scale = scale

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return x + sigma**2 * self.networks(x / self.scale) / self.scale

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns 1/σ²: training minimizes E ‖σ s + z‖²."""
        return 1 / sigma**2


def spline_flows(
    count: int, size: int, *, depth: int, scale: float, generator: torch.Generator
) -> FlowDenoisers:
    """Returns E dense flows of ``depth`` matrices and learned splines, in float32.

    ``count`` is E, and ``size`` is d. Their matrices start as the identity with noise.
    """
    options = {"depth": depth, "activation": "spline", "noise": 0.3, "dtype": torch.float32}
    flows = [dense((size,), generator=generator, **options) for _ in range(count)]
    return FlowDenoisers(flows, scale=scale)
