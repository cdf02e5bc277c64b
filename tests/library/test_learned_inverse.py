"""Likelihoods with learned inverses: gradients beside exact ones, and trainings."""

import math

import pytest
import torch

import ebflow
from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.architectures import dense
from ebflow.bijections import Dense, DenseWithInverse
from ebflow.learned_inverse import LEARNED_INVERSE, free_form, inverse_error, self_normalizing
from ebflow.loss import Loss
from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive

from .bijections.cases import matrix, seeded, stirred

CLOSE = dict(rtol=1e-8, atol=1e-9)
SIZE = 4


def with_inverses(exact=True):
    """Returns a flow whose learned inverses are exact, or near."""
    flow = stirred(dense((SIZE,), linear="learned_inverse", activation="spline"), 0.15)
    with torch.no_grad():
        for layer in flow.layers:
            if isinstance(layer, DenseWithInverse):
                layer.reverse.copy_(torch.linalg.inv(layer.weight))
                if not exact:
                    layer.reverse.add_(torch.randn(SIZE, SIZE, generator=seeded(9)), alpha=0.1)
    return flow


def gradients(flow, loss):
    flow.zero_grad()
    loss.mean().backward()
    return {k: p.grad.clone() for k, p in flow.named_parameters() if p.grad is not None}


def points(count=6):
    return torch.randn(count, SIZE, generator=seeded(5))


def test_the_gradient_is_that_of_ml_if_the_inverses_are_exact():
    flow, x = with_inverses(), points()
    expected = gradients(flow, objectives.ml(flow(), x, generator=derive(0)))
    found = gradients(flow, self_normalizing(flow(), x, generator=derive(0)))
    assert {name.rpartition(".")[2] for name in found.keys() - expected.keys()} == {"reverse"}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **CLOSE)


def test_the_inverse_moves_as_the_weight_moves():
    """Of f(R) = the loss with W = R⁻¹, the gradient by R is −Wᵀ G Wᵀ, G being that by W."""
    flow, x = with_inverses(), points()
    found = gradients(flow, self_normalizing(flow(), x, generator=derive(0)))
    for index, layer in enumerate(flow.layers):
        if isinstance(layer, DenseWithInverse):
            w, gradient = layer.weight.detach(), found[f"layers.{index}.weight"]
            reverse = found[f"layers.{index}.reverse"]
            torch.testing.assert_close(reverse, -w.mT @ gradient @ w.mT, **CLOSE)


def test_an_inverse_that_is_not_exact_is_used_as_it_is():
    layer = DenseWithInverse(matrix(SIZE), torch.zeros(SIZE))
    layer.reverse.data.add_(0.1 * torch.randn(SIZE, SIZE, generator=seeded(2)))
    x, flow = points(), ebflow.Flow((SIZE,), [layer])
    found = gradients(flow, self_normalizing(flow(), x, generator=derive(0), reconstruction=3.0))
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
    _, log_det, error = layer.free_form(x, v)
    (found,) = torch.autograd.grad(log_det.mean(), layer.weight)
    torch.testing.assert_close(found, torch.linalg.inv(layer.weight.detach()).mT, **CLOSE)
    assert float(error.detach().max()) < 1e-20


def test_free_form_is_unbiased_if_the_inverses_are_exact():
    """Each parameter's gradient within 5 standard errors of 24 repetitions."""
    flow, x = with_inverses(), points(2000)
    expected = gradients(flow, objectives.ml(flow(), x, generator=derive(0)))
    rows = [
        gradients(flow, free_form(flow(), x, generator=RowGenerator(0, "v", k))) for k in range(24)
    ]
    for name in expected:
        repeated = torch.stack([row[name] for row in rows])
        error = repeated.std(0) / len(rows) ** 0.5
        assert ((repeated.mean(0) - expected[name]).abs() <= 5 * error + 1e-9).all(), name


def test_the_reconstruction_reaches_no_layer_before():
    flow, x = with_inverses(exact=False), points()
    one, two = (
        gradients(flow, self_normalizing(flow(), x, generator=derive(0), reconstruction=c))
        for c in (1.0, 5.0)
    )
    assert not torch.allclose(one["layers.2.weight"], two["layers.2.weight"])
    for name in ("layers.0.bias", "layers.1.log_slopes"):
        torch.testing.assert_close(one[name], two[name], **CLOSE)


@pytest.mark.parametrize("name", LEARNED_INVERSE)
def test_a_layer_without_a_learned_inverse_is_refused(name):
    flow = dense((SIZE,))
    with pytest.raises(ValueError, match="found Dense, expected a learned inverse"):
        LEARNED_INVERSE[name](flow(), points(), generator=derive(0))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="linear: found 'lu', expected one of full, learned_inv"):
        dense((SIZE,), linear="lu")


def test_a_frozen_layer_before_needs_none():
    frozen = Dense(matrix(SIZE), None, trainable=False)
    flow = ebflow.Flow((SIZE,), [frozen, *with_inverses().layers])
    assert self_normalizing(flow(), points(), generator=derive(0)).isfinite().all()


def test_the_error_of_the_inverses_is_that_of_the_worst_layer():
    flow = with_inverses()
    assert inverse_error(flow) < 1e-12 and inverse_error(dense((SIZE,))) is None
    worst = [layer for layer in flow.layers if isinstance(layer, DenseWithInverse)][1]
    worst.reverse.data.mul_(1.1)
    assert inverse_error(flow) == pytest.approx(0.1)


def trained(flow, objective, x, steps=150):
    """Returns the exact NLL and the error of the inverses before and after a training."""

    def measure():
        with torch.no_grad():
            return -float(flow.log_prob(x).mean()), inverse_error(flow)

    before = measure()
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(steps):
        flow.zero_grad()
        objective(flow(), x, generator=RowGenerator(0, "train", step)).mean().backward()
        optimizer.step()
    return before, measure()


@pytest.mark.parametrize("name", LEARNED_INVERSE)
def test_a_training_improves_the_likelihood_and_the_inverse(name):
    flow = dense((SIZE,), linear="learned_inverse", activation="spline")
    with torch.no_grad():
        for layer in flow.layers:
            if isinstance(layer, DenseWithInverse):
                layer.reverse.add_(torch.randn(SIZE, SIZE, generator=seeded(3)), alpha=0.2)
    x = points(400) @ matrix(SIZE).mT * 2
    (nll, error), (better, smaller) = trained(flow, LEARNED_INVERSE[name], x)
    exact = dense((SIZE,), activation="spline")
    best = trained(exact, objectives.ml, x)[1][0]
    assert better < nll - 1 and best - 0.05 < better < best + 0.2
    assert smaller < 0.3 * error


def test_a_loss_takes_one_as_any_objective():
    flow, x = with_inverses(), points()
    losses, at = Loss(self_normalizing)(flow(), x, derive(0), ebflow.Progress())
    assert losses.shape == (len(x),) and at is None


def test_an_anchor_models_the_weight_alone():
    flow = with_inverses()
    anchor = Anchor(flow)
    anchor.follow(0)
    torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer(), **CLOSE)
    anchor.log_normalizer().backward()
    layer = flow.layers[0]
    assert layer.reverse.grad is None and layer.weight.grad is not None


def test_a_checkpoint_has_the_inverses(tmp_path):
    flow = with_inverses(exact=False)
    ebflow.save(flow, tmp_path)
    again = ebflow.load(tmp_path)
    torch.testing.assert_close(again.layers[0].reverse, flow.layers[0].reverse)
