"""Every bijection, as constructors by name; and two with nothing but the abstract methods."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from ebflow.bijections import (
    ActNorm,
    Affine,
    Autoregressive,
    Bijection,
    Bounded,
    Butterfly,
    ConditionalAffine,
    Convolution,
    Coupling,
    Dense,
    Dequantize,
    JohnsonSU,
    Logit,
    LowRank,
    MonotoneSpline,
    Part,
    Reshape,
    ScaleShift,
    SmoothLeakyReLU,
    Spline,
    Squeeze,
    Triangular,
    TriangularFactors,
)
from ebflow.networks import Interleaved, convnet, perceptron


class Planar(Bijection):
    """y = x + h tanh(w·x + b): mixes all elements; knows only its value, log-det and inverse."""

    def __init__(self, size):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-0.6, 0.9, size))
        self.h = nn.Parameter(torch.linspace(0.8, -0.3, size))
        self.b = nn.Parameter(torch.tensor(0.2))

    def forward_and_log_det(self, x):
        t = torch.tanh(x @ self.w + self.b)
        return x + t[:, None] * self.h, ((1 - t * t) * (self.w @ self.h)).log1p()

    def inverse(self, y):
        target, slope = y @ self.w, self.w @ self.h
        low, high = target - slope.abs(), target + slope.abs()
        for _ in range(80):
            middle = (low + high) / 2
            below = middle + slope * torch.tanh(middle + self.b) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return y - torch.tanh(low + self.b)[:, None] * self.h


class Shear(Bijection):
    """y = (x₁, x₂ + tanh(w x₁)): J depends on the input and its determinant does not."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def shift(self, x):
        return torch.cat([torch.zeros_like(x[:, :2]), torch.tanh(self.w * x[:, :2])], 1)

    def forward_and_log_det(self, x):
        return x + self.shift(x), x.new_zeros(len(x))

    def inverse(self, y):
        return y - self.shift(y)


def seeded(seed=0):
    """Returns a generator."""
    return torch.Generator().manual_seed(seed)


def matrix(size, seed=0):
    """Returns a well-conditioned matrix without structure."""
    return torch.eye(size) * 1.2 + 0.3 * torch.randn(size, size, generator=seeded(seed))


def rotation(size, seed=0):
    """Returns an orthogonal matrix, whose factors need a permutation."""
    return torch.linalg.qr(torch.randn(size, size, generator=seeded(seed)))[0]


def kernel(channels, side=3, seed=0):
    """Returns a kernel without structure whose convolutions are well-conditioned."""
    identity = nn.init.dirac_(torch.empty(channels, channels, side, side))
    noise = torch.randn(identity.shape, generator=seeded(seed))
    return 1.2 * identity + 0.4 / (side * channels**0.5) * noise


def convolution(channels=2, size=(2, 3), side=3, **options):
    """Returns a convolution with an offset, and the shape of its events."""
    bias = torch.linspace(-1, 1, channels)
    layer = Convolution(kernel(channels, side), bias, size, **options)
    return layer, (channels, *size)


def normalized(layer, shape, normalize=parametrizations.spectral_norm):
    """Returns a layer in evaluation whose weight is normalized, and the shape of its events."""
    return normalize(layer).eval(), shape


