"""Flows against a brute-force change of variables, for every architecture and preprocessing."""

import copy
import itertools
import math

import pytest
import torch

from ebflow import preprocessing
from ebflow.architectures import ARCHITECTURES, dense
from ebflow.bijections import Affine, Dense, Dequantise, Permutation, Reshape, SmoothLeakyReLU
from ebflow.density import AutogradDensity
from ebflow.flow import Flow, Observed

from . import reference
from .bijections.cases import Planar, Shear, directions, matrix, seeded, stirred

CLOSE = dict(rtol=1e-9, atol=1e-9)

NETS = {
    "1 layer": dict(depth=1),
    "2 layers": dict(depth=2),
    "3 layers, residual": dict(depth=3, residual=True),
    "2 layers, negative": dict(depth=2, sign=-1.0, bias=1.0),
    "2 layers, calibrated": dict(depth=2, calibrated=True, alpha=0.1),
}

FRONTS = {
    "digits, nothing": ("digits", dict(normalise="none", margin=None)),
    "digits, logit": ("digits", dict(normalise="none", margin=1e-3, scale=0.5)),
    "digits, standardise": ("digits", dict(normalise="standardise", margin=1e-6)),
    "digits, whiten": ("digits", dict(normalise="whiten", margin=1e-6)),
    "digits, whiten without logit": ("digits", dict(normalise="whiten", margin=None)),
    "diabetes, nothing": ("diabetes", dict(normalise="none")),
    "diabetes, standardise": ("diabetes", dict(normalise="standardise")),
    "diabetes, whiten": ("diabetes", dict(normalise="whiten", shrinkage=0.01)),
}


def net(width, **options):
    """Returns a dense net with weights that are no multiple of the identity."""
    return ARCHITECTURES["dense"](width, noise=0.4, generator=seeded(), **options)


def custom():
    """Returns a flow of every kind of layer, on images."""
    layers = [
        Affine(0.1, torch.tensor([[[1.0]], [[2.0]]]), (2, 1, 2), trainable=True),
        Reshape((2, 1, 2), (4,)),
        Dense(matrix(4), torch.ones(4)),
        SmoothLeakyReLU(0.3),
        Planar(4),
        Permutation(torch.tensor([3, 1, 0, 2])),
        Shear(),
        Dense(matrix(4, 5), None, trainable=False),
        SmoothLeakyReLU(0.2, residual=True),
        Dense(matrix(4, 6), torch.zeros(4)),
    ]
    return Flow((2, 1, 2), layers)


CONVOLUTIONAL = {
    "convolutional": dict(depth=1),
    "convolutional, circular": dict(padding="circular", sign=1.0, bias=0.2),
    "convolutional, masked": dict(padding="masked", residual=False),
    "convolutional, spectral": dict(depth=1, spectral_norm=True),
}


def images(shape=(1, 2, 2), **options):
    """Returns a convolutional net with kernels that are no multiple of the identity."""
    options = {"kernel_size": 3, "blocks": 2, "noise": 0.3, "generator": seeded(), **options}
    return ARCHITECTURES["convolutional"](shape, **options).eval()


SMALL = {name: lambda o=o: net((4,), **o) for name, o in NETS.items()}
SMALL |= {name: lambda o=o: images(**o) for name, o in CONVOLUTIONAL.items()}
SMALL |= {
    "coupling": lambda: stirred(ARCHITECTURES["coupling"](depth=2, hidden=3)),
    "coupling, elu, three": lambda: stirred(
        ARCHITECTURES["coupling"]((3,), depth=1, hidden=3, shift_activation="elu")
    ),
    "coupling, weight norm": lambda: stirred(
        ARCHITECTURES["coupling"](depth=1, hidden=3, norm="weight")
    ),
    "coupling, splines": lambda: stirred(ARCHITECTURES["coupling"](depth=1, hidden=3, bins=3)),
    "glow": lambda: stirred(
        ARCHITECTURES["glow"]((1, 4, 4), depth=1, hidden=2, activation="swish"), 0.1
    ),
    "structured": lambda: stirred(ARCHITECTURES["structured"]((4,), depth=1, structure="trilu")),
    "image": lambda: net((1, 2, 2)),
    "every kind of layer": custom,
    "no layer": lambda: Flow((4,), []),
    "linear alone": lambda: Flow((4,), [Affine(1.0, 2.0, (4,)), Dense(matrix(4), None)]),
}
small = pytest.mark.parametrize("name", SMALL)


def at(flow, batch=5, seed=3):
    return torch.randn(batch, *flow.event_shape, generator=seeded(seed))


