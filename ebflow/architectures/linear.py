"""Nets of matrices, or of convolutions, with activations between."""

__all__ = ["ACTIVATIONS", "LEARNED", "LINEAR", "convolutional", "dense", "structured"]

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import (
    ActNorm,
    Bijection,
    Convolution,
    Dense,
    DenseLU,
    MonotoneSpline,
    MonotoneTanh,
    ScaleShift,
    SmoothLeakyReLU,
    Squeeze,
)
from ..bijections.weighted import spectral_norm
from ..flow import Flow
from ..networks import convnet
from ..randomness import generator as derive
from .parts import conditioned, finished, flattened, halved

LEARNED = ("spline", "tanh")
"""Learned activations, which stand behind every linear layer."""

ACTIVATIONS = ("smooth_leaky_relu", *LEARNED)
"""Activations of nets of linear layers: the paper's, ``MonotoneSpline`` and ``MonotoneTanh``."""

LINEAR: dict[str, Callable[[Tensor, Tensor], Bijection]] = {
    "full": Dense,
    "lu": DenseLU,
}
"""Dense layers by the form of their weight; other packages may add some."""


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
        depth: The number of dense layers L.
        linear: The form of W, a name in ``LINEAR``: ``full``, or ``lu`` for its factors.
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
        generator: Where the noise of the start comes from; None: PyTorch's global state.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
    """
    if linear not in LINEAR:
        raise ValueError(f"linear: found {linear!r}, expected one of {', '.join(LINEAR)}")
    size, given = math.prod(shape), locals()
    layers = flattened(shape)
    for index in range(depth):
        layers += _linear(LINEAR[linear], torch.eye(size), (size,), given, first=not index)
    return finished(dense, layers, given)


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
        generator: Where the noise of the start, and of spectral normalization's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
    """
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    blocks = blocks or 1 + sum(all(side % 2**k == 0 for side in shape[1:]) for k in (1, 2))
    net = partial(convnet, hidden=hidden, activation="swish", generator=generator)
    event, given, layers = tuple(shape), locals(), list[Bijection]()
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        kernel = identity.flip(0) if hidden else identity
        make = partial(_convolution, event, given)
        layers += _linear(make, kernel, event, given, first=not index)
        if hidden and event[0] > 1:
            layers.append(halved(event[0], net, ScaleShift(bound=2.0), context))
    return finished(convolutional, layers, given)


def _linear(
    make: Callable[[Tensor, Tensor], Bijection],
    identity: Tensor,
    event: tuple[int, ...],
    given: dict[str, Any],
    *,
    first: bool,
) -> Iterator[Bijection]:
    """Yields a linear layer, and the activation and the context that stand beside it.

    Arguments:
        make: From its weight and its offset to the layer.
        identity: The weight of the identity.
        event: The shape of its events.
        given: The options of the net by name.
        first: Whether it is the first one, with no activation in front of it.
    """
    name, behind = given["activation"], None
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    if name not in LEARNED and not first:
        relu = SmoothLeakyReLU(given["alpha"], **{k: given[k] for k in ("residual", "centred")})
        behind = relu if given["calibrated"] else None
        yield relu
    yield make(*_start_of(identity, behind, given))
    yield from conditioned(event, given["context"], given["generator"])
    if name in LEARNED:
        yield _learned(name, event, given)


def _learned(name: str, event: tuple[int, ...], given: dict[str, Any]) -> Bijection:
    options = {"channels": given.get("shared", False)}
    if given["reach"] is not None:
        options["reach"] = given["reach"]
    if name == "spline":
        return MonotoneSpline(event, cells=given["cells"], **options)
    return MonotoneTanh(event, terms=given["terms"], **options)


def _start_of(
    identity: Tensor, behind: SmoothLeakyReLU | None, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Returns the weight and the offset of a new layer, calibrated to the activation ``behind``.

    The noise is ``noise`` · N(0, 1 / fan-in) an entry.
    """
    sign, noise = given["sign"], given["noise"]
    weight, offset = sign * identity, torch.full((len(identity),), given["bias"])
    if noise:
        draw = torch.randn(identity.shape, generator=given["generator"])
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


def _convolution(
    event: tuple[int, ...], given: dict[str, Any], kernel: Tensor, offset: Tensor
) -> Convolution:
    layer = Convolution(kernel, offset, event[1:], padding=given["padding"])
    return spectral_norm(layer, given["generator"]) if given["spectral_norm"] else layer


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
        depth: The number of blocks.
        structure: ``full``, ``tril``, ``triu``, or ``trilu``: ``triu`` and then ``tril``, the
            latter with ones at the start, wherever the others have one matrix.
        alpha: The slope of the activations at −∞.
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
