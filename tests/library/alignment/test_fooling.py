"""Fooling: the predictions that it leaves, and the gradients that it changes."""

import math

import pytest
import torch

from ebflow.alignment.classifiers import mlp
from ebflow.alignment.fooling import SHIFTS, face, pattern_of, ripple, target_gradient
from ebflow.alignment.logit import ClassLogit, shifted, stripes
from ebflow.alignment.metrics import invariants
from ebflow.density import EnergyFunction
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SHAPE = (4, 4)


def points():
    return torch.rand(20, 16, generator=seeded()), torch.arange(20) % 3


def network():
    return mlp(SHAPE, 3, hidden=8, generator=derive(0))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_leaves_the_classifier_and_changes_the_density(name):
    x, labels = points()
    moved = shifted(network(), SHIFTS[name](stripes(SHAPE)))
    changes = invariants(network(), moved, x, labels)
    assert changes["posterior"] < 1e-12 and changes["loss"] < 1e-11 and changes["same"] == 1
    assert changes["loss_gradient"] < 1e-9 and changes["logit_gradient"] > 1


@pytest.mark.parametrize(("name", "gradient", "laplacian"), [
    ("linear", lambda x, t: 2 * t.expand_as(x), lambda x, t: torch.zeros(len(x))),
    ("quadratic", lambda x, t: -2 * (x - t), lambda x, t: torch.full((len(x),), -32.0)),
    ("sine", lambda x, t: (4 * math.pi * torch.cos(2 * math.pi * x @ t)).unsqueeze(1) * t,
     lambda x, t: -8 * math.pi**2 * torch.sin(2 * math.pi * x @ t)),
])  # fmt: skip
def test_gradients_and_laplacians_of_shifts(name, gradient, laplacian):
    (x, _), t = points(), stripes(SHAPE)
    shift = SHIFTS[name](t, 2.0)
    at = EnergyFunction(lambda x: -shift(x)).at(x)
    torch.testing.assert_close(at.score, gradient(x, t))
    torch.testing.assert_close(at.laplacian(), laplacian(x, t))


def test_a_ripple_changes_loss_gradients_and_hardly_a_loss():
    x, labels = points()
    delta, size = 1e-3, 10.0
    rippled = ripple(network(), stripes(SHAPE), delta=delta, size=size)
    changes = invariants(network(), rippled, x, labels)
    assert 0.1 * delta < changes["loss"] <= 2 * delta
    assert changes["posterior"] <= 2 * delta
    assert changes["loss_gradient"] > 1


def test_the_target_gradient_is_the_distance_to_the_pattern():
    x, labels = points()
    t = stripes(SHAPE)
    density = ClassLogit(network(), labels)
    found = target_gradient(density, x, generator=derive(0), pattern=t, length=3.0)
    score = density.score(x)
    torch.testing.assert_close(found, (score - 3 * t).square().sum(1))
    assert found.requires_grad


@pytest.mark.parametrize("shape", [(8, 8), (3, 32, 32), (1, 28, 20)])
def test_a_face_is_a_unit_pattern_of_any_image(shape):
    t = pattern_of(shape).view(shape)
    assert t.norm() == pytest.approx(1, abs=1e-6) and len(t.abs().unique()) == 1
    eye, cheek = (shape[-2] * 3 // 16, shape[-1] * 3 // 16), (shape[-2] // 2 - 1, shape[-1] // 2)
    assert (t[..., eye[0], eye[1]] > 0).all() and (t[..., cheek[0], cheek[1]] < 0).all()
    assert t.equal(face(shape).view(shape))


def test_rows_without_room_for_a_face_have_stripes():
    for shape in [(13,), (4, 4)]:
        assert pattern_of(shape).equal(stripes(shape))
    with pytest.raises(ValueError, match=r"shape: found \(4, 4\), expected"):
        face((4, 4))
