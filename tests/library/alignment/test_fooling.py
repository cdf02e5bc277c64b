"""Fooling: what it leaves and what it changes."""

import math

import pytest
import torch

from ebflow.alignment.fooling import (
    SHIFTS,
    invariants,
    ripple,
    shifted,
    stripes,
    target_gradient,
)
from ebflow.alignment.logit import ClassLogit
from ebflow.density import EnergyFunction
from ebflow.networks import perceptron
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE = (4, 4)


def points():
    return torch.rand(20, 16, generator=seeded()), torch.arange(20) % 3


def network():
    return perceptron(16, 3, hidden=8, depth=2, activation="softplus", generator=derive(0))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_leaves_the_classifier_and_changes_the_density(name):
    x, labels = points()
    changes = invariants(
        network(), shifted(network(), SHIFTS[name](stripes(SHAPE), 100.0)), x, labels
    )
    assert changes["posterior"] < 1e-12 and changes["loss"] < 1e-11 and changes["same"] == 1
    assert changes["loss_gradient"] < 1e-9 and changes["logit_gradient"] > 1


@pytest.mark.parametrize(
    ("name", "gradient", "laplacian"),
    [
        ("linear", lambda x, t: 2 * t.expand_as(x), lambda x, t: torch.zeros(len(x))),
        ("quadratic", lambda x, t: -2 * (x - t), lambda x, t: torch.full((len(x),), -32.0)),
        (
            "sine",
            lambda x, t: (4 * math.pi * torch.cos(2 * math.pi * x @ t)).unsqueeze(1) * t,
            lambda x, t: -8 * math.pi**2 * torch.sin(2 * math.pi * x @ t),
        ),
    ],
)
def test_gradients_and_laplacians_of_shifts(name, gradient, laplacian):
    (x, _), t = points(), stripes(SHAPE)
    shift = SHIFTS[name](t, 2.0)
    density = EnergyFunction(lambda x: -shift(x))
    score, bend = density.score_and_laplacian(x)
    torch.testing.assert_close(score, gradient(x, t))
    torch.testing.assert_close(bend, laplacian(x, t))


def test_a_ripple_changes_loss_gradients_and_hardly_a_loss():
    x, labels = points()
    delta, size = 1e-3, 10.0
    changes = invariants(network(), ripple(network(), stripes(SHAPE), delta=delta, size=size), x,
                      labels)  # fmt: skip
    assert 0.1 * delta < changes["loss"] <= delta
    assert changes["loss_gradient"] > 1


def test_the_target_gradient_is_the_distance_to_the_pattern():
    x, labels = points()
    t = stripes(SHAPE)
    density = ClassLogit(network(), labels)
    found = target_gradient(t, 3.0)(density, x, generator=derive(0))
    score = density.score(x)
    torch.testing.assert_close(found, (score - 3 * t).square().sum(1))
    assert found.requires_grad


@pytest.mark.parametrize("shape", [(8, 8), (3, 4, 4), (7,)])
def test_stripes_are_a_unit_pattern(shape):
    t = stripes(shape)
    assert t.shape == (math.prod(shape),) and t.norm() == pytest.approx(1)
    assert torch.equal(t[::2] > 0, torch.ones_like(t[::2], dtype=bool)) or shape[-1] % 2