def stirred(module, scale=0.3, seed=1):
    """Moves every parameter off its start, and returns the module."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def net(inputs, outputs, activation="swish"):
    """Returns a small conditioner of vectors."""
    return perceptron(inputs, outputs, hidden=3, activation=activation, generator=seeded())


def image_net(inputs, outputs, activation="swish"):
    """Returns a small conditioner of images."""
    return convnet(inputs, outputs, hidden=3, activation=activation, generator=seeded())


def pointwise(matrix, size, bias=None):
    """Returns a 1×1 convolution, as Glow has them."""
    return Convolution(matrix[:, :, None, None], bias, size)


def shear_and_scale(sizes=(1, 2), shift_activation="swish", flip=False):
    """Returns an affine coupling of vectors, of two conditioners."""
    passed, moved = sizes[::-1] if flip else sizes
    nets = Interleaved(net(passed, moved), net(passed, moved, shift_activation))
    return stirred(Coupling(sizes, nets, ScaleShift(inverted=True), flip=flip))


def image_coupling(activation="swish", transform=None):
    """Returns a coupling of the channels of two-channel images."""
    transform = transform or ScaleShift(bound=2.0)
    return stirred(Coupling((1, 1), image_net(1, transform.count, activation), transform))


def given(shape, batch=5):
    """Returns an affine layer given a context of as many rows as there are points."""
    layer = stirred(ConditionalAffine(shape, 2, hidden=3))
    with torch.no_grad():
        return layer.condition(torch.randn(batch, 2, generator=seeded(6))), shape


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def bounded():
    """Returns the bounds of four columns: two ends, one of either side, none."""
    lower, upper = double(0.0, -torch.inf, 2.0, -torch.inf), double(1.0, 3.0, torch.inf, torch.inf)
    return Bounded(lower, upper, double(1e-6).expand(4), double(1.0, 0.5, 2.0, 1.0))


def johnson():
    """Returns two columns with tails, and one that keeps its own."""
    xi, lam = double(0.3, -2.0, 1.0), double(0.5, 3.0, 2.0)
    return JohnsonSU(xi, lam, double(0.1, -1.0, 0.0), double(1.5, 0.7, 0.0))


CASES = {
    "dense": lambda: (Dense(matrix(4), torch.linspace(-1, 1, 4)), (4,)),
    "dense-frozen": lambda: (Dense(matrix(4, 2), torch.ones(4), trainable=False), (4,)),
    "dense-spectral": lambda: normalized(Dense(matrix(4), torch.ones(4)), (4,)),
    "lower": lambda: (Triangular(matrix(4), upper=False), (4,)),
    "upper": lambda: (stirred(Triangular(matrix(4), upper=True, bias=False), 0.1), (4,)),
    "lu": lambda: (stirred(TriangularFactors(rotation(4))), (4,)),
    "low-rank": lambda: (stirred(LowRank(4, 2, seeded())), (4,)),
    "monarch": lambda: (stirred(Butterfly((2, 3), seeded()), 0.1), (6,)),
    "butterfly": lambda: (stirred(Butterfly((2, 1, 2)), 0.1), (4,)),
    "zero": convolution,
    "zero-wide": lambda: convolution(side=5),
    "zero-weight-norm": lambda: normalized(*convolution(), parametrizations.weight_norm),
    "pointwise": lambda: (pointwise(matrix(3), (2, 1), torch.ones(3)), (3, 2, 1)),
    "relu": lambda: (SmoothLeakyReLU(0.3), (2, 3)),
    "relu-residual": lambda: (SmoothLeakyReLU(0.3, residual=True), (4,)),
    "relu-centred": lambda: (SmoothLeakyReLU(0.2, centred=True), (4,)),
    "spline": lambda: (stirred(MonotoneSpline((4,), cells=4, reach=1.5)), (4,)),
    "spline-image": lambda: (stirred(MonotoneSpline((2, 1, 2), cells=6, reach=1.0)), (2, 1, 2)),
    "logit": lambda: (Logit(margin=0.1), (4,)),
    "logit-of-levels": lambda: (Logit(0.5, upper=7.0, margin=0.02), (2, 2)),
    "affine": lambda: (Affine(torch.arange(4.0), torch.linspace(0.3, 2, 4), (4,)), (4,)),
    "affine-scalar": lambda: (Affine(0.5, 0.1, (2, 3)), (2, 3)),
    "affine-trainable": lambda: (
        Affine(torch.ones(2, 1, 1), torch.tensor([[[0.5]], [[3.0]]]), (2, 2, 2), trainable=True),
        (2, 2, 2)),
    "affine-given": lambda: given((3,)),
    "affine-given-channels": lambda: given((2, 1, 2)),
    "bounded": lambda: (bounded(), (4,)),
    "johnson": lambda: (johnson(), (3,)),
    "reshape": lambda: (Reshape((2, 3), (6,)), (2, 3)),
    "squeeze": lambda: (Squeeze((2, 2, 4)), (2, 2, 4)),
    "dequantize": lambda: (Dequantize(5), (4,)),
    "actnorm": lambda: (stirred(ActNorm((2, 1, 2))), (2, 1, 2)),
    "coupling": lambda: (shear_and_scale(), (3,)),
    "coupling-flipped-elu": lambda: (shear_and_scale((2, 1), "elu", flip=True), (3,)),
    "coupling-image": lambda: (image_coupling(), (2, 2, 1)),
    "coupling-image-kinked": lambda: (image_coupling("leaky_relu"), (2, 2, 1)),
    "coupling-spline": lambda: (Coupling((2, 1), stirred(net(2, 8)), Spline(3)), (3,)),
    "autoregressive": lambda: (stirred(Autoregressive(3, ScaleShift(2.0), hidden=4)), (3,)),
    "autoregressive-spline": lambda: (stirred(Autoregressive(3, Spline(3), hidden=4)), (3,)),
    "autoregressive-one": lambda: (stirred(Autoregressive(1, Spline(3))), (1,)),
    "part-dense": lambda: (Part(Dense(matrix(2), torch.ones(2)), (2,)), (3,)),
    "part-squeeze": lambda: (Part(Squeeze((1, 2, 2)), (1, 2, 2)), (6,)),
    "part-relu": lambda: (Part(SmoothLeakyReLU(0.3), (2,)), (4,)),
    "part-coupling": lambda: (Part(image_coupling(), (2, 1, 1)), (3,)),
    "planar": lambda: (Planar(4), (4,)),
    "shear": lambda: (Shear(), (4,)),
}  # fmt: skip


def points(layer, shape, batch=5):
    """Returns points in the layer's domain."""
    if isinstance(layer, Logit):
        return logit_points(layer, shape, batch)
    if isinstance(layer, Bounded):
        x = torch.rand(batch, *shape, generator=seeded(7))
        return x * double(0.9, -5.0, 5.0, 9.0) + double(0.05, 2.9, 2.1, -4.0)
    if isinstance(layer, Dequantize):
        return torch.rand(batch, *shape, generator=seeded(7)) * layer.levels
    return 1.5 * torch.randn(batch, *shape, generator=seeded(7))


def logit_points(layer, shape, batch):
    """Returns points inside and outside of the range, at its ends, and next to them."""
    x = (3 * torch.rand(batch, *shape, generator=seeded(7)) - 1) * layer.upper
    ends = torch.tensor([0.0, layer.upper])
    special = torch.cat([ends, ends - 1e-6, ends + 1e-6])
    x.view(-1)[:-1] = torch.cat([special, x.flatten()])[: x.numel() - 1]
    return x


def directions(x, slices, seed=11):
    """Returns random directions at ``x`` with shape (K, B, *event); K = 0 stands for none."""
    shape = x.shape if slices == 0 else (slices, *x.shape)
    return torch.randn(*shape, generator=seeded(seed))


def channels(*shape):
    """Returns data whose channels differ in mean and scale."""
    x = torch.randn(shape, generator=seeded(3))
    channel = torch.arange(1.0, shape[1] + 1).view(-1, *[1] * (len(shape) - 2))
    return x * channel + 10 * channel


def standard(y):
    """Asserts that every channel has mean 0 and variance 1."""
    rows = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows.mean(1), torch.zeros(len(rows)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        rows.var(1, correction=0), torch.ones(len(rows)), rtol=1e-9, atol=1e-9
    )
