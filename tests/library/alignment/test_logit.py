"""The true-class logit as a log-density, and the forward Laplacian, against autograd."""

import pytest
import torch

from ebflow import objectives
from ebflow.alignment.classifiers import cnn, mlp, resnet18
from ebflow.alignment.laplacian import laplacian
from ebflow.alignment.logit import ClassLogit, accuracy, logit_gradients
from ebflow.density import EnergyFunction
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE, CLASSES = (4, 4), 3
NETS = {
    "mlp": lambda: mlp(SHAPE, CLASSES, hidden=8, generator=derive(0)),
    "cnn": lambda: cnn(SHAPE, CLASSES, hidden=4, generator=derive(0)),
}
nets = pytest.mark.parametrize("name", NETS)


def points(size=5):
    return torch.rand(size, 16, generator=seeded()), torch.arange(size) % CLASSES


@nets
def test_the_forward_laplacian_is_the_trace_of_every_logits_hessian(name):
    network, (x, _) = NETS[name](), points()
    logits, tangents, bend = laplacian(network, x)
    torch.testing.assert_close(logits, network(x))
    for j in range(CLASSES):
        density = EnergyFunction(lambda x, j=j: -network(x)[:, j])
        score, trace = density.score_and_laplacian(x)
        torch.testing.assert_close(tangents[:, :, j].mT, score)
        torch.testing.assert_close(bend[:, j], trace)


def test_a_network_with_an_unknown_layer_falls_back_to_autograd():
    network = torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
    x, labels = points()
    assert laplacian(network, x) is None
    found = ClassLogit(network, labels).score_and_laplacian(x)[1]
    hessians = [
        torch.func.hessian(lambda x, y=y: network(x)[y])(row)
        for row, y in zip(x, labels, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack([h.trace() for h in hessians]))


@nets
@pytest.mark.parametrize("objective", ["exact_sm", "ssm_vr", "taylor_sm", "dsm", "fd_ssm"])
def test_objectives_see_the_logit_of_the_label(name, objective):
    """Value and parameter gradient are those of one density a class, class by class."""
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


def test_many_directions_are_one_batched_pass():
    seen, (x, labels) = [], points()
    network = NETS["mlp"]()

    def counted(x):
        seen.append(len(x))
        return network(x)

    objectives.taylor_sm(ClassLogit(counted, labels), x, generator=derive(0), slices=4)
    assert seen == [5, 20]


@nets
@pytest.mark.parametrize("objective", ["exact_sm", "taylor_sm"])
def test_the_logits_of_the_points_themselves_are_kept(name, objective):
    network, (x, labels) = NETS[name](), points()
    density = ClassLogit(network, labels)
    objectives.OBJECTIVES[objective](density, x, generator=derive(0))
    torch.testing.assert_close(density.logits, network(x))


@nets
def test_gradients_of_all_logits(name):
    network, (x, labels) = NETS[name](), points()
    logits, rows = logit_gradients(network, x)
    torch.testing.assert_close(logits, network(x).detach())
    for j in range(CLASSES):
        expected = ClassLogit(network, torch.full_like(labels, j)).score(x)
        torch.testing.assert_close(rows[j], expected.detach())


def test_accuracy_counts_largest_logits():
    x = torch.eye(4)
    assert accuracy(lambda x: x, x, torch.tensor([0, 1, 3, 3])) == 0.75


@pytest.mark.parametrize("normalization", ["group", "frozen"])
def test_examples_do_not_see_each_other(normalization):
    network = resnet18((3, 8, 8), 5, hidden=32, normalization=normalization, generator=derive(0))
    network.eval()
    x = torch.rand(3, 192, generator=seeded())
    together = logit_gradients(network, x)[1]
    alone = torch.cat([logit_gradients(network, row[None])[1] for row in x], 1)
    torch.testing.assert_close(together, alone)