def brute(flow):
    return lambda x: reference.log_prob(flow, x)


def fronted(request, name, flow_of=net, **options):
    """Returns a flow behind a preprocessing, and four completed rows of its data."""
    source, front = FRONTS[name]
    dataset = request.getfixturevalue(source)
    chain = preprocessing.fit(dataset.split("train"), **front)
    width = dataset.split("train").width
    x = dataset.split("test").tensor()[:4].double()
    if source == "digits":
        x = x + torch.rand(x.shape, generator=seeded(2)) * 0.98 + 0.01
    return flow_of((width,), **options).preprocessed(chain, match_after=True), x


@pytest.mark.parametrize(("net_name", "front"), list(itertools.product(NETS, FRONTS)))
def test_log_prob_is_the_change_of_variables(request, net_name, front):
    flow, x = fronted(request, front, **NETS[net_name])
    found = flow.log_prob(x)
    torch.testing.assert_close(found, reference.log_prob(flow, x), **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x), found, **CLOSE)


@small
def test_log_prob_of_small_flows(name):
    flow = SMALL[name]()
    x = at(flow)
    torch.testing.assert_close(flow.log_prob(x), reference.log_prob(flow, x), **CLOSE)


@small
def test_energy_leaves_out_what_does_not_depend_on_the_input(name):
    flow = SMALL[name]()
    x = at(flow)
    log_dets = (reference.log_det(f, y)[0] for f, y in constant_layers(flow, x))
    log_z = -sum(log_dets, start=torch.zeros(()))
    torch.testing.assert_close(flow.log_normalizer(), log_z, **CLOSE)
    energy = flow.energy(x)
    torch.testing.assert_close(-energy - log_z, reference.log_prob(flow, x), **CLOSE)
    torch.testing.assert_close(flow.at(x).energy, energy, **CLOSE)
    latent, again = flow.latent_and_energy(x)
    torch.testing.assert_close(again, energy, **CLOSE)
    torch.testing.assert_close(latent, flow(x), **CLOSE)


def constant_layers(flow, x):
    for layer in flow.layers:
        if layer.constant_jacobian:
            yield layer, x.detach()
        x = layer(x)


