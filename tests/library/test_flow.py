"""Flows as modules: preprocessing and the cut, types, initialization, AMP, torch.compile."""

import copy

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from ebflow import preprocessing
from ebflow.architectures import coupling, dense
from ebflow.bijections import ActNorm, Affine, Dense, Dequantize, MonotoneSpline, SmoothLeakyReLU
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import dsm, ssm_vr
from ebflow.randomness import RowGenerator

from . import reference
from .bijections.cases import channels, matrix, seeded, standard, stirred
from .flows import FLOWS, at, contexts, images, named, net

CLOSE = dict(rtol=1e-9, atol=1e-9)

PREPROCESSINGS = {
    "digits, nothing": ("digits", dict(normalize="none", margin=None)),
    "digits, logit": ("digits", dict(normalize="none", margin=1e-3, scale=0.5)),
    "digits, standardize": ("digits", dict(normalize="standardize", margin=1e-6)),
    "digits, whiten": ("digits", dict(normalize="whiten", margin=1e-6)),
    "diabetes, nothing": ("diabetes", dict(normalize="none")),
    "diabetes, whiten": ("diabetes", dict(normalize="whiten", shrinkage=0.01)),
}
preprocessings = pytest.mark.parametrize("name", PREPROCESSINGS)


def preprocessed_flow(request, name, match_after=True):
    """Returns a flow behind a preprocessing, and four completed rows of its data."""
    source, options = PREPROCESSINGS[name]
    dataset = request.getfixturevalue(source)
    chain = preprocessing.fit(dataset.split("train"), **options)
    x = dataset.split("test").tensor()[:4].double()
    if source == "digits":
        x = x + torch.rand(x.shape, generator=seeded(2)) * 0.98 + 0.01
    return net((dataset.split("train").width,)).preprocessed(chain, match_after=match_after), x


@preprocessings
def test_a_density_of_raw_data_counts_the_preprocessing(request, name):
    flow, x = preprocessed_flow(request, name)
    torch.testing.assert_close(flow.log_prob(x), reference.log_prob(flow, x), **CLOSE)
    assert not [
        p for layer in list(flow.layers)[: flow.n_preprocessing] for p in layer.parameters()
    ]


@preprocessings
@pytest.mark.parametrize("match_after", [True, False])
def test_the_cut_moves_scores_and_not_the_density(request, name, match_after):
    flow, x = preprocessed_flow(request, name, match_after)
    whole, _ = preprocessed_flow(request, name)
    few = int(flow.dequantizer is not None)
    assert flow.n_preprocessing == (whole.n_preprocessing if match_after else few)
    torch.testing.assert_close(flow.log_prob(x), whole.log_prob(x), **CLOSE)
    inner, y = flow.core, flow.preprocess(x)
    assert all(
        a is b
        for a, b in zip(inner.layers, list(flow.layers)[flow.n_preprocessing :], strict=True)
    )
    torch.testing.assert_close(inner.to_latent(y), flow.to_latent(x), **CLOSE)
    leading = Flow(flow.event_shape, list(flow.layers)[: flow.n_preprocessing])
    volume = reference.log_det(leading, x) if flow.n_preprocessing else 0.0
    torch.testing.assert_close(flow.log_prob(x), inner.log_prob(y) + volume, **CLOSE)
    if not match_after:
        assert torch.equal(y, flow.dequantize(x))


@preprocessings
def test_samples_and_inverses_are_raw_data(request, name):
    flow, x = preprocessed_flow(request, name)
    if name.startswith("digits"):
        samples = flow.sample(50, generator=seeded(1))
        assert torch.equal(samples, samples.floor())
        assert 0 <= samples.min() and samples.max() <= 16
        assert flow.log_prob(samples).isfinite().all()
        assert torch.equal(flow.from_latent(flow.to_latent(x)), x.floor())
    else:
        again = flow.from_latent(flow.to_latent(x))
        torch.testing.assert_close(again, x, rtol=1e-8, atol=1e-8)


def test_noise_of_integers_is_a_function_of_the_generator_and_the_row(request):
    flow, x = preprocessed_flow(request, "digits, whiten")
    rows = x.to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(flow.log_prob(rows), flow.log_prob(rows.double()))
        assert torch.equal(
            flow.log_prob(rows, generator=seeded(1)), flow.log_prob(rows, generator=seeded(1))
        )
        assert not torch.equal(
            flow.log_prob(rows, generator=seeded(1)), flow.log_prob(rows, generator=seeded(2))
        )
        torch.testing.assert_close(flow.log_prob(rows[:2]), flow.log_prob(rows)[:2], **CLOSE)
        y = Dequantize(17).dequantize(rows, torch.zeros((), dtype=flow.dtype), seeded(5))
        torch.testing.assert_close(
            flow.log_prob(rows, generator=seeded(5)), flow.log_prob(y), **CLOSE
        )


