"""Nets of couplings, Glow in the form of the flow's paper, and nets of autoregressive layers."""

__all__ = ["autoregressive", "coupling", "glow"]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from ..bases import Base
from ..bijections import (
    ActNorm,
    Autoregressive,
    Bijection,
    Convolution,
    Coupling,
    Dense,
    Pointwise,
    Reshape,
    ScaleShift,
    Spline,
    Squeeze,
    part,
    random_rotation,
)
from ..flow import Flow
from ..networks import Interleaved, convnet, perceptron
from ..randomness import generator as derive
from .linear import conditioned, finished, flattened, image_coupling, normalise_spectrum

MIXINGS = ("rotation", "reversal")


def coupling(
    shape: Sequence[int] = (2,),
    *,
    depth: int = 10,
    hidden: int = 64,
    activation: str = "swish",
    shift_activation: str | None = None,
    bound: float | None = None,
    bins: int | None = None,
    norm: str | None = None,
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a dense layer, a coupling and ``ActNorm``: the paper's net for 2-D data.

    A last dense layer stands behind ``depth`` blocks. Dense layers start orthogonal; the halves of
    an event pass in turn, the second one first. Conditioners are perceptrons of three hidden
    layers, one for log-scales and one for shifts. It has 174,206 parameters for D = 2.

    Source: Chao et al. (2023), arXiv:2305.15267. Its conditioners also have weights for the
    masked half, of no effect, and both start alike.

    Arguments:
        shape: The shape of an event; D ≥ 2 is its number of elements.
        depth: The number of blocks.
        hidden: The width of the conditioners.
        activation: Their activation, a name in ``networks.ACTIVATIONS``.
        shift_activation: That of the shifts' conditioners; None: the same. The paper has ``elu``
            for some data sets.
        bound: None: log-scales are free; else c in c tanh(s / c), which keeps |s| below c, and
            with it what the net does to points far from the data.
        bins: None: couplings scale and shift; else splines of that many bins.
        norm: None; ``spectral``: dense weights are divided by their largest singular value, as in
            ``convolutional``; ``weight``: their rows are directions times trained lengths.
        generator: Where the start comes from; None: from seed 0.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    if size < 2:
        raise ValueError(f"shape: found {tuple(shape)}, expected at least two elements")
    for name, value in (("shift_activation", shift_activation), ("bound", bound)):
        if bins and value:
            raise ValueError(f"{name}: found {value!r}, expected None with bins")
    generator = generator or derive(0, "weights")
    net = partial(perceptron, hidden=hidden, activation=activation, generator=generator)
    transform = Spline(bins) if bins else ScaleShift(bound, inverted=True)
    couple = partial(
        _vector_coupling, size, net, shift_activation or activation, transform, context
    )
    layers = flattened(shape)
    for index in range(depth):
        mixing = _mixing(size, norm, generator)
        layers += [mixing, couple(flip=index % 2 == 0), ActNorm((size,))]
        layers += conditioned((size,), context, generator)
    layers.append(_mixing(size, norm, generator))
    return finished(coupling, layers, locals())


def _mixing(size: int, norm: str | None, generator: torch.Generator) -> Dense:
    """Returns a dense layer that starts orthogonal, normalised or not."""
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    layer = Dense(weight, torch.zeros(size))
    if norm == "spectral":
        normalise_spectrum(layer, generator)
    elif norm == "weight":
        weight_norm(layer)
    elif norm is not None:
        raise ValueError(f"norm: found {norm!r}, expected None, 'spectral' or 'weight'")
    return layer


def _vector_coupling(
    size: int,
    net: Callable[..., nn.Module],
    shift_activation: str,
    transform: ScaleShift | Spline,
    context: int,
    *,
    flip: bool,
) -> Coupling:
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if isinstance(transform, Spline):
        conditioner = net(passed + context, moved * transform.count)
        return Coupling(sizes, conditioner, transform, flip=flip, context=context)
    scales = net(passed + context, moved)
    shifts = net(passed + context, moved, activation=shift_activation)
    return Coupling(sizes, Interleaved(scales, shifts), transform, flip=flip, context=context)


def glow(
    shape: Sequence[int],
    *,
    levels: int = 2,
    depth: int = 16,
    kernel_size: int = 1,
    hidden: int = 512,
    activation: str = "leaky_relu",
    bins: int | None = None,
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates levels of ``Squeeze`` and steps of ``ActNorm``, a convolution and a coupling.

    Between levels a coupling transforms the second half of the channels, which then takes its
    place in the latent; the first half goes on. Convolutions start as random rotations of the
    channels, couplings as the identity. It has 10,041,352 parameters for MNIST, (1, 28, 28).

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039, in the form of Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: The shape (C, H, W) of an event; H and W are multiples of 2^levels.
        levels: The number of levels.
        depth: The number of steps of a level.
        kernel_size: The odd side k of the convolutions: 1, as in Glow, or more, zero-padded and
            without any structure; their exact log-determinants are no part of the energy.
        hidden: The channels of the couplings' conditioners.
        activation: Their activation, a name in ``networks.ACTIVATIONS``: the paper's has kinks,
            at which ``ssm`` is biased (``bijections.coupling``); ``swish`` is smooth.
        bins: None: couplings scale and shift; else splines of that many bins.
        generator: Where the start comes from; None: from seed 0.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
    """
    generator = generator or derive(0, "weights")
    net = partial(convnet, hidden=hidden, activation=activation, generator=generator)
    here, layers = tuple(shape), []
    for level in range(levels):
        steps: list[Bijection] = [Squeeze(here)]
        there = steps[0].target
        steps += conditioned(there, context, generator)
        for _ in range(depth):
            mixing = _rotation(there, kernel_size, generator)
            steps += [ActNorm(there), mixing, image_coupling(there[0], net, bins, context)]
        if level + 1 < levels:
            steps.append(image_coupling(there[0], net, bins, context))
        layers += _leading(steps, here) if level else [*steps, Reshape(there, (math.prod(there),))]
        here = (there[0] // 2, *there[1:])
    return finished(glow, layers, locals())


def _rotation(
    shape: tuple[int, int, int], side: int, generator: torch.Generator
) -> Pointwise | Convolution:
    """Returns a convolution whose kernel of a ``side`` starts as a rotation at its centre."""
    if side % 2 == 0:
        raise ValueError(f"kernel_size: found {side}, expected an odd number")
    rotation = random_rotation(shape, generator=generator)
    if side == 1:
        return rotation
    kernel = F.pad(rotation.weight.detach()[:, :, None, None], [side // 2] * 4)
    return Convolution(kernel, None, shape[1:])


def _leading(layers: Iterable[Bijection], shape: tuple[int, ...]) -> Iterator[Bijection]:
    """Yields layers that begin with events of ``shape`` as parts of flat events."""
    for layer in layers:
        yield part(layer, shape)
        shape = getattr(layer, "target", shape)


def autoregressive(
    shape: Sequence[int],
    *,
    depth: int = 3,
    hidden: int = 64,
    bins: int | None = None,
    bound: float | None = None,
    mixing: str = "reversal",
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` autoregressive layers with dense ones between: for tables of few columns.

    Dense layers are free: their log-determinants belong to the normaliser, and score matching
    does without them. They start as random rotations, or as the reversal of the elements, with
    which the net starts as a masked autoregressive flow. A context enters the autoregressive
    layers' networks.

    Sources: Papamakarios et al. (2017), arXiv:1705.07057; with ``bins``, Durkan et al. (2019),
    arXiv:1906.04032.

    Arguments:
        shape: The shape of an event; D ≥ 2 is its number of elements.
        depth: The number of autoregressive layers.
        hidden: The width of their networks' two hidden layers.
        bins: None: they scale and shift; else splines of that many bins, which are C¹ only
            (``bijections.coupling`` says what that means for ``ssm``).
        bound: The half-width of the splines' interval; None: 5.
        mixing: How dense layers start: ``rotation`` or ``reversal``.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        generator: Where the start comes from; None: from seed 0.
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    if size < 2:
        raise ValueError(f"shape: found {tuple(shape)}, expected at least two elements")
    if bound and not bins:
        raise ValueError(f"bound: found {bound}, expected None without bins")
    generator = generator or derive(0, "weights")
    layers = flattened(shape)
    for index in range(depth):
        if index:
            layers.append(Dense(_start(size, mixing, generator), torch.zeros(size)))
        net = {"hidden": hidden, "bins": bins, "bound": bound or 5.0, "context": context}
        layers.append(Autoregressive(size, **net, generator=generator))
    return finished(autoregressive, layers, locals())


def _start(size: int, mixing: str, generator: torch.Generator) -> Tensor:
    if mixing == "rotation":
        return nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if mixing == "reversal":
        return torch.eye(size).flip(0)
    raise ValueError(f"mixing: found {mixing!r}, expected one of {', '.join(MIXINGS)}")
