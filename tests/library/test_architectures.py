"""Named flows: sizes, starts, training, and the specs that rebuild them."""

from functools import partial

import pytest
import torch

from ebflow.architectures import (
    ARCHITECTURES,
    autoregressive,
    convolutional,
    coupling,
    dense,
    glow,
)
from ebflow.bijections import (
    ActNorm,
    Autoregressive,
    Convolution,
    Coupling,
    Dense,
    MonotoneSpline,
    Part,
    SmoothLeakyReLU,
    Squeeze,
)
from ebflow.checkpoint import rebuild
from ebflow.recipes import IMAGES

from . import reference
from .bijections.cases import seeded, stirred
from .flows import FLOWS, at, contexts, mixture
from .training import trainer


def size(flow):
    return sum(p.numel() for p in flow.parameters())


@pytest.mark.parametrize(("shape", "parameters"), [((1, 28, 28), 26_796), ((3, 32, 32), 240_912)])
def test_convolutional_nets_of_the_paper(shape, parameters):
    assert size(convolutional(shape)) == parameters


@pytest.mark.parametrize(
    ("elements", "parameters"), [(784, 1_230_880), (3072, 18_880_512), (12288, 302_014_464)]
)
def test_dense_nets_of_the_paper(elements, parameters):
    """Two layers have 2 (D² + D) parameters, seen at a D that fits."""
    assert 2 * (elements**2 + elements) == parameters
    assert size(dense((1, 4, 7))) == 2 * (28**2 + 28)


def test_nine_convolutions_with_a_learned_activation_behind_each():
    """Kernels and offsets have 7,434 weights; splines of every pixel 16 each."""
    options = dict(kernel_size=3, blocks=3, depth=3)
    flow = convolutional((1, 28, 28), activation="spline", **options)
    pairs = [(Convolution, MonotoneSpline)] * 3
    block = [kind for pair in pairs for kind in pair]
    kinds = [type(layer) for layer in flow.layers]
    assert kinds == [*block, Squeeze, *block, Squeeze, *block]
    shapes = [layer.shape for layer in flow.layers if isinstance(layer, MonotoneSpline)]
    assert shapes == [s for s in ((1, 28, 28), (4, 14, 14), (16, 7, 7)) for _ in range(3)]
    assert size(flow) == 7_434 + 9 * 784 * 16


def test_couplings_stand_behind_convolutions_of_several_channels():
    """They start as the identity; the kernels before them as the reversal of the channels."""
    flow = convolutional(
        (1, 4, 4), kernel_size=3, blocks=2, depth=2, activation="spline", hidden=5
    )
    pair = [Convolution, MonotoneSpline]
    kinds = [type(layer) for layer in flow.layers]
    assert kinds == [*pair, *pair, Squeeze, *pair, Coupling, *pair, Coupling]
    x = torch.randn(3, 1, 4, 4, generator=seeded())
    squeezed = flow.layers[4](x)
    torch.testing.assert_close(flow.layers[5](squeezed), -squeezed.flip(-3))
    assert torch.equal(flow.layers[7](squeezed), squeezed)


def test_layers_of_a_convolutional_net():
    flow = convolutional((1, 8, 8), kernel_size=3, blocks=3, depth=2)
    kinds = [type(layer) for layer in flow.layers]
    conv, relu, squeeze = Convolution, SmoothLeakyReLU, Squeeze
    assert kinds == [
        conv, relu, conv, squeeze, relu, conv, relu, conv, squeeze, relu, conv, relu, conv,
    ]  # fmt: skip
    events = [layer.event_shape for layer in flow.layers if isinstance(layer, conv)]
    assert events == [s for s in ((1, 8, 8), (4, 4, 4), (16, 2, 2)) for _ in range(2)]
    assert all(layer.residual for layer in flow.layers if isinstance(layer, relu))
    assert convolutional((1, 6, 6)).spec["options"]["blocks"] == 2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_convolutions_start_as_the_identity(sign):
    flow = convolutional((2, 4, 4), blocks=1, depth=1, sign=sign, bias=0.5)
    x = torch.randn(3, 2, 4, 4, generator=seeded())
    assert torch.equal(flow.to_latent(x), sign * x + 0.5)
    assert flow.log_normalizer() == 0