def test_a_completed_row_takes_no_noise_from_the_others(request):
    """Each row of a batch is completed alone: integers by noise, others as they are."""
    flow, x = preprocessed_flow(request, "digits, whiten")
    mixed = torch.cat([x[:1], x[1:].floor()])
    with torch.no_grad():
        found, whole = flow.log_prob(mixed), flow.log_prob(x.floor())
        torch.testing.assert_close(found[:1], flow.log_prob(x[:1]), **CLOSE)
        torch.testing.assert_close(found[1:], whole[1:], **CLOSE)
        assert flow.log_prob(mixed[:0]).shape == (0,)


@pytest.mark.parametrize("cut", [-1, 4])
def test_a_cut_outside_the_chain_is_refused(cut):
    with pytest.raises(ValueError, match="n_preprocessing: found"):
        Flow((4,), list(net((4,)).layers), n_preprocessing=cut)


TYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("default", TYPES)
def test_the_type_of_a_flow_is_its_own(digits, dtype, default):
    torch.set_default_dtype(default)
    chain = preprocessing.fit(digits.split("train"), normalize="whiten")
    flow = dense((64,), dtype=dtype).preprocessed(chain)
    rows = digits.split("test").tensor()[:3]
    y = flow.preprocess(rows)
    inner, own = flow.core, Flow((64,), list(dense((64,), dtype=dtype).layers))
    found = (flow.log_prob(rows), y, inner.score(y), inner.energy(y), own.score(y))
    assert {t.dtype for t in (*found, flow.sample(2, generator=seeded()))} == {dtype}


