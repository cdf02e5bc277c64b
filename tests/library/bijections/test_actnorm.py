"""Statistics of data: taken once, carried by states and copies, the same for a flow's average."""

import copy

import pytest
import torch

from ebflow.architectures import coupling
from ebflow.bijections import ActNorm, Affine, SmoothLeakyReLU
from ebflow.checkpoint import load
from ebflow.flow import Flow

from ..training import trainer
from .cases import seeded

CLOSE = dict(rtol=1e-9, atol=1e-9)
NET = dict(architecture="coupling", depth=2, hidden=4)


def batch(*shape):
    """Returns data whose channels differ in mean and scale."""
    x = torch.randn(shape, generator=seeded(3))
    channel = torch.arange(1.0, shape[1] + 1).view(-1, *[1] * (len(shape) - 2))
    return x * channel + 10 * channel


def standard(y):
    """Asserts that every channel has mean 0 and variance 1."""
    rows = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows.mean(1), torch.zeros(len(rows)), **CLOSE)
    torch.testing.assert_close(rows.var(1, correction=0), torch.ones(len(rows)), **CLOSE)


@pytest.mark.parametrize("shape", [(50, 3), (8, 3, 2, 4)])
def test_a_batch_becomes_standard(shape):
    layer, x = ActNorm(shape[1:]), batch(*shape)
    assert not layer.initialised and torch.equal(layer(x), x)
    layer.initialise(x)
    assert layer.initialised and layer.log_scale.requires_grad
    standard(layer(x))


def test_a_constant_channel_keeps_its_scale():
    layer, x = ActNorm((3,)), batch(50, 3)
    x[:, 1] = 7.0
    layer.initialise(x)
    assert layer.log_scale[1] == 0 and layer.shift[1] == 7
    layer.initialise(x[:1])
    assert torch.equal(layer.shift, x[0]) and not layer.log_scale.any()


def test_a_state_and_a_copy_carry_it():
    layer, x = ActNorm((3,)), batch(50, 3)
    layer.initialise(x)
    other = ActNorm((3,))
    other.load_state_dict(layer.state_dict())
    for one in (other, copy.deepcopy(layer)):
        assert one.initialised and torch.equal(one(x), layer(x))
    assert layer.float().initialised


def test_a_flow_takes_statistics_layer_by_layer_and_once():
    layers = [Affine(1.0, 3.0, (3,)), ActNorm((3,)), SmoothLeakyReLU(0.1), ActNorm((3,))]
    flow, x = Flow((3,), layers), batch(50, 3)
    assert not flow.initialised and Flow((3,), layers[:1]).initialised
    flow.initialise(x)
    assert flow.initialised
    for end in (2, 4):
        standard(Flow((3,), layers[:end])(x))
    before = copy.deepcopy(flow.state_dict())
    flow.initialise(100 * x)
    assert all(torch.equal(before[k], t) for k, t in flow.state_dict().items())


def test_a_trainer_shows_the_first_global_batch_to_weights_and_average(digits):
    training = trainer(digits, net=NET)
    rows = next(digits.split("train").shuffled(64, seed=0)).x
    flow = training.loss.flow
    with torch.no_grad():
        y = Flow((64,), list(flow.layers)[:3])(training.flow.preprocess(rows.double() + 0.5))
        assert y.mean(0).abs().max() < 0.5 and (y.var(0) - 1).abs().max() < 1
        expected, found = training.flow.log_prob(rows), training.averaged.log_prob(rows)
    assert training.averaged.initialised and torch.equal(found, expected)
    assert next(training.run()).metrics["val/nll"] < 1e3


@pytest.mark.parametrize("shard", [(0, 2), (1, 2)])
def test_every_worker_takes_the_same_statistics(digits, shard):
    one, part = trainer(digits, net=NET), trainer(digits, net=NET, shard=shard)
    for a, b in zip(one.parameters, part.parameters, strict=True):
        assert torch.equal(a, b)


def test_a_loaded_flow_is_not_initialised_again(digits, tmp_path):
    training = trainer(digits, net=NET)
    list(training.run())
    training.save(tmp_path / "checkpoint")
    flow = load(tmp_path / "checkpoint").requires_grad_()
    rows = digits.split("test").tensor()
    assert flow.initialised
    with torch.no_grad():
        assert torch.equal(flow.log_prob(rows), training.averaged.log_prob(rows))
    before = copy.deepcopy(flow.state_dict())
    type(training)(
        flow, digits, loss=lambda flow: training.loss, optimizer=lambda p: torch.optim.SGD(p, 0.1)
    )
    assert all(torch.equal(before[k], t) for k, t in flow.state_dict().items())


def test_statistics_may_be_shown_in_single_precision(single_precision):
    flow = coupling((3,), depth=2, hidden=3)
    flow.initialise(batch(50, 3).double())
    assert flow.initialised and flow.log_prob(batch(5, 3)).dtype == torch.float32
