"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "convolutional", "dense", "glow", "multimodal", "planar"]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum
from torch.nn.utils.parametrizations import weight_norm as normalise_rows

from .bijections import (
    ActNorm,
    Bijection,
    Convolution,
    Coupling,
    Dense,
    Reshape,
    ScaleShift,
    SmoothLeakyReLU,
    Spline,
    Squeeze,
    part,
    random_rotation,
)
from .flow import Flow
from .networks import Interleaved, convnet, perceptron
from .randomness import generator as derive


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    alpha: float = 0.3,
    residual: bool = False,
    sign: float = 1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` dense layers with smooth leaky ReLUs between: the paper's FC model.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. It has
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2).

    Source: Chao et al. (2023), arXiv:2305.15267; the net of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        shape: The shape of an event; D is its number of elements.
        depth: The number of dense layers L.
        alpha: The slope of the activations at −∞.
        residual: Whether activations add their input.
        sign: The factor of the identity at the start.
        bias: The start of every offset.
        generator: Where the noise of the start comes from.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    start = partial(_start, sign=sign, bias=bias, noise=noise, generator=generator)
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for index in range(depth):
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        behind = layers[-1] if index and calibrated else None
        layers.append(Dense(*start(torch.eye(size), behind)))
    options = {"depth": depth, "alpha": alpha, "residual": residual}
    spec = {"architecture": "dense", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def convolutional(
    shape: Sequence[int],
    *,
    kernel_size: int = 7,
    padding: str = "zero",
    blocks: int = 3,
    depth: int = 2,
    alpha: float = 0.3,
    residual: bool = True,
    sign: float = -1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    spectral_norm: bool = False,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``blocks`` of ``depth`` convolutions with 2×2 squeezes between: the paper's CNN.

    A smooth leaky ReLU follows every convolution but the last. Every kernel starts as ``sign``
    times the identity and every offset as ``bias``. With C channels a convolution has C² k² + C
    parameters, C four times as many in each block: 26,796 for MNIST, (1, 28, 28), and 240,912
    for CIFAR-10, (3, 32, 32), both with k = 7.

    Source: Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        padding: ``zero``, ``circular`` or ``masked``, as in ``Convolution``.
        blocks: The number of image sizes.
        depth: The number of convolutions at each.
        alpha: The slope of the activations at −∞.
        residual: Whether activations add their input.
        sign: The factor of the identity at the start; negative in the paper.
        bias: The start of every offset; in the paper very small numbers.
        generator: Where the noise of the start, and of spectral normalisation's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        calibrated: Whether each K behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
        dtype: The parameters' type; torch's default otherwise.
    """
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    start = partial(_start, sign=sign, bias=bias, noise=noise, generator=generator)
    event, layers = tuple(shape), list[Bijection]()
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        behind = layers[-1] if index and calibrated else None
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        layers.append(Convolution(*start(identity, behind), event[1:], padding=padding))
        if spectral_norm:
            _normalise_spectrum(layers[-1], generator)
    options = {
        "kernel_size": kernel_size,
        "padding": padding,
        "blocks": blocks,
        "depth": depth,
        "alpha": alpha,
        "residual": residual,
        "spectral_norm": spectral_norm,
    }
    spec = {"architecture": "convolutional", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _start(
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


def _normalise_spectrum(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Normalises ``layer.weight``; the power iteration starts from ``generator``, or from 0."""
    seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        normalise_spectrum(layer)


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def planar(
    shape: Sequence[int] = (2,),
    *,
    depth: int = 10,
    hidden: int = 64,
    activation: str = "swish",
    shift_activation: str | None = None,
    bound: float | None = None,
    bins: int | None = None,
    norm: str | None = None,
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
    coupling = partial(_vector_coupling, size, net, shift_activation or activation, transform)
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for index in range(depth):
        mixing = _mixing(size, norm, generator)
        layers += [mixing, coupling(flip=index % 2 == 0), ActNorm((size,))]
    layers.append(_mixing(size, norm, generator))
    options = {
        "depth": depth,
        "hidden": hidden,
        "activation": activation,
        "shift_activation": shift_activation,
        "bound": bound,
        "bins": bins,
        "norm": norm,
    }
    spec = {"architecture": "planar", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


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


def multimodal(
    shape: Sequence[int] = (10,),
    *,
    depth: int = 10,
    structure: str = "full",
    alpha: float = 0.3,
    generator: torch.Generator | None = None,
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
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    matrices = partial(_matrices, size, structure, generator or derive(0, "weights"))
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(alpha), ActNorm((size,))]
    layers += matrices()
    options = {"depth": depth, "structure": structure, "alpha": alpha}
    spec = {"architecture": "multimodal", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _matrices(size: int, structure: str, generator: torch.Generator) -> list[Dense]:
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if structure != "trilu":
        return [Dense(weight, None, structure=structure)]
    lower = Dense(torch.ones(size, size), None, structure="tril")
    return [Dense(weight, None, structure="triu"), lower]


def _mixing(size: int, norm: str | None, generator: torch.Generator) -> Dense:
    """Returns a dense layer that starts orthogonal, normalised or not."""
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    layer = Dense(weight, torch.zeros(size))
    if norm == "spectral":
        _normalise_spectrum(layer, generator)
    elif norm == "weight":
        normalise_rows(layer)
    elif norm is not None:
        raise ValueError(f"norm: found {norm!r}, expected None, 'spectral' or 'weight'")
    return layer


def _vector_coupling(
    size: int,
    net: Callable[..., nn.Module],
    shift_activation: str,
    transform: ScaleShift | Spline,
    *,
    flip: bool,
) -> Coupling:
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if isinstance(transform, Spline):
        return Coupling(sizes, net(passed, moved * transform.count), transform, flip=flip)
    scales, shifts = net(passed, moved), net(passed, moved, activation=shift_activation)
    return Coupling(sizes, Interleaved(scales, shifts), transform, flip=flip)


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


ARCHITECTURES = {f.__name__: f for f in (convolutional, dense, glow, multimodal, planar)}