def test_noise_of_the_start_is_that_of_the_outputs():
    """K − I has k² C entries of variance noise² / (k² C), to 5 standard errors."""
    flow = convolutional((16, 4, 4), blocks=1, depth=1, sign=0.0, noise=0.3, generator=seeded())
    entries = flow.layers[0].weight.detach().flatten() * 7 * 4 / 0.3
    assert abs(entries.square().mean() - 1) < 5 * (2 / len(entries)) ** 0.5
    again = convolutional((16, 4, 4), blocks=1, depth=1, sign=0.0, noise=0.3, generator=seeded())
    assert torch.equal(again.layers[0].weight, flow.layers[0].weight)


def test_calibrated_images_start_with_standard_latents():
    """Mean 0 and variance 1 of every latent, to five standard errors of 100,000 draws."""
    flow = convolutional(
        (1, 2, 2), kernel_size=3, blocks=1, depth=3, residual=True, calibrated=True, sign=1.0
    )
    x = torch.randn(100_000, 1, 2, 2, generator=seeded())
    first, n = x, len(x) ** 0.5
    for layer in list(flow.layers)[:3]:
        first = layer(first)
    assert (first.mean(0).abs() < 5 / n).all() and ((first.var(0) - 1).abs() < 20 / n).all()


# Nets of couplings


ROTATION = "rotation"
DENSE = {
    "dense": lambda **o: dense((4,), depth=3, residual=True, **o),
    "centred": lambda **o: dense((4,), centred=True, **o),
    "spline": lambda **o: dense((4,), activation="spline", **o),
    "convolutional": lambda **o: convolutional((1, 4, 4), kernel_size=5, depth=1, **o),
    "coupled": lambda **o: convolutional((1, 4, 4), kernel_size=3, depth=1, hidden=3, **o),
    "coupled, colour": lambda **o: convolutional((3, 4, 4), kernel_size=3, hidden=3, **o),
    "spectral": lambda **o: convolutional((1, 4, 4), kernel_size=3, spectral_norm=True, **o),
}
COUPLINGS = {
    "coupling": lambda **o: coupling(depth=2, hidden=4, **o),
    "coupling, splines": lambda **o: coupling((1, 1, 3), depth=2, hidden=4, bins=3, **o),
    "coupling, bounded": lambda **o: coupling(depth=2, hidden=4, bound=1.5, **o),
    "coupling, weight norm": lambda **o: coupling(
        depth=2, hidden=4, shift_activation="elu", weight_norm=True, **o
    ),
    "autoregressive": lambda **o: autoregressive((3,), depth=2, hidden=4, mixing=ROTATION, **o),
    "autoregressive, splines": lambda **o: autoregressive(
        (1, 1, 3), depth=3, hidden=4, bins=3, **o
    ),
    "glow": lambda **o: glow((1, 4, 4), depth=2, hidden=4, **o),
    "glow, one level": lambda **o: glow((2, 2, 2), levels=1, depth=1, hidden=4, **o),
    "glow, three levels": lambda **o: glow((1, 8, 8), levels=3, depth=1, hidden=4, **o),
}
couplings = pytest.mark.parametrize("name", COUPLINGS)


def test_sizes_are_those_of_the_papers():
    flow = glow((1, 28, 28))
    assert size(flow) == 10_041_352
    assert sum(size(m) for m in flow.modules() if isinstance(m, ActNorm)) == 384
    assert size(coupling()) == 174_206


def test_blocks_of_planar_stand_in_the_order_of_the_paper():
    kinds = [type(layer) for layer in coupling(depth=2).layers]
    assert kinds == [Dense, Coupling, ActNorm, Dense, Coupling, ActNorm, Dense]
    flips = [layer.flip for layer in coupling(depth=3).layers if isinstance(layer, Coupling)]
    assert flips == [True, False, True]