def test_single_precision_is_near_double(digits):
    chain = preprocessing.fit(digits.split("train"), normalize="whiten")
    flow = net((64,)).preprocessed(chain)
    like = torch.zeros((), dtype=flow.dtype)
    noise = Dequantize(17).dequantize(digits.split("test").tensor(), like, seeded()).float()
    exact = flow.log_prob(noise.double())
    single = copy.deepcopy(flow).float().log_prob(noise).double()
    assert (single - exact).abs().max() < 0.05
    flow = images((1, 4, 4), bias=0.2)
    x = at(flow)
    single, close = copy.deepcopy(flow).float(), dict(rtol=1e-4, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(single.log_prob(x.float()), flow.log_prob(x), **close)
    torch.testing.assert_close(single.score(x.float()), flow.score(x), **close)


def test_log_normalizer_is_cached_without_gradient(monkeypatch):
    flow, calls, plain = net((4,)), [], torch.linalg.lu_factor_ex
    count = lambda a, **k: calls.append(1) or plain(a, **k)  # noqa: E731
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", count)
    with torch.no_grad():
        for _ in range(3):
            flow.log_prob(at(flow))
            flow.sample(2, generator=seeded())
    assert len(calls) == 2


def test_a_flow_takes_statistics_layer_by_layer_and_once():
    layers = [Affine(1.0, 3.0, (3,)), ActNorm((3,)), SmoothLeakyReLU(0.1), ActNorm((3,))]
    flow, x = Flow((3,), layers), channels(50, 3)
    assert not flow.initialized and Flow((3,), layers[:1]).initialized
    flow.initialize(x)
    assert flow.initialized
    for end in (2, 4):
        standard(Flow((3,), layers[:end]).to_latent(x))
    before = copy.deepcopy(flow.state_dict())
    flow.initialize(100 * x)
    assert all(torch.equal(before[k], t) for k, t in flow.state_dict().items())


def test_statistics_are_those_given_the_contexts():
    flow = stirred(coupling((3,), depth=1, hidden=3, context=2))
    c = contexts(flow, 50)
    flow.initialize(channels(50, 3), context=c)
    density = flow(c)
    index = next(k for k, layer in enumerate(flow.layers) if isinstance(layer, ActNorm))
    x = channels(50, 3)
    for layer in density.layers[: index + 1]:
        x = layer(x)
    standard(x)


def test_statistics_may_be_shown_in_single_precision(single_precision):
    flow = coupling((3,), depth=2, hidden=3)
    flow.initialize(channels(50, 3).double())
    assert flow.initialized and flow.log_prob(channels(5, 3)).dtype == torch.float32


# Parametrized weights


def test_energy_and_normalizer_read_apart_are_those_of_one_weight():
    """In training mode, after a step has moved the weights; copies agree, and stay so."""
    flow = named("coupling", (2,), depth=1, hidden=3).train()
    weight_norm(flow.layers[0])
    x, optimizer = at(flow), torch.optim.Adam(flow.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        (flow.score(x).square().sum() - flow.log_prob(x).sum()).backward()
        optimizer.step()
        energy, log_z, log_prob = flow.energy(x), flow.log_normalizer(), flow.log_prob(x)
        torch.testing.assert_close(-energy - log_z, log_prob, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(log_prob, reference.log_prob(flow, x), **CLOSE)
        samples, log_probs = flow.sample_and_log_prob(3, generator=seeded())
        torch.testing.assert_close(flow.log_prob(samples).detach(), log_probs, **CLOSE)
        twin = copy.deepcopy(flow)
        assert torch.equal(twin.log_prob(x), log_prob)
        assert torch.equal(twin.eval().log_prob(x), log_prob)
        twin.load_state_dict(flow.state_dict())
        assert torch.equal(twin.train().log_prob(x), log_prob)


# PyTorch's own ways


def stepped(module, flow, x, c, scaled):
    """Returns the loss and the gradients of PyTorch's recipe for mixed precision."""
    with torch.autocast("cpu", torch.bfloat16, enabled=scaled):
        losses, _ = module(x, c, RowGenerator(0, "a"), Progress())
        loss = losses.mean()
    loss.backward()  # outside
    gradients = {name: p.grad.clone() for name, p in flow.named_parameters()}
    flow.zero_grad()
    return loss.detach(), gradients


MIXED = {
    "dense": lambda: net((3,), depth=3, residual=True),
    "zero": lambda: images(depth=1),
    "coupling": lambda: named("coupling", (2,), 0.1, depth=2, hidden=3),
    "learned": lambda: Flow((3,), [Dense(matrix(3), None), MonotoneSpline((3,), cells=4)]),
    "given": lambda: named("dense", (3,), 0.05, depth=3, context=2),
}


@pytest.mark.parametrize("objective", [dsm, ssm_vr], ids=["dsm", "ssm_vr"])
@pytest.mark.parametrize("name", MIXED)
def test_the_recipe_of_mixed_precision(name, objective, single_precision):
    """Forward under autocast, backward outside: gradients in float32, to bfloat16's precision."""
    flow = MIXED[name]()
    module, x, c = LossModule(flow, Loss(objective)), at(flow, 64), contexts(flow, 64)
    plain, expected = stepped(module, flow, x, c, False)
    mixed, found = stepped(module, flow, x, c, True)
    assert abs(mixed - plain) < 0.05 * (1 + abs(plain))
    for path, gradient in expected.items():
        assert found[path].dtype == torch.float32
        error = (found[path] - gradient).norm() / (gradient.norm() + 1e-2)
        assert error < 0.1, (path, error)


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three dense layers", "zero"])
def test_a_score_compiles_whole(name, fresh_compiler):
    flow = FLOWS[name]().float()
    x = at(flow).float()
    torch.testing.assert_close(torch.compile(flow.score, fullgraph=True)(x), flow.score(x),
                               rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "spectral", "dense, given"])
def test_a_likelihood_compiles(name, fresh_compiler):
    flow = FLOWS[name]()
    x, c = at(flow), contexts(flow)
    found = torch.compile(flow.log_prob)(x, context=c)
    torch.testing.assert_close(found, flow.log_prob(x, context=c), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "objective"), [
    ("three dense layers", dsm),
    ("dense, given", ssm_vr),
    ("learned activations", dsm),
    ("image of splines", ssm_vr),
])  # fmt: skip
def test_a_training_step_compiles(name, objective, fresh_compiler):
    flow = FLOWS[name]()
    module, x, c = LossModule(flow, Loss(objective)), at(flow), contexts(flow)
    both = []
    for step in (module, torch.compile(module)):
        losses, latent = step(x, c, RowGenerator(0, "a"), Progress())
        losses.mean().backward()
        both.append((losses.detach(), latent, [p.grad.clone() for p in flow.parameters()]))
        flow.zero_grad()
    (one, u, a), (other, w, b) = both
    torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(u, w, **CLOSE)
    for first, second in zip(a, b, strict=True):
        torch.testing.assert_close(first, second, **CLOSE)


@pytest.mark.parametrize("name", ["dense", "no layer"])
def test_a_flow_is_of_the_type_of_its_tensors(name):
    flow = FLOWS[name]()
    for dtype in (torch.float32, torch.float64):
        assert flow.to(dtype).dtype == flow.core.dtype == dtype


def test_a_part_of_a_flow_follows_when_that_is_moved():
    flow = net((3,), depth=3)
    part = flow.after(2)
    flow.float()
    assert part.dtype == part.log_prob(at(part)).dtype == torch.float32
