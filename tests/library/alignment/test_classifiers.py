"""Architectures of classifiers: their form, smoothness and independent examples."""

import pytest
import torch
from torch import nn

from ebflow.alignment.classifiers import CLASSIFIERS, cnn, resnet9, resnet18
from ebflow.alignment.logit import ClassLogit
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE = (3, 32, 32)


def test_resnet18_has_the_form_for_small_images():
    network = resnet18(SHAPE, 100, generator=derive(0))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 17 + 3
    assert convolutions[0].stride == (1, 1) and convolutions[0].kernel_size == (3, 3)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(11.2e6, rel=0.01)
    assert not any(isinstance(m, nn.ReLU | nn.MaxPool2d) for m in network.modules())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_smooth_and_does_not_mix_examples(name):
    network = CLASSIFIERS[name]((3, 8, 8), 5, hidden=8, generator=derive(0)).double()
    x = torch.rand(3, 192, generator=seeded(), dtype=torch.float64)
    together = network(x)
    assert together.shape == (3, 5)
    torch.testing.assert_close(together, torch.cat([network(row[None]) for row in x]))
    trace = ClassLogit(network, torch.arange(1)).at(x[:1]).laplacian()
    assert abs(float(trace.detach())) > 1e-6


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape: found \(7,\), expected \(H, W\)"):
        cnn((7,), 3, generator=derive(0))
    with pytest.raises(ValueError, match="multiples of 4"):
        cnn((6, 8), 3, generator=derive(0))
    with pytest.raises(ValueError, match="hidden: found 12, expected a multiple of 8"):
        resnet9(SHAPE, 3, hidden=12, generator=derive(0))
