"""The true-class logit as a log-density, against autograd."""

import math

import pytest
import torch
from torch import nn

from ebflow import objectives
from ebflow.alignment.logit import ClassLogit, accuracy, logit_gradients, stripes
from ebflow.alignment.metrics import gradients
from ebflow.density import EnergyFunction
from ebflow.networks import perceptron, started
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE, CLASSES = (4, 4), 3


def mlp(inputs=16):
    return perceptron(
        inputs, CLASSES, hidden=8, depth=2, activation="softplus", generator=derive(0)
    )


def cnn():
    convolution = started(nn.Conv2d(1, 4, 3, padding=1), derive(1))
    return nn.Sequential(
        nn.Unflatten(1, (1, *SHAPE)), convolution, nn.Softplus(10), nn.Flatten(), mlp(64)
    )


NETS = {"mlp": mlp, "cnn": cnn}
nets = pytest.mark.parametrize("name", NETS)


def points(size=5):
    return torch.rand(size, 16, generator=seeded()), torch.arange(size) % CLASSES


@nets
@pytest.mark.parametrize("objective", ["ssm_vr", "taylor_sm", "dsm", "fd_ssm"])
def test_objectives_use_the_logit_of_the_label(name, objective):
    """Value and parameter gradient are those of one density per class."""
    network, (x, labels) = NETS[name](), points(6)
    function, parameters = objectives.OBJECTIVES[objective], list(network.parameters())
    found = function(ClassLogit(network, labels), x, generator=derive(1))
    expected = torch.zeros_like(found)
    for j in range(CLASSES):
        density = EnergyFunction(lambda x, j=j: -network(x)[:, j])
        whole = function(density, x, generator=derive(1))
        expected = torch.where(labels == j, whole, expected)
    torch.testing.assert_close(found, expected)
    ours, theirs = (
        torch.autograd.grad(t.sum(), parameters, materialize_grads=True) for t in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@nets
@pytest.mark.parametrize("objective", ["ssm_vr", "taylor_sm"])
def test_the_logits_of_the_points_are_stored(name, objective):
    network, (x, labels) = NETS[name](), points()
    density = ClassLogit(network, labels)
    objectives.OBJECTIVES[objective](density, x, generator=derive(0))
    torch.testing.assert_close(density.logits, network(x))


@nets
def test_gradients_of_all_logits(name):
    network, (x, labels) = NETS[name](), points()
    found = gradients(network, x, labels)
    torch.testing.assert_close(found.logits, network(x).detach())
    for j in range(CLASSES):
        expected = ClassLogit(network, torch.full_like(labels, j)).score(x)
        torch.testing.assert_close(found.classes[j], expected.detach())


@nets
def test_logit_gradients_do_not_mix_examples(name):
    network, (x, _) = NETS[name](), points()
    logits, together = logit_gradients(network, x)
    assert together.shape == (CLASSES, *x.shape) and not together.requires_grad
    alone = torch.cat([logit_gradients(network, row[None])[1] for row in x], 1)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(logits, network(x).detach())


def test_accuracy_counts_largest_logits():
    x = torch.eye(4)
    assert accuracy(lambda x: x, x, torch.tensor([0, 1, 3, 3])) == 0.75


@pytest.mark.parametrize("shape", [(8, 8), (3, 4, 4), (7,)])
def test_stripes_are_a_unit_pattern(shape):
    t = stripes(shape)
    assert t.shape == (math.prod(shape),) and t.norm() == pytest.approx(1)
    assert torch.equal(t[::2] > 0, torch.ones_like(t[::2], dtype=bool)) or shape[-1] % 2