@couplings
def test_mixing_starts_orthogonal(name):
    mixing = (Dense, Convolution)
    weights = [m.weight for m in COUPLINGS[name]().modules() if isinstance(m, mixing)]
    weights = [w if w.ndim == 2 else w.sum((2, 3)) for w in weights]
    assert weights
    for weight in weights:
        torch.testing.assert_close(weight @ weight.mT, torch.eye(len(weight)))


@pytest.mark.parametrize("levels", [2, 3])
def test_halves_leave_the_chain_at_every_level(levels):
    """The latent is that of an explicit multi-scale loop, what leaves last standing first."""
    flow = stirred(glow((1, 8, 8), levels=levels, depth=1, hidden=4), 0.1)
    layers = [layer.layer if isinstance(layer, Part) else layer for layer in flow.layers]
    x, left, steps = torch.randn(3, 1, 8, 8, generator=seeded()), [], iter(layers)
    for level in range(levels):
        for _ in range(4 + (level < levels - 1)):
            x = next(steps)(x)
        if level == 0:
            assert type(layers[5]).__name__ == "Reshape"
            next(steps)
        if level < levels - 1:
            x, half = x.chunk(2, 1)
            left.insert(0, half.flatten(1))
    assert next(steps, None) is None
    expected = torch.cat([x.flatten(1), *left], 1)
    found = flow.to_latent(torch.randn(3, 1, 8, 8, generator=seeded()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert sum(isinstance(layer, Squeeze) for layer in layers) == levels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*DENSE, *COUPLINGS])
def test_a_spec_builds_the_same_net_again(name, dtype):
    flow = stirred({**DENSE, **COUPLINGS}[name](dtype=dtype), 0.1).eval()
    flow.initialize(torch.randn(20, *flow.event_shape, generator=seeded(), dtype=dtype))
    again = rebuild({**flow.spec, "dtype": str(dtype).removeprefix("torch.")}).eval()
    assert repr(again) == repr(flow) and {p.dtype for p in again.parameters()} == {dtype}
    assert again.initialized == (name in DENSE or "autoregressive" in name)
    again.load_state_dict(flow.state_dict())
    x = torch.randn(5, *flow.event_shape, generator=seeded(3), dtype=dtype)
    assert again.initialized and torch.equal(again.log_prob(x), flow.log_prob(x))


@couplings
def test_starts_come_from_the_generator_alone(name):
    state = torch.get_rng_state()
    one, same, other = (COUPLINGS[name](**o) for o in ({}, {}, dict(generator=seeded(7))))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


TRAINED = {
    "coupling": dict(architecture="coupling", depth=2, hidden=4),
    "glow": dict(architecture="glow", depth=1, hidden=4),
}


@pytest.mark.parametrize("name", ["coupling", pytest.param("glow", marks=pytest.mark.slow)])
def test_likelihood_improves(digits, name):
    training = trainer(
        digits, "ml", net=TRAINED[name], steps=40, validate_every=40, optimizer="adam"
    )
    first, *_, last = [e.metrics["val/nll"] for e in training.run() if e.kind == "validate"]
    assert last < first - 0.3


@pytest.mark.parametrize("mixing", ["rotation", "reversal"])
def test_autoregressive_layers_alternate_with_free_matrices(mixing):
    flow = autoregressive((3,), depth=3, hidden=4, mixing=mixing)
    kinds = [type(layer) for layer in flow.layers]
    assert kinds == [Autoregressive, Dense, Autoregressive, Dense, Autoregressive]
    if mixing == "reversal":  # and all else is the identity
        x = at(flow)
        assert torch.equal(flow.to_latent(x), x) and torch.equal(flow.layers[1](x), x.flip(1))


