"""Glow, in the form of the flow's paper."""

__all__ = ["glow"]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from ..bijections import (
    ActNorm,
    Bijection,
    Coupling,
    Reshape,
    ScaleShift,
    Spline,
    Squeeze,
    part,
    random_rotation,
)
from ..flow import Flow
from ..networks import convnet
from ..randomness import generator as derive


def glow(
    shape: Sequence[int],
    *,
    levels: int = 2,
    depth: int = 16,
    hidden: int = 512,
    activation: str = "leaky_relu",
    bins: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates levels of ``Squeeze`` and steps of ``ActNorm``, a 1×1 convolution and a coupling.

    Between levels a coupling transforms the second half of the channels, which then takes its
    place in the latent; the first half goes on. Convolutions start as random rotations and
    couplings as the identity. It has 10,041,352 parameters for MNIST, (1, 28, 28).

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039, in the form of Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: The shape (C, H, W) of an event; H and W are multiples of 2^levels.
        levels: The number of levels.
        depth: The number of steps of a level.
        hidden: The channels of the couplings' conditioners.
        activation: Their activation, a name in ``networks.ACTIVATIONS``: the paper's has kinks,
            at which ``ssm`` is biased (``bijections.coupling``); ``swish`` is smooth.
        bins: None: couplings scale and shift; else splines of that many bins.
        generator: Where the start comes from; None: from seed 0.
        dtype: The parameters' type; torch's default otherwise.
    """
    generator = generator or derive(0, "weights")
    net = partial(convnet, hidden=hidden, activation=activation, generator=generator)
    here, layers = tuple(shape), []
    for level in range(levels):
        steps: list[Bijection] = [Squeeze(here)]
        there = steps[0].target
        for _ in range(depth):
            mixing = random_rotation(there, generator=generator)
            steps += [ActNorm(there), mixing, _image_coupling(there[0], net, bins)]
        if level + 1 < levels:
            steps.append(_image_coupling(there[0], net, bins))
        layers += _leading(steps, here) if level else [*steps, Reshape(there, (math.prod(there),))]
        here = (there[0] // 2, *there[1:])
    options = {
        "levels": levels,
        "depth": depth,
        "hidden": hidden,
        "activation": activation,
        "bins": bins,
    }
    spec = {"architecture": "glow", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _image_coupling(
    channels: int, net: Callable[[int, int], nn.Module], bins: int | None
) -> Coupling:
    half, transform = channels // 2, Spline(bins) if bins else ScaleShift(bound=2.0)
    return Coupling((half, half), net(half, half * transform.count), transform)


def _leading(layers: Iterable[Bijection], shape: tuple[int, ...]) -> Iterator[Bijection]:
    """Yields layers that begin with events of ``shape`` as parts of flat events."""
    for layer in layers:
        yield part(layer, shape)
        shape = getattr(layer, "target", shape)
