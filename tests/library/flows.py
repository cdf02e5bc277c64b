"""Small flows of every kind of layer, base and context, moved off their starts."""

from functools import partial

import torch

from ebflow.architectures import ARCHITECTURES
from ebflow.bases import GaussianMixture
from ebflow.bijections import Affine, Dense, Reshape, SmoothLeakyReLU
from ebflow.flow import Flow

from . import reference
from .bijections.cases import Planar, Shear, matrix, seeded, stirred


def net(shape, **options):
    """Returns a dense net with weights that are no multiple of the identity."""
    return ARCHITECTURES["dense"](shape, noise=0.4, generator=seeded(), **options)


def custom():
    """Returns a flow of every kind of layer, on images."""
    layers = [
        Affine(0.1, torch.tensor([[[1.0]], [[2.0]]]), (2, 1, 2), trainable=True),
        Reshape((2, 1, 2), (4,)),
        Dense(matrix(4), torch.ones(4)),
        SmoothLeakyReLU(0.3),
        Planar(4),
        Shear(),
        Dense(matrix(4, 5), None, trainable=False),
        SmoothLeakyReLU(0.2, residual=True),
        Dense(matrix(4, 6), torch.zeros(4)),
    ]
    return Flow((2, 1, 2), layers)


def images(shape=(1, 2, 2), **options):
    """Returns a convolutional net with kernels that are no multiple of the identity."""
    options = {"kernel_size": 3, "blocks": 2, "noise": 0.3, "generator": seeded(), **options}
    return ARCHITECTURES["convolutional"](shape, **options).eval()


def named(name, shape, scale=0.3, **options):
    """Returns a named net, every parameter moved off its start."""
    return stirred(ARCHITECTURES[name](shape, **options), scale)


def mixture(size=3, **options):
    """Returns a mixture of two Gaussians without structure."""
    means = torch.randn(2, size, generator=seeded(4))
    covariances = torch.stack([matrix(size, k) @ matrix(size, k).mT for k in (1, 2)])
    return GaussianMixture(torch.tensor([1.0, 2.0]), means, covariances, **options)


SMALL = {
    "dense": lambda: net((4,), bias=0.3),
    "three dense layers": lambda: net((3,), depth=3, residual=True),
    "learned activations": lambda: stirred(net((3,), activation="spline")),
    "image of splines": lambda: stirred(images(depth=1, activation="spline"), 0.2),
    "image": lambda: net((1, 2, 2)),
    "every kind of layer": custom,
    "zero": lambda: images(depth=1),
    "convolutional, coupled": lambda: named(
        "convolutional", (1, 2, 2), 0.1, kernel_size=3, blocks=2, depth=1, hidden=2
    ),
    "two blocks": lambda: images(sign=1.0, bias=0.2),
    "spectral": lambda: images(depth=1, spectral_norm=True),
    "coupling": lambda: named("coupling", (2,), depth=2, hidden=3),
    "coupling, elu": lambda: named("coupling", (3,), depth=1, hidden=3, activation="elu"),
    "weight norm": lambda: named(
        "coupling", (2,), depth=1, hidden=3, shift_activation="elu", weight_norm=True
    ),
    "splines": lambda: named("coupling", (2,), depth=1, hidden=3, bins=3),
    "autoregressive": lambda: named("autoregressive", (3,), depth=2, hidden=3, mixing="rotation"),
    "autoregressive, splines": lambda: named("autoregressive", (2,), depth=1, hidden=3, bins=3),
    "autoregressive, one": lambda: named("autoregressive", (1,), depth=2, bins=3),
    "glow": lambda: named("glow", (1, 4, 2), 0.1, levels=1, depth=1, hidden=2, activation="swish"),
    "no layer": lambda: Flow((4,), []),
    "linear alone": lambda: Flow((4,), [Affine(1.0, 2.0, (4,)), Dense(matrix(4), None)]),
    "mixture": lambda: net((3,), base=mixture(trainable=True)),
}
CONTEXT = 2
GIVEN = {
    f"{name}, given": partial(named, *arguments, context=CONTEXT, **options)
    for name, arguments, options in (
        ("dense", ("dense", (3,), 0.2), dict(depth=3)),
        ("learned", ("dense", (3,), 0.2), dict(activation="spline")),
        ("convolutional", ("convolutional", (1, 2, 2), 0.1), dict(kernel_size=3, blocks=2)),
        ("coupling", ("coupling", (3,)), dict(depth=1, hidden=3)),
        ("autoregressive", ("autoregressive", (3,)), dict(depth=1, hidden=3)),
        ("one", ("autoregressive", (1,)), dict(depth=1, hidden=3, bins=3)),
        ("glow", ("glow", (1, 2, 2), 0.1), dict(levels=1, depth=1, hidden=2, activation="swish")),
    )
}
FLOWS = {**SMALL, **GIVEN}


def close(found, expected):
    """Asserts that tensors agree in float64."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def at(flow, batch=5, seed=3):
    """Returns points."""
    return torch.randn(batch, *flow.event_shape, generator=seeded(seed))


def contexts(flow, batch=5, seed=6):
    """Returns contexts of as many rows, None of a flow without."""
    return torch.randn(batch, flow.context, generator=seeded(seed)) if flow.context else None


def setting(name, batch=5):
    """Returns a flow, its density given contexts, if it takes any, and points."""
    flow = FLOWS[name]()
    return flow, flow(contexts(flow, batch)), at(flow, batch)


def brute(density):
    """Returns the log-density by the autograd Jacobian, as a function of points."""
    return partial(reference.log_prob, density, base=density.base.log_prob)