@pytest.mark.parametrize(("make", "line"), [
    (lambda: coupling((1,)), "shape: found .1,., expected at least two elements"),
    (lambda: coupling(bins=4, bound=2.0), "bound: found 2.0, expected None with bins"),
    (lambda: coupling(bins=4, shift_activation="elu"), "shift_activation: found 'elu', expected"),
    (lambda: coupling(activation="tanh"), "activation: found 'tanh', expected one of"),
    (partial(ARCHITECTURES["pixelcnn"], (1, 2, 2), values=3, base=mixture(4)),
        r"base: found GaussianMixture, expected N\(0, I\)"),
    (partial(autoregressive, (2,), categories=(3, 0), base=mixture(2)),
        "base: found GaussianMixture"),
    (partial(autoregressive, (2,), mixing="none"),
        "mixing: found 'none', expected one of rotation"),
    (lambda: convolutional((1, 4, 4), spectral_norm=True, calibrated=True),
        "calibrated: found with spectral_norm"),
    (lambda: convolutional((1, 6, 6), blocks=3), "shape: found"),
    *((partial(glow, shape), "expected .C, H, W.") for shape in ((1, 6, 4), (4, 4), (1, 4, 2))),
])  # fmt: skip
def test_nets_that_make_no_sense_are_refused(make, line):
    with pytest.raises(ValueError, match=line):
        make()


@pytest.mark.parametrize("name", [n for n in FLOWS if n != "no layer"])
def test_every_parameter_gets_a_gradient(name):
    """Of the likelihood; offsets that a triangle or a mask leaves out have none by design."""
    flow = FLOWS[name]()
    named = {n: p for n, p in flow.named_parameters() if p.requires_grad}
    loss = -flow.log_prob(at(flow), context=contexts(flow)).mean()
    found = reference.gradients(loss, list(named.values()))
    for path, gradient in zip(named, found, strict=True):
        assert gradient.isfinite().all() and gradient.abs().max() > 0, path


def test_two_levels_are_the_change_of_variables():
    """Parts of a latent of 16 elements, by the autograd Jacobian; score and inverse."""
    flow = stirred(glow((1, 4, 4), depth=1, hidden=2, activation="swish", context=2), 0.1)
    density, x = flow(contexts(flow, 3)), at(flow, 3)
    log_p = lambda x: reference.log_prob(density, x)  # noqa: E731
    torch.testing.assert_close(density.log_prob(x), log_p(x), rtol=1e-9, atol=1e-9)
    score = reference.score(log_p, x)[1]
    torch.testing.assert_close(density.score(x), score, rtol=1e-9, atol=1e-9)
    again = density.from_latent(density.to_latent(x))
    torch.testing.assert_close(again, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_context_starts_as_nothing(name):
    """At the start the density given any context is the one without, but for couplings' nets."""
    shape = (1, 4, 4) if name in IMAGES else (3,)
    options = {"hidden": 2, "depth": 1} if name in ("glow", "coupling") else {}
    options |= {"values": 3} if name == "pixelcnn" else {}
    flow = ARCHITECTURES[name](shape, context=2, generator=seeded(), **options)
    x, c = at(flow), contexts(flow)
    assert flow.spec["options"]["context"] == flow.context == 2
    same = torch.allclose(flow.log_prob(x, context=c), flow.log_prob(x, context=-c))
    assert same == (name != "coupling")


CONDITIONAL = {
    **{name: (name, (3,), {}) for name in ("autoregressive", "coupling", "dense", "structured")},
    **{name: (name, (1, 4, 4), {}) for name in ("convolutional", "glow")},
    "autoregressive, splines": ("autoregressive", (3,), {"bins": 4}),
    "autoregressive, one": ("autoregressive", (1,), {}),
    "autoregressive, one, splines": ("autoregressive", (1,), {"bins": 4}),
    "dense, one": ("dense", (1,), {}),
    "dense, one, splines": ("dense", (1,), {"activation": "spline"}),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_every_architecture_learns_from_its_context(name):
    """Three steps from the start: all parameters move, and all densities depend on the context."""
    architecture, shape, options = CONDITIONAL[name]
    small = {"hidden": 4, "depth": 1} if architecture in ("coupling", "glow") else {}
    flow = ARCHITECTURES[architecture](shape, context=2, generator=seeded(), **small, **options)
    x, c = at(flow), contexts(flow)
    before = {path: p.detach().clone() for path, p in flow.named_parameters()}
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (-flow.log_prob(x, context=c).mean()).backward()
        optimizer.step()
    assert not [path for path, p in flow.named_parameters() if torch.equal(p, before[path])]
    assert (flow.log_prob(x, context=c) != flow.log_prob(x, context=c + 1)).all()
