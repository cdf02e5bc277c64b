"""The classifiers: their architecture, smoothness, and a step of their training."""

from functools import partial

import pytest
import torch
from torch import nn

from ebflow.alignment.fooling import stripes, target_gradient
from ebflow.alignment.metrics import gradients
from ebflow.alignment.regularizers import REGULARIZERS
from ebflow.randomness import generator as derive
from pipelines.gradient_alignment.classifier_training import ClassifierTraining
from pipelines.gradient_alignment.classifiers import CLASSIFIERS, cnn, resnet18
from pipelines.gradient_alignment.models import PRESETS
from tests.library.bijections.cases import seeded
from tests.library.conftest import double_precision, single_precision  # noqa: F401

SHAPE = (3, 32, 32)


def test_resnet18_has_the_form_for_cifar():
    network = resnet18(SHAPE, 100, generator=derive(0))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 17 + 3
    assert convolutions[0].stride == (1, 1) and convolutions[0].kernel_size == (3, 3)
    assert [m.weight.shape[0] for m in convolutions[1::4]][-1] == 512
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(11.2e6, rel=0.01)
    assert not any(isinstance(m, nn.ReLU | nn.MaxPool2d) for m in network.modules())
    assert network(torch.rand(2, 3072)).shape == (2, 100)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_initial_weights_depend_only_on_the_generator(name):
    build = partial(CLASSIFIERS[name], SHAPE, 10, hidden=32)
    one, same, other = (build(generator=derive(k)) for k in (0, 0, 1))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_examples_do_not_affect_each_other():
    network = resnet18((3, 8, 8), 5, hidden=32, generator=derive(0))
    x, labels = torch.rand(3, 192, generator=seeded()), torch.arange(3)
    together = gradients(network, x, labels).classes
    alone = [gradients(network, row[None], labels[:1]).classes for row in x]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_images_must_be_images():
    with pytest.raises(ValueError, match=r"shape: found \(7,\), expected \(H, W\)"):
        cnn((7,), 3, generator=derive(0))
    with pytest.raises(ValueError, match="multiples of 4"):
        cnn((6, 8), 3, generator=derive(0))


PENALTIES = [(preset, name) for preset, kinds in PRESETS.items() for name in kinds]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), [*PENALTIES, ("fool", "fool")])
def test_a_step_of_resnet18(preset, name, single_precision):  # noqa: F811
    """On random data of CIFAR's shape the loss is finite and the weights move."""
    if name == "fool":
        weight, penalty = 1e-2, target_gradient(stripes(SHAPE), 10.0)
    else:
        options = {k: v for k, v in PRESETS[preset][name].items() if k not in ("warmup", "floor")}
        weight = options.pop("weight")
        penalty = REGULARIZERS[name](**options)
    network = resnet18(SHAPE, 100, generator=derive(0))
    before = [p.detach().clone() for p in network.parameters()]
    x, labels = torch.rand(2, 3072, generator=seeded()), torch.arange(2)
    training = ClassifierTraining(
        network,
        x,
        labels,
        held=(x, labels),
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        regularizer=penalty,
        weight=weight,
        epochs=1,
        batch_size=2,
        noise=0.1,
    )
    (epoch,) = training.run()
    assert torch.tensor(list(epoch.metrics.values())).isfinite().all()
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
