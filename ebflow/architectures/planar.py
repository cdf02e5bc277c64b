"""The paper's net for data in the plane."""

__all__ = ["planar"]

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ..bijections import ActNorm, Bijection, Coupling, Dense, Reshape, ScaleShift, Spline
from ..flow import Flow
from ..networks import Interleaved, perceptron
from ..randomness import generator as derive
from .starts import normalise_spectrum


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
    *,
    flip: bool,
) -> Coupling:
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if isinstance(transform, Spline):
        return Coupling(sizes, net(passed, moved * transform.count), transform, flip=flip)
    scales, shifts = net(passed, moved), net(passed, moved, activation=shift_activation)
    return Coupling(sizes, Interleaved(scales, shifts), transform, flip=flip)
