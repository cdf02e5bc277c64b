"""Named flows, as functions of shape and depth.

They are nets of dense matrices, or the paper's convolutions, with activations between; nets of
couplings, Glow in the form of the flow's paper among them; and of autoregressive layers. Each has

* ``shape``, the shape of an event, of D elements: two or more where halves move each other;
* ``context``, the number of elements of a context, 0 without;
* ``base``, the density of latents; None: N(0, I);
* ``generator``, where the start comes from; None: seed 0, unless the net says otherwise;
* ``dtype``, the parameters' type; None: torch's default.
"""

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "LEARNED", "autoregressive", "convolutional",
           "coupling", "dense", "glow", "structured"]  # fmt: skip

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .bases import Base
from .bijections import (
    ActNorm,
    Autoregressive,
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
    part,
    random_rotation,
)
from .bijections.weighted import spectral_norm
from .flow import Flow
from .networks import Interleaved, convnet, perceptron
from .randomness import generator as derive

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
        generator: Where the noise of the start comes from; None: PyTorch's global state.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
    """
    if linear not in LINEAR:
        raise ValueError(f"linear: found {linear!r}, expected one of {', '.join(LINEAR)}")
    size, given = math.prod(shape), locals()
    layers = _flattened(shape)
    for index in range(depth):
        layers += _linear(LINEAR[linear], torch.eye(size), (size,), given, first=not index)
    return _finished(dense, layers, given)


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
            layers.append(_halved(event[0], net, ScaleShift(bound=2.0), context))
    return _finished(convolutional, layers, given)


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
    yield from _conditioned(event, given["context"], given["generator"])
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
    layers = _flattened(shape)
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(alpha), ActNorm((size,))]
        layers += _conditioned((size,), context, generator)
    layers += matrices()
    return _finished(structured, layers, locals())


def _matrices(size: int, structure: str, generator: torch.Generator) -> list[Dense]:
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if structure != "trilu":
        return [Dense(weight, None, structure=structure)]
    lower = Dense(torch.ones(size, size), None, structure="tril")
    return [Dense(weight, None, structure="triu"), lower]


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
    """
    size = _several(shape)
    for name, value in (("shift_activation", shift_activation), ("bound", bound)):
        if bins and value:
            raise ValueError(f"{name}: found {value!r}, expected None with bins")
    generator = generator or derive(0, "weights")
    net = partial(perceptron, hidden=hidden, activation=activation, generator=generator)
    shifts = None if bins else partial(net, activation=shift_activation or activation)
    transform = Spline(bins) if bins else ScaleShift(bound, inverted=True)
    couple = partial(_halved, size, net, transform, context, shifts=shifts)
    layers = _flattened(shape)
    for index in range(depth):
        mixing = _mixing(size, norm, generator)
        layers += [mixing, couple(flip=index % 2 == 0), ActNorm((size,))]
        layers += _conditioned((size,), context, generator)
    layers.append(_mixing(size, norm, generator))
    return _finished(coupling, layers, locals())


def _several(shape: Sequence[int]) -> int:
    """Returns the number of elements, two or more."""
    if (size := math.prod(shape)) < 2:
        raise ValueError(f"shape: found {tuple(shape)}, expected at least two elements")
    return size


def _halved(
    size: int,
    net: Callable[..., nn.Module],
    transform: ScaleShift | Spline,
    context: int,
    *,
    shifts: Callable[..., nn.Module] | None = None,
    flip: bool = False,
) -> Coupling:
    """Returns a coupling of two halves of a vector's elements, or of an image's channels.

    Arguments:
        size: The number of elements, or of channels.
        net: From the sizes of its input and output to a conditioner.
        transform: What it parametrises.
        context: The number of elements of a context.
        shifts: Makes a conditioner of its own for shifts; None: one network gives all.
        flip: Whether the second half passes.
    """
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if shifts is None:
        conditioner = net(passed + context, moved * transform.count)
    else:
        scales = net(passed + context, moved)
        conditioner = Interleaved(scales, shifts(passed + context, moved))
    return Coupling(sizes, conditioner, transform, flip=flip, context=context)


def _mixing(size: int, norm: str | None, generator: torch.Generator) -> Dense:
    """Returns a dense layer that starts orthogonal, normalised or not."""
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    layer = Dense(weight, torch.zeros(size))
    if norm == "spectral":
        spectral_norm(layer, generator)
    elif norm == "weight":
        weight_norm(layer)
    elif norm is not None:
        raise ValueError(f"norm: found {norm!r}, expected None, 'spectral' or 'weight'")
    return layer


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
    """
    generator = generator or derive(0, "weights")
    net = partial(convnet, hidden=hidden, activation=activation, generator=generator)
    transform = Spline(bins) if bins else ScaleShift(bound=2.0)
    here, layers = tuple(shape), []
    for level in range(levels):
        steps: list[Bijection] = [Squeeze(here)]
        there = steps[0].target
        steps += _conditioned(there, context, generator)
        couple = partial(_halved, there[0], net, transform, context)
        for _ in range(depth):
            mixing = random_rotation(there, kernel_size, generator=generator)
            steps += [ActNorm(there), mixing, couple()]
        if level + 1 < levels:
            steps.append(couple())
        layers += _leading(steps, here) if level else [*steps, Reshape(there, (math.prod(there),))]
        here = (there[0] // 2, *there[1:])
    return _finished(glow, layers, locals())


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
        depth: The number of autoregressive layers.
        hidden: The width of their networks' two hidden layers.
        bins: None: they scale and shift; else splines of that many bins, which are C¹ only
            (``bijections.coupling`` says what that means for ``ssm``).
        bound: The half-width of the splines' interval; None: 5.
        mixing: How dense layers start: ``rotation`` or ``reversal``.
    """
    size = math.prod(shape)
    if bound and not bins:
        raise ValueError(f"bound: found {bound}, expected None without bins")
    generator = generator or derive(0, "weights")
    layers = _flattened(shape)
    for index in range(depth):
        if index:
            layers.append(Dense(_start(size, mixing, generator), torch.zeros(size)))
        net = {"hidden": hidden, "bins": bins, "bound": bound or 5.0, "context": context}
        layers.append(Autoregressive(size, **net, generator=generator))
    return _finished(autoregressive, layers, locals())


def _start(size: int, mixing: str, generator: torch.Generator) -> Tensor:
    if mixing == "rotation":
        return nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if mixing == "reversal":
        return torch.eye(size).flip(0)
    raise ValueError(f"mixing: found {mixing!r}, expected one of rotation, reversal")


def _flattened(shape: Sequence[int]) -> list[Bijection]:
    """Returns the layer that makes rows of events; none if they are rows."""
    return [Reshape(tuple(shape), (math.prod(shape),))] if len(shape) > 1 else []


def _conditioned(
    shape: tuple[int, ...], context: int, generator: torch.Generator | None
) -> list[Bijection]:
    """Returns the layer by which a context enters behind a linear one; none without context."""
    return [ConditionalAffine(shape, context, generator=generator)] if context else []


def _finished(
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


ARCHITECTURES = {
    f.__name__: f for f in (autoregressive, convolutional, coupling, dense, glow, structured)
}
