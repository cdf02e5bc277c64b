"""Objectives that learn inverses: their gradients, and trainings by them."""

import math

import pytest
import torch

import ebflow
from ebflow import objectives
from ebflow.architectures import dense
from ebflow.bijections import Dense
from ebflow.loss import Loss
from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive
from pipelines.training.rivals import RIVALS, DenseWithInverse, inverse_error, load
from tests.library.bijections.cases import matrix, seeded, stirred

self_normalizing, free_form = RIVALS["self_normalizing"], RIVALS["free_form"]
CLOSE = dict(rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    """Computes in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SIZE = 4


def with_inverses(exact=True):
    """A net whose learned inverses are exact, or near."""
    made = dense((SIZE,), depth=2, linear="learned_inverse", activation="spline", cells=4)
    made = stirred(made, 0.15)
    with torch.no_grad():
        for layer in made.layers:
            if isinstance(layer, DenseWithInverse):
                layer.reverse.copy_(torch.linalg.inv(layer.weight))
                if not exact:
                    layer.reverse.add_(torch.randn(SIZE, SIZE, generator=seeded(9)), alpha=0.1)
    return made


def gradients(made, loss):
    made.zero_grad()
    loss.mean().backward()
    return {k: p.grad.clone() for k, p in made.named_parameters() if p.grad is not None}


def points(count=6):
    return torch.randn(count, SIZE, generator=seeded(5))


def test_self_normalizing_has_the_gradient_of_ml_where_the_inverses_are_exact():
    made, x = with_inverses(), points()
    expected = gradients(made, objectives.ml(made(), x, generator=derive(0)))
    found = gradients(made, self_normalizing(made(), x, generator=derive(0)))
    assert {name.rpartition(".")[2] for name in found.keys() - expected.keys()} == {"reverse"}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **CLOSE)


def test_self_normalizing_moves_the_inverse_as_the_weight_moves():
    """Of f(R) = the loss with W = R⁻¹, the gradient by R is −Wᵀ G Wᵀ, G being that by W."""
    made, x = with_inverses(), points()
    found = gradients(made, self_normalizing(made(), x, generator=derive(0)))
    for index, layer in enumerate(made.layers):
        if isinstance(layer, DenseWithInverse):
            w, gradient = layer.weight.detach(), found[f"layers.{index}.weight"]
            reverse = found[f"layers.{index}.reverse"]
            torch.testing.assert_close(reverse, -w.mT @ gradient @ w.mT, **CLOSE)


def test_self_normalizing_elsewhere_has_the_inverse_and_the_reconstruction_that_there_are():
    layer = DenseWithInverse(matrix(SIZE), torch.zeros(SIZE))
    layer.reverse.data.add_(0.1 * torch.randn(SIZE, SIZE, generator=seeded(2)))
    x, made = points(), ebflow.Flow((SIZE,), [layer])
    found = gradients(made, self_normalizing(made(), x, generator=derive(0), reconstruction=3.0))
    w, r = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.reverse))
    z = x @ w.mT
    slow = (0.5 * z.square().sum(1)).mean() - (r.detach().mT * w).sum()
    slow = slow + 3.0 * (z @ r.mT - x).square().sum(1).mean()
    by_w, by_r = torch.autograd.grad(slow, (w, r))
    delta = z.detach() / len(x)
    by_r = by_r + w.detach().mT - (delta @ w.detach()).mT @ z.detach()
    torch.testing.assert_close(found["layers.0.weight"], by_w, **CLOSE)
    torch.testing.assert_close(found["layers.0.reverse"], by_r, **CLOSE)


def test_free_form_has_the_gradient_of_the_log_determinant_over_all_directions():
    """√D times the unit vectors have the mean outer product I."""
    layer = DenseWithInverse(matrix(SIZE), None)
    x, v = points(SIZE), math.sqrt(SIZE) * torch.eye(SIZE)
    _, log_det, error = layer.reconstruct(x, v)
    (found,) = torch.autograd.grad(log_det.mean(), layer.weight, retain_graph=True)
    torch.testing.assert_close(found, torch.linalg.inv(layer.weight.detach()).mT, **CLOSE)
    assert float(error.detach().max()) < 1e-20
    reference = v @ (torch.linalg.inv(layer.weight.detach())).mT
    w = layer.weight.detach().clone().requires_grad_()
    (slow,) = torch.autograd.grad((v * (reference @ w.mT)).sum(1).mean(), w)
    torch.testing.assert_close(found, slow, **CLOSE)


def test_free_form_is_unbiased_where_the_inverses_are_exact():
    made, x = with_inverses(), points(4000)
    expected = gradients(made, objectives.ml(made(), x, generator=derive(0)))
    rows = [
        gradients(made, free_form(made(), x, generator=RowGenerator(0, "v", k))) for k in range(24)
    ]
    for name in expected:
        draws = torch.stack([row[name] for row in rows])
        error = draws.std(0) / len(rows) ** 0.5
        assert ((draws.mean(0) - expected[name]).abs() <= 5 * error + 1e-9).all(), name


def test_the_reconstruction_reaches_no_layer_before():
    made, x = with_inverses(exact=False), points()
    one, two = (
        gradients(made, self_normalizing(made(), x, generator=derive(0), reconstruction=c))
        for c in (1.0, 5.0)
    )
    assert not torch.allclose(one["layers.2.weight"], two["layers.2.weight"])
    for name in ("layers.0.bias", "layers.1.log_slopes"):
        torch.testing.assert_close(one[name], two[name], **CLOSE)


def test_a_nan_stays_one():
    made = with_inverses()
    loss = self_normalizing(made(), torch.full((2, SIZE), math.nan), generator=derive(0))
    assert loss.isnan().all()


@pytest.mark.parametrize("name", RIVALS)
def test_a_layer_without_a_learned_inverse_is_refused(name):
    made = dense((SIZE,))
    with pytest.raises(ValueError, match="found Dense, expected a learned inverse"):
        RIVALS[name](made(), points(), generator=derive(0))


def test_a_frozen_layer_in_front_needs_none():
    frozen = Dense(matrix(SIZE), None, trainable=False)
    made = ebflow.Flow((SIZE,), [frozen, *with_inverses().layers])
    assert self_normalizing(made(), points(), generator=derive(0)).isfinite().all()


def test_the_inverses_error_is_that_of_the_worst_layer():
    made = with_inverses()
    assert inverse_error(made) < 1e-12 and inverse_error(dense((SIZE,))) is None
    worst = [layer for layer in made.layers if isinstance(layer, DenseWithInverse)][1]
    worst.reverse.data.mul_(1.1)
    assert inverse_error(made) == pytest.approx(0.1)


def trained(made, objective, x, steps=150):
    """Returns the exact NLL and the error of the inverses before and after a training."""

    def measure():
        with torch.no_grad():
            return -float(made.log_prob(x).mean()), inverse_error(made)

    before = measure()
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    for step in range(steps):
        made.zero_grad()
        noise = RowGenerator(0, "train", step)
        objective(made(), x, generator=noise).mean().backward()
        optimizer.step()
    return before, measure()


@pytest.mark.parametrize("name", RIVALS)
def test_a_training_improves_the_likelihood_and_the_inverse(name):
    made = dense((SIZE,), linear="learned_inverse", activation="spline", cells=4)
    with torch.no_grad():
        for layer in made.layers:
            if isinstance(layer, DenseWithInverse):
                layer.reverse.add_(torch.randn(SIZE, SIZE, generator=seeded(3)), alpha=0.2)
    x = points(400) @ matrix(SIZE).mT * 2
    (nll, error), (better, smaller) = trained(made, RIVALS[name], x)
    exact = dense((SIZE,), activation="spline", cells=4)
    best = trained(exact, objectives.ml, x)[1][0]
    assert better < nll - 1 and best - 0.05 < better < best + 0.2
    assert smaller < 0.3 * error


def test_a_loss_takes_a_rival_as_any_objective():
    made, x = with_inverses(), points()
    losses, at = Loss(self_normalizing)(made(), x, derive(0), ebflow.Progress())
    assert losses.shape == (len(x),) and at is None


def test_a_flow_is_loaded_as_it_was_saved(tmp_path):
    made, x = stirred(dense((SIZE,), linear="learned_inverse"), 0.1), points()
    ebflow.save(made, tmp_path / "flow")
    torch.testing.assert_close(load(tmp_path / "flow").log_prob(x), made.log_prob(x))
