"""Nets of linear layers with activations between, and what all nets share.

The layers are dense matrices, or the paper's convolutions. Every net starts its linear layers and
is closed alike.
"""

__all__ = ["ACTIVATIONS", "LEARNED", "activated", "check_activation", "conditioned",
           "convolutional", "dense", "finished", "flattened", "image_coupling",
           "normalise_spectrum", "start_of", "structured"]  # fmt: skip

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import (
    ActNorm,
    Bijection,
    ConditionalAffine,
    Convolution,
    Coupling,
    Dense,
    DenseLU,
    DenseWithInverse,
    MonotoneSpline,
    MonotoneTanh,
    Reshape,
    ScaleShift,
    SmoothLeakyReLU,
    Spline,
    Squeeze,
)
from ..bijections.weighted import spectral_norm
from ..flow import Flow
from ..networks import convnet
from ..randomness import generator as derive

LEARNED = ("spline", "tanh")
"""Learned activations, which stand behind every linear layer."""

ACTIVATIONS = ("smooth_leaky_relu", *LEARNED)
"""Activations of nets of linear layers: the paper's, ``MonotoneSpline`` and ``MonotoneTanh``."""

START = ("shape", "base", "dtype", "generator", "sign", "bias", "noise", "calibrated")
"""Options that a flow, its weights and its base tell: of these a spec keeps the shape alone."""

LINEAR: dict[str, Callable[[Tensor, Tensor], Bijection]] = {
    "full": Dense,
    "lu": DenseLU,
    "learned_inverse": DenseWithInverse,
}
"""Dense layers by the form of their weight."""


