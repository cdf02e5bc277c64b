"""Fooling: what it leaves and what it changes."""

import math

import pytest
import torch

from ebflow.alignment.logit import shifted, stripes
from ebflow.alignment.metrics import invariants
from ebflow.networks import perceptron
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE = (4, 4)


def points():
    return torch.rand(20, 16, generator=seeded()), torch.arange(20) % 3


def network():
    return perceptron(16, 3, hidden=8, depth=2, activation="softplus", generator=derive(0))


def test_a_shift_leaves_the_classifier_and_changes_the_density():
    x, labels = points()
    changed = shifted(network(), lambda x: 100 * (x @ stripes(SHAPE)))
    changes = invariants(network(), changed, x, labels)
    assert changes["posterior"] < 1e-12 and changes["loss"] < 1e-11 and changes["same"] == 1
    assert changes["loss_gradient"] < 1e-9 and changes["logit_gradient"] > 1


@pytest.mark.parametrize("shape", [(8, 8), (3, 4, 4), (7,)])
def test_stripes_are_a_unit_pattern(shape):
    t = stripes(shape)
    assert t.shape == (math.prod(shape),) and t.norm() == pytest.approx(1)
    assert torch.equal(t[::2] > 0, torch.ones_like(t[::2], dtype=bool)) or shape[-1] % 2