@small
def test_score(name):
    flow = SMALL[name]()
    x = at(flow)
    expected = reference.score(brute(flow), x)[1]
    torch.testing.assert_close(flow.score(x), expected, **CLOSE)
    torch.testing.assert_close(AutogradDensity(flow.log_prob).score(x), expected, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(flow.score(x), expected, **CLOSE)


@small
@pytest.mark.parametrize("slices", [1, 3])
def test_second_order(name, slices):
    flow = SMALL[name]()
    x = at(flow)
    v = directions(x, slices)
    s, h = reference.hessian(brute(flow), x)
    flat = v.flatten(2)
    slope = torch.einsum("kbi,bi->kb", flat, s)
    curvature = torch.einsum("kbi,bij,kbj->kb", flat, h, flat)
    for density in (flow, AutogradDensity(flow.log_prob), Observed(flow)):
        first, second = density.directional(x, v)
        torch.testing.assert_close(first, slope, **CLOSE)
        torch.testing.assert_close(second, curvature, **CLOSE)
        found, second = density.score_and_curvature(x, v)
        torch.testing.assert_close(found.flatten(1), s, **CLOSE)
        torch.testing.assert_close(second, curvature, **CLOSE)


@small
def test_directional_takes_one_direction_without_a_slice_dimension(name):
    flow = SMALL[name]()
    x = at(flow)
    v = directions(x, 1)
    for one, many in zip(flow.directional(x, v[0]), flow.directional(x, v), strict=True):
        assert one.shape == (len(x),)
        torch.testing.assert_close(one, many[0], **CLOSE)


@small
def test_derivatives_carry_parameter_gradients(name):
    flow = SMALL[name]()
    parameters = list(flow.parameters())
    if not parameters:
        pytest.skip("nothing to train")
    x = at(flow)
    v = directions(x, 2)
    oracle = AutogradDensity(brute(flow))
    scalars = {
        "score": lambda d: torch.sin(d.score(x)).sum(),
        "directional": lambda d: sum(torch.sin(t).sum() for t in d.directional(x, v)),
        "both": lambda d: sum(torch.sin(t).sum() for t in d.score_and_curvature(x, v)),
    }
    for kind, scalar in scalars.items():
        found, expected = (reference.gradients(scalar(d), parameters) for d in (flow, oracle))
        for (path, _), a, b in zip(flow.named_parameters(), found, expected, strict=True):
            torch.testing.assert_close(
                a, b, **CLOSE, msg=lambda m, k=kind, p=path: f"{k} {p}: {m}"
            )


@small
def test_every_parameter_gets_a_gradient(name):
    flow = SMALL[name]()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    loss = -flow.log_prob(at(flow)).mean()
    if parameters:
        for gradient in torch.autograd.grad(loss, parameters):
            assert gradient.isfinite().all() and gradient.abs().max() > 0


@small
def test_inverse_and_samples(name):
    flow = SMALL[name]()
    u = torch.randn(6, *flow(at(flow)).shape[1:], generator=seeded(9))
    torch.testing.assert_close(flow(flow.inverse(u)), u, rtol=1e-8, atol=1e-8)
    samples = flow.sample(7, generator=seeded(1))
    assert samples.shape == (7, *flow.event_shape) and not samples.requires_grad
    assert torch.equal(samples, flow.sample(7, generator=seeded(1)))
    assert flow.log_prob(samples).isfinite().all()


def test_samples_have_the_density_of_the_flow():
    """By E[1/p · 1(|x| < r)] = volume: a z-test at a false-alarm rate of 1e-4 (4.0 sigma)."""
    flow = net((2,), depth=2)
    x = flow.sample(40_000, generator=seeded(4))
    inside = (x.norm(dim=1) < 1).double()
    terms = inside * torch.exp(-flow.log_prob(x).detach())
    z = (terms.mean() - math.pi) / (terms.std() / len(x) ** 0.5)
    assert abs(z) < reference.two_sided(1e-4)


@pytest.mark.parametrize("front", [name for name in FRONTS if name.startswith("digits")])
def test_discrete_samples_are_levels(request, front):
    flow, x = fronted(request, front)
    samples = flow.sample(50, generator=seeded(1))
    assert torch.equal(samples, samples.floor())
    assert 0 <= samples.min() and samples.max() <= 16
    assert flow.log_prob(samples).isfinite().all()
    assert torch.equal(flow.inverse(flow(x)), x.floor())


@pytest.mark.parametrize("front", [name for name in FRONTS if name.startswith("diabetes")])
def test_continuous_round_trip(request, front):
    flow, x = fronted(request, front)
    torch.testing.assert_close(flow.inverse(flow(x)), x, rtol=1e-8, atol=1e-8)


def test_log_prob_of_integers_is_deterministic(request):
    flow, x = fronted(request, "digits, whiten")
    rows = x.to(torch.uint8)
    assert torch.equal(flow.log_prob(rows), flow.log_prob(rows))
    assert torch.equal(flow.log_prob(rows, seeded(1)), flow.log_prob(rows, seeded(1)))
    assert not torch.equal(flow.log_prob(rows, seeded(1)), flow.log_prob(rows, seeded(2)))
    assert torch.equal(flow.log_prob(rows), flow.log_prob(rows.double()))


def test_log_prob_of_integers_is_that_of_completed_data(request):
    flow, x = fronted(request, "digits, whiten")
    y = Dequantise(17).dequantise(x.to(torch.uint8), flow.like, seeded(5))
    torch.testing.assert_close(
        flow.log_prob(x.to(torch.uint8), seeded(5)), reference.log_prob(flow, y), **CLOSE
    )


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("match_after", [True, False])
def test_matching_after_preprocessing_moves_the_cut_and_not_the_density(
    request, front, match_after
):
    source, options = FRONTS[front]
    split = request.getfixturevalue(source).split("train")
    chain = preprocessing.fit(split, **options)
    flow = net((split.width,)).preprocessed(chain, match_after=match_after)
    _, x = fronted(request, front)
    discrete = source == "digits"
    assert flow.cut == (len(chain.layers) if match_after else int(discrete))
    whole, matched = flow.log_prob(x), flow.matched.log_prob(flow.preprocess(x))
    volume = sum(
        reference.log_det(layer, y)
        for layer, y in zip(flow.layers, inputs(flow, x), strict=False)
        if layer in list(flow.layers)[: flow.cut]
    )
    torch.testing.assert_close(whole, matched + volume, **CLOSE)
    if not match_after:
        torch.testing.assert_close(flow.preprocess(x), x, rtol=0, atol=0)


def inputs(flow, x):
    for layer in flow.layers:
        yield x.detach()
        x = layer(x)


def test_matched_flow_shares_its_layers(request):
    flow, _ = fronted(request, "digits, whiten")
    inner = flow.matched
    assert all(a is b for a, b in zip(inner.layers, list(flow.layers)[flow.cut :], strict=True))
    assert set(inner.parameters()) == {p for p in flow.parameters() if p.requires_grad}


def test_preprocessing_is_not_trained(request):
    flow, _ = fronted(request, "digits, whiten")
    assert not [p for layer in list(flow.layers)[: flow.cut] for p in layer.parameters()]


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 1), ()])
def test_wrong_shapes_raise(shape):
    flow = net((4,))
    for call in (flow, flow.log_prob, flow.energy, flow.score, flow.preprocess, flow.at):
        with pytest.raises(ValueError, match="found shape"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("cut", [-1, 4])
def test_a_cut_outside_the_chain_is_refused(cut):
    with pytest.raises(ValueError, match="cut: found"):
        Flow((4,), list(net((4,)).layers), cut=cut)


TYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("default", TYPES)
def test_the_type_of_a_flow_is_its_own(request, digits, dtype, default):
    torch.set_default_dtype(default)
    chain = preprocessing.fit(digits.split("train"), normalise="whiten")
    flow = dense((64,), dtype=dtype).preprocessed(chain)
    rows = digits.split("test").tensor()[:3]
    assert flow.log_prob(rows).dtype == dtype
    y = flow.preprocess(rows)
    assert y.dtype == dtype
    inner = flow.matched
    assert inner.score(y).dtype == inner.energy(y).dtype == dtype
    assert flow.sample(2, generator=seeded()).dtype == dtype
    assert Flow((64,), list(dense((64,), dtype=dtype).layers)).score(y).dtype == dtype


def test_single_precision_is_near_double(digits):
    chain = preprocessing.fit(digits.split("train"), normalise="whiten")
    flow = net((64,)).preprocessed(chain)
    rows = digits.split("test").tensor()
    noise = Dequantise(17).dequantise(rows, flow.like, seeded()).float()
    exact = flow.log_prob(noise.double())
    single = copy.deepcopy(flow).float().log_prob(noise).double()
    assert (single - exact).abs().max() < 0.05


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_single_precision_of_images_is_near_double(name):
    flow = images((1, 4, 4), **CONVOLUTIONAL[name])
    x = at(flow)
    exact, score = flow.log_prob(x), flow.score(x)
    single = copy.deepcopy(flow).float()
    close = dict(rtol=1e-4, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(single.log_prob(x.float()), exact, **close)
    torch.testing.assert_close(single.score(x.float()), score, **close)


def test_log_normalizer_is_cached_without_gradient(monkeypatch):
    flow, calls, plain = net((4,)), [], torch.linalg.lu_factor_ex
    count = lambda a, **k: calls.append(1) or plain(a, **k)  # noqa: E731
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", count)
    with torch.no_grad():
        for _ in range(3):
            flow.log_prob(at(flow))
            flow.sample(2, generator=seeded())
    assert len(calls) == 2


def test_calibrated_start_has_standard_latents():
    """Mean 0 and variance 1 to five standard errors of 200,000 draws."""
    flow = dense((1,), depth=3, alpha=0.1, calibrated=True)
    z = torch.randn(200_000, 1, generator=seeded())
    first = Flow((1,), list(flow.layers)[:3])(z)
    n = len(z) ** 0.5
    assert abs(first.mean()) < 5 / n and abs(first.var() - 1) < 5 * 3 / n


def test_start_of_the_paper():
    flow = dense((3,), depth=2, sign=-1.0, bias=1.0)
    for layer in (flow.layers[0], flow.layers[2]):
        assert torch.equal(layer.weight, -torch.eye(3)) and torch.equal(layer.bias, torch.ones(3))
    assert sum(p.numel() for p in dense((784,)).parameters()) == 1_230_880


@pytest.mark.parametrize("method", ["energy", "score", "score_and_curvature", "directional"])
def test_observed_keeps_the_first_points(method):
    flow = net((4,))
    x, seen = at(flow, 3), Observed(flow)
    more = () if method in ("energy", "score") else (directions(x, 2),)
    getattr(seen, method)(x, *more)
    seen.energy(at(flow, 5, seed=8))
    latent, energy = seen.at(x)
    torch.testing.assert_close(latent, flow(x), **CLOSE)
    torch.testing.assert_close(energy, flow.energy(x), **CLOSE)


def test_observed_keeps_the_first_rows_of_a_longer_batch():
    flow = net((4,))
    x, seen = at(flow, 3), Observed(flow)
    seen.energy(torch.cat([x, x + 1, x - 1]))
    torch.testing.assert_close(seen.at(x)[1], flow.energy(x), **CLOSE)