def check_activation(name: str) -> None:
    """Raises ValueError unless there is such an activation."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {', '.join(ACTIVATIONS)}")


def activated(
    name: str,
    event: tuple[int, ...],
    *,
    cells: int,
    terms: int,
    reach: float | None,
    channels: bool = False,
) -> list[Bijection]:
    """Returns the learned activation behind a linear layer; none if ``name`` is not of one."""
    options = {"channels": channels} if reach is None else {"channels": channels, "reach": reach}
    if name == "spline":
        return [MonotoneSpline(event, cells=cells, **options)]
    return [MonotoneTanh(event, terms=terms, **options)] if name == "tanh" else []


def flattened(shape: Sequence[int]) -> list[Bijection]:
    """Returns the layer that makes rows of events; none if they are rows."""
    return [Reshape(tuple(shape), (math.prod(shape),))] if len(shape) > 1 else []


def finished(
    architecture: Callable[..., Flow], layers: Sequence[Bijection], given: dict[str, Any]
) -> Flow:
    """Returns the flow of these layers, with the spec that rebuilds it.

    Arguments:
        architecture: The function that made the layers; all but ``START`` of its options are kept.
        layers: The layers.
        given: The options by name, as the variables of the call.
    """
    names = [name for name in signature(architecture).parameters if name not in START]
    options = {name: given[name] for name in names}
    shape, context, dtype = given["shape"], given["context"], given["dtype"]
    spec = {"architecture": architecture.__name__, "shape": list(shape), "options": options}
    base = copy.deepcopy(given["base"])  # a base that is trained is the flow's own
    flow = Flow(shape, layers, base=base, context=context, spec=spec)
    return flow.to(dtype or torch.get_default_dtype())


def conditioned(
    shape: tuple[int, ...], context: int, generator: torch.Generator | None
) -> list[Bijection]:
    """Returns the layer by which a context enters behind a linear one; none without context."""
    return [ConditionalAffine(shape, context, generator=generator)] if context else []


def start_of(
    identity: Tensor,
    behind: SmoothLeakyReLU | None,
    *,
    sign: float,
    bias: float,
    noise: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Returns the weight and the offset of a new layer, calibrated to the activation ``behind``.

    The noise is ``noise`` · N(0, 1 / fan-in) an entry.
    """
    weight, offset = sign * identity, torch.full((len(identity),), bias)
    if noise:
        draw = torch.randn(identity.shape, generator=generator)
        weight += noise / math.sqrt(identity[0].numel()) * draw
    if behind is None:
        return weight, offset
    mean, deviation = _moments(behind)
    return weight / deviation, offset - sign * mean / deviation


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def normalise_spectrum(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Normalises ``layer.weight``; the power iteration starts from ``generator``, or from 0."""
    spectral_norm(layer, generator or torch.Generator().manual_seed(0))


def image_coupling(
    channels: int, net: Callable[[int, int], nn.Module], bins: int | None, context: int
) -> Coupling:
    """Returns a coupling of two halves of the channels, by splines or by affine maps."""
    halves = (channels // 2, channels - channels // 2)
    transform = Spline(bins) if bins else ScaleShift(bound=2.0)
    conditioner = net(halves[0] + context, halves[1] * transform.count)
    return Coupling(halves, conditioner, transform, context=context)


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    linear: str = "full",
    activation: str = "smooth_leaky_relu",
    alpha: float = 0.3,
    residual: bool = False,
    centred: bool = False,
    cells: int = 16,
    terms: int = 6,
    reach: float | None = None,
    sign: float = 1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` dense layers with activations of every element: the paper's FC model.

    Smooth leaky ReLUs stand between the layers, as in the paper; learned activations behind each
    of them, the last one too, and start as the identity or near it. A context enters behind every
    dense layer, by a ``ConditionalAffine``.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. It has
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2); and ``depth`` ·
    ``cells`` · D of splines, or (3 ``terms`` + 1) · D of tanh.

    Source: Chao et al. (2023), arXiv:2305.15267; the net of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        shape: The shape of an event; D is its number of elements.
        depth: The number of dense layers L.
        linear: The form of W: ``full``; ``lu``, its factors; or ``learned_inverse``, beside which
            an R near W⁻¹ is learned.
        activation: ``smooth_leaky_relu``; ``spline``: a ``MonotoneSpline``; ``tanh``: a
            ``MonotoneTanh``.
        alpha: The slope of smooth leaky ReLUs at −∞.
        residual: Whether they add their input.
        centred: Whether they pass through 0 with slope 1, so that there is no mean and no scale
            for the next layer to undo; score matching alone then keeps its mass.
        cells: The cells of a spline's grid.
        terms: The number of tanh's steps.
        reach: The half-width of the grid, or of where tanh's steps start; None: 4, and 3.
        sign: The factor of the identity at the start.
        bias: The start of every offset.
        generator: Where the noise of the start comes from.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
    """
    check_activation(activation)
    if linear not in LINEAR:
        raise ValueError(f"linear: found {linear!r}, expected one of {', '.join(LINEAR)}")
    size = math.prod(shape)
    start = partial(start_of, sign=sign, bias=bias, noise=noise, generator=generator)
    layers = flattened(shape)
    for index in range(depth):
        fixed = index and activation == "smooth_leaky_relu"
        if fixed:
            layers.append(SmoothLeakyReLU(alpha, residual=residual, centred=centred))
        behind = layers[-1] if fixed and calibrated else None
        layers.append(LINEAR[linear](*start(torch.eye(size), behind)))
        layers += conditioned((size,), context, generator)
        layers += activated(activation, (size,), cells=cells, terms=terms, reach=reach)
    return finished(dense, layers, locals())


def structured(
    shape: Sequence[int] = (10,),
    *,
    depth: int = 10,
    structure: str = "full",
    alpha: float = 0.3,
    generator: torch.Generator | None = None,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a matrix, a smooth leaky ReLU and ``ActNorm``: the paper's 10-D net.

    A last matrix stands behind ``depth`` blocks. It compares free matrices with triangular ones,
    whose determinants are cheap: with D elements, ``full``, ``tril`` and ``triu`` hold
    (``depth`` + 1) D² weights, of which a triangle uses D (D + 1) / 2, and ``trilu`` twice as
    many. Matrices start orthogonal, triangles as those of orthogonal ones.

    Source: Chao et al. (2023), arXiv:2305.15267. Its code multiplies rows from the right, so that
    its ``tril`` is ``triu`` here.

    Arguments:
        shape: The shape of an event.
        depth: The number of blocks.
        structure: ``full``, ``tril``, ``triu``, or ``trilu``: ``triu`` and then ``tril``, the
            latter with ones at the start, wherever the others have one matrix.
        alpha: The slope of the activations at −∞.
        generator: Where the start comes from; None: from seed 0.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    matrices = partial(_matrices, size, structure, generator or derive(0, "weights"))
    layers = flattened(shape)
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(alpha), ActNorm((size,))]
        layers += conditioned((size,), context, generator)
    layers += matrices()
    return finished(structured, layers, locals())


def _matrices(size: int, structure: str, generator: torch.Generator) -> list[Dense]:
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if structure != "trilu":
        return [Dense(weight, None, structure=structure)]
    lower = Dense(torch.ones(size, size), None, structure="tril")
    return [Dense(weight, None, structure="triu"), lower]


def convolutional(
    shape: Sequence[int],
    *,
    kernel_size: int = 7,
    padding: str = "zero",
    blocks: int | None = None,
    depth: int = 2,
    activation: str = "smooth_leaky_relu",
    alpha: float = 0.3,
    residual: bool = True,
    centred: bool = False,
    cells: int = 16,
    terms: int = 6,
    reach: float | None = None,
    shared: bool = False,
    hidden: int = 0,
    sign: float = -1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    spectral_norm: bool = False,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``blocks`` of ``depth`` convolutions with 2×2 squeezes between: the paper's CNN.

    A smooth leaky ReLU follows every convolution but the last; a context enters behind each, an
    affine map a channel. Every kernel starts as ``sign`` times the identity, negative in the
    paper, and every offset as ``bias``, there a very small number. With C channels a convolution
    has C² k² + C parameters, C four times as many in each block: 26,796 for MNIST, (1, 28, 28),
    and 240,912 for CIFAR-10, (3, 32, 32), both with k = 7.

    Source: Chao et al. (2023), arXiv:2305.15267.

    Options that are not told here are those of ``dense``.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        padding: ``zero``, ``circular`` or ``masked``, as in ``Convolution``.
        blocks: The number of image sizes; None: 3, or as many as H and W can be halved to.
        depth: The number of convolutions at each.
        activation: ``smooth_leaky_relu``, or ``spline`` or ``tanh``: a ``MonotoneSpline``, of
            ``cells`` · D parameters, or a ``MonotoneTanh``, of (3 ``terms`` + 1) · D, of every
            pixel behind every convolution, the last one too.
        shared: Whether the pixels of a channel share their learned activation.
        hidden: The channels h of conditioners (``networks.convnet`` with swish, 9 h C + h² + 9 h C
            weights): behind every convolution of C > 1 channels and its activation one half of the
            channels scales and shifts the other, and kernels start as the reversal of channels,
            so that the halves take turns; 0: no coupling.
        generator: Where the noise of the start, and of spectral normalisation's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
    """
    check_activation(activation)
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    net = partial(convnet, hidden=hidden, activation="swish", generator=generator)
    start = partial(start_of, sign=sign, bias=bias, noise=noise, generator=generator)
    event, layers = tuple(shape), list[Bijection]()
    blocks = blocks or 1 + sum(all(side % 2**k == 0 for side in event[1:]) for k in (1, 2))
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        fixed = index and activation == "smooth_leaky_relu"
        if fixed:
            layers.append(SmoothLeakyReLU(alpha, residual=residual, centred=centred))
        behind = layers[-1] if fixed and calibrated else None
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        if hidden:
            identity = identity.flip(0)
        layers.append(Convolution(*start(identity, behind), event[1:], padding=padding))
        if spectral_norm:
            normalise_spectrum(layers[-1], generator)
        layers += conditioned(event, context, generator)
        layers += activated(
            activation, event, cells=cells, terms=terms, reach=reach, channels=shared
        )
        if hidden and event[0] > 1:
            layers.append(image_coupling(event[0], net, None, context))
    return finished(convolutional, layers, locals())
