"""Networks of couplings: for few dimensions, and Glow for images."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrizations

from ..bases import Base
from ..bijections import (
    ActNorm,
    Convolution,
    Dense,
    Part,
    Reshape,
    ScaleShift,
    Spline,
    Squeeze,
)
from ..bijections.base import Bijection
from ..flow import Flow
from ..networks import convnet, perceptron
from ..randomness import generator as derive
from .parts import conditioned, finished, flattened, halved, mixing


def coupling(
    shape: Sequence[int] = (2,),
    *,
    depth: int = 10,
    hidden: int = 64,
    activation: str = "swish",
    shift_activation: str | None = None,
    bound: float | None = None,
    bins: int | None = None,
    weight_norm: bool = False,
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a dense layer, a coupling and ``ActNorm``: the paper's 2-D model.

    A dense layer follows the last of ``depth`` blocks. Dense layers start orthogonal. The halves
    of an event are unchanged in turn, the second one first. Conditioners are perceptrons of three
    hidden layers, one for log-scales and one for shifts: 174,206 parameters for D = 2.

    Source: Chao et al. (2023), arXiv:2305.15267. Its conditioners also have weights
    for the masked half, without effect, and both have the same initial weights.

    Arguments:
        activation: The conditioners' activation, a name in ``networks.ACTIVATIONS``.
        shift_activation: That of the conditioners of shifts; None: the same. The paper has ``elu``
            for some data sets.
        bound: c in c tanh(s / c), which bounds the log-scales s by c, so that points far from the
            data are not moved much; None: no bound.
        bins: The number of bins of splines; None: couplings scale and shift.
        weight_norm: True if rows of dense layers are directions times trained lengths; the paper's
            for one of its densities.
    """
    if (size := math.prod(shape)) < 2:
        raise ValueError(f"shape: found {tuple(shape)}, expected at least two elements")
    for name, value in (("bound", bound), ("shift_activation", shift_activation)):
        if bins and value:
            raise ValueError(f"{name}: found {value!r}, expected None with bins")
    generator = generator or derive(0, "weights")
    network = partial(perceptron, hidden=hidden, activation=activation, generator=generator)
    shifts = None if bins else partial(network, activation=shift_activation or activation)
    transform = Spline(bins) if bins else ScaleShift(bound, inverted=True)
    couple = partial(halved, size, network, transform, context, shifts=shifts)
    layers = flattened(shape)
    for index in range(depth):
        layers += [_rotation(size, generator, normed=weight_norm), couple(flip=index % 2 == 0)]
        layers.append(ActNorm((size,)))
        layers += conditioned((size,), context, generator)
    layers.append(_rotation(size, generator, normed=weight_norm))
    return finished(coupling, layers, locals())


def _rotation(size: int, generator: torch.Generator, *, normed: bool) -> Dense:
    """Returns a dense layer that starts as a random rotation."""
    layer = mixing(size, "rotation", generator)
    return parametrizations.weight_norm(layer) if normed else layer


def glow(
    shape: Sequence[int],
    *,
    levels: int = 2,
    depth: int = 16,
    hidden: int = 512,
    activation: str = "leaky_relu",
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates levels of ``Squeeze`` and steps of ``ActNorm``, a convolution and a coupling.

    Between levels, a coupling transforms the second half of the channels, which becomes a part of
    the latent. The first half enters the next level. Convolutions start as random rotations of the
    channels, couplings as the identity: 10,041,352 parameters for MNIST, (1, 28, 28).

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039, in the form of Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: The shape (C, H, W) of an event; H and W are multiples of 2^levels.
        depth: The number of steps per level.
        hidden: The channels of the conditioners.
        activation: The conditioners' activation, a name in ``networks.ACTIVATIONS``. The paper's
            has kinks, at which ``ssm`` is biased (``bijections.coupling``); ``swish`` is smooth.
    """
    generator = generator or derive(0, "weights")
    network = partial(convnet, hidden=hidden, activation=activation, generator=generator)
    here, layers = tuple(shape), []
    for level in range(levels):
        steps: list[Bijection] = [Squeeze(here)]
        there = steps[0].target
        steps += conditioned(there, context, generator)
        couple = partial(halved, there[0], network, ScaleShift(bound=2.0), context)
        for _ in range(depth):
            kernel = torch.empty(there[0], there[0], 1, 1)
            rotation = nn.init.orthogonal_(kernel, generator=generator)
            steps += [ActNorm(there), Convolution(rotation, None, there[1:]), couple()]
        if level + 1 < levels:
            steps.append(couple())
        layers += _leading(steps, here) if level else [*steps, Reshape(there, (math.prod(there),))]
        here = (there[0] // 2, *there[1:])
    return finished(glow, layers, locals())


def _leading(layers: Iterable[Bijection], shape: tuple[int, ...]) -> Iterator[Bijection]:
    """Yields layers that transform the first elements of flat events, which have ``shape``."""
    for layer in layers:
        yield Part(layer, shape)
        shape = getattr(layer, "target", shape)
