"""Weights that torch parametrizes: one read a sweep, the right leaves, the right derivatives."""

import copy
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import Event, Thread

import pytest
import torch
from torch.nn.utils import parametrizations

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.bijections import Convolution, Dense, SmoothLeakyReLU
from ebflow.bijections.weighted import Weighted, fixed_weights
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.randomness import generator as derive

from .. import reference
from .cases import kernel, matrix, pointwise, seeded

CLOSE = dict(rtol=1e-9, atol=1e-9)

LAYERS = {
    "dense": lambda: Dense(matrix(8), torch.ones(8)),
    "zero": lambda: Convolution(kernel(2), torch.ones(2), (2, 2)),
    "pointwise": lambda: pointwise(matrix(2), (2, 2), torch.ones(2)),
}
layers = pytest.mark.parametrize("name", LAYERS)
NORMS = {"spectral": parametrizations.spectral_norm, "weight": parametrizations.weight_norm}
norms = pytest.mark.parametrize("norm", NORMS)


def normalized(name, norm="spectral"):
    """Returns a training flow of two normalized layers, far from their power iterations' end."""
    torch.random.manual_seed(0)
    first, last = (NORMS[norm](LAYERS[name]()) for _ in range(2))
    flow = Flow(first.event_shape, [first, SmoothLeakyReLU(), last])
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(1)))
    return flow


@pytest.fixture(autouse=True)
def kept_state():
    """Gives the global random state back."""
    with torch.random.fork_rng([]):
        yield


def points(flow, batch=4):
    return torch.randn(batch, *flow.event_shape, generator=seeded(3))


def read(flow):
    """Returns the same flow in evaluation, after one read in training."""
    flow = copy.deepcopy(flow)
    with fixed_weights(flow):
        return flow.eval()


def plain(flow, name):
    """Returns the flow of plain layers that hold the weights of one more read in training."""
    found = [layer for layer in read(flow).layers if isinstance(layer, Weighted)]
    first, last = (LAYERS[name]() for _ in found)
    with torch.no_grad():
        for layer, source in zip((first, last), found, strict=True):
            layer.weight.copy_(source.weight)
            layer.bias.copy_(source.bias)
    return Flow(flow.event_shape, [first, SmoothLeakyReLU(), last])


@layers
@norms
def test_density_and_score_are_those_of_the_weights_in_effect(name, norm):
    flow = normalized(name, norm)
    log_p, x = partial(reference.log_prob, plain(flow, name)), points(flow)
    torch.testing.assert_close(copy.deepcopy(flow).log_prob(x), log_p(x), **CLOSE)
    expected = reference.score(log_p, x)[1]
    torch.testing.assert_close(copy.deepcopy(flow).score(x), expected, **CLOSE)


@layers
def test_factors_follow_the_weights_in_effect(name):
    flow = read(normalized(name))
    layer, x = flow.layers[0], points(flow)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(layer.inverse(layer(x)), x, **CLOSE)
            with torch.enable_grad():
                expected = torch.linalg.slogdet(reference.jacobian(layer, x)[0])[1].detach()
            torch.testing.assert_close(layer.log_det(), expected, **CLOSE)
            layer.parametrizations["weight"].original.add_(0.1)


def test_blocks_share_one_read_and_nothing_afterwards():
    layer = normalized("zero").layers[0]
    assert not torch.equal(layer.weight, layer.weight)
    with fixed_weights(layer):
        first = layer.weight
        with fixed_weights(layer):
            assert layer.weight is first
        assert layer.weight is first
    assert not torch.equal(layer.weight, first)


@contextmanager
def fixed_elsewhere(layer, mode):
    """Fixes the weights of a layer in another thread, until the function is called."""
    inside, done = Event(), Event()

    def hold():
        with mode, fixed_weights(layer):
            inside.set()
            done.wait(10)

    thread = Thread(target=hold)
    thread.start()
    inside.wait(10)
    try:
        yield lambda: (done.set(), thread.join())
    finally:
        done.set()
        thread.join()


def test_a_block_of_another_thread_fixes_no_weight_of_this_one():
    """Two steps of a training, while another thread scores with another flow."""
    layer, values = normalized("dense", "weight").layers[0], []
    with fixed_elsewhere(normalized("dense", "weight"), nullcontext()):
        for _ in range(2):
            with fixed_weights(layer):
                layer.weight.square().sum().backward()
                values.append(layer.weight.detach())
            with torch.no_grad():
                for p in layer.parameters():
                    p.mul_(2.0)
    assert not torch.equal(*values)


def test_a_sampler_in_another_thread_takes_no_gradient_away():
    """Both threads use one flow; the sampler's weights have no gradient."""
    layer = normalized("dense", "weight").layers[0]
    with fixed_elsewhere(layer, torch.no_grad()) as end:
        assert layer.weight.requires_grad
        with fixed_weights(layer):
            end()
            assert layer.weight is layer.weight and layer.weight.requires_grad
        assert layer.weight is not layer.weight


def test_an_earlier_graph_survives_a_later_iteration():
    layer = normalized("dense").layers[0]
    x = torch.randn(3, 8, generator=seeded())
    first = layer(x).square().sum()
    with torch.no_grad():
        layer.parametrizations["weight"].original.data = 2 * matrix(8, 3)
    second = layer(x).square().sum()
    (first + second).backward()  # no tensor that autograd kept has been written over


@pytest.mark.parametrize("objective", ["ml", "sml", "dsm", "ssm", "fd_ssm", "lazy_ml"])
@pytest.mark.parametrize("name", ["dense", "pointwise"])
def test_a_training_step_sees_one_version_of_the_weights(objective, name):
    """One power iteration a step; loss and gradient are those of the weights after it."""
    flow = normalized(name)
    twin, x = read(flow), points(flow)
    for one in (flow, twin):
        value = loss(one, objective)(x, None, derive(0), Progress())[0].mean()
        value.backward()
        one.value = value.detach()
    torch.testing.assert_close(flow.value, twin.value, **CLOSE)
    for (path, a), b in zip(flow.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **CLOSE, msg=lambda m, p=path: f"{p}: {m}")
    for a, b in zip(flow.buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b)


def loss(flow, objective):
    """Returns an anchored loss whose anchor was refreshed without reading ``flow``."""
    other = read(flow) if flow.training else copy.deepcopy(flow)
    anchor, own = Anchor(flow), Anchor(other)
    own.refresh()
    anchor.load(own.state())
    function = objectives.OBJECTIVES[objective]
    if objective == "lazy_ml":
        function = partial(function, anchor=anchor)
    return LossModule(flow, Loss(function, anchor=anchor, anchor_weight=1.0))


def test_sampling_first_loses_no_gradient():
    """The first read of a step may be the sampler's, which wants none."""
    flow = normalized("zero")
    with fixed_weights(flow):
        flow.sample(2, generator=seeded())
        flow.energy(points(flow)).sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_relative_form_of_a_parametrized_weight_is_the_exact_one():
    layer = normalized("dense").eval().layers[0]
    x = points(normalized("dense"))
    for a, b in zip(layer.relative(x), layer.forward_and_log_det(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["dense", "zero", "pointwise"])
def test_describing_a_layer_reads_no_weight(name):
    layer = normalized(name).layers[0]
    before = [b.clone() for b in layer.buffers()]
    repr(layer), layer.volume_parameters(), Anchor(Flow(layer.event_shape, [layer]))
    assert all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))
