"""Classifiers and their training: architecture, loss, diagnoses, targets on digits."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits

from ebflow.alignment.classifiers import CLASSIFIERS
from ebflow.alignment.logit import ClassLogit, shifted, stripes
from ebflow.alignment.metrics import gradients
from ebflow.alignment.regularizers import smallest_trace
from ebflow.density import EnergyFunction
from ebflow.errors import NonFinite
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.gradient_alignment import classify
from pipelines.gradient_alignment.classify import penalty, train, untrained
from pipelines.gradient_alignment.config import ClassifierConfig, NetworkConfig, RegularizerConfig
from tests.library.bijections.cases import seeded
from tests.library.conftest import double_precision, single_precision  # noqa: F401

from .cases import by_name

SHAPE = (3, 32, 32)

SCORE = RegularizerConfig(name="score", weight=0.1)
GNORM = RegularizerConfig(name="gnorm", weight=0.5)


def finish(trained=None, **options):
    """Trains a classifier; returns it and the metrics of its epochs."""
    x = torch.rand(40, 16, generator=seeded())
    labels = (x[:, 0] > 0.5).long()
    config = ClassifierConfig(**{"batch_size": 16, "epochs": 4, "lr": 1e-2, "noise": 0} | options)
    trained = trained or untrained(NetworkConfig(hidden=8), (4, 4), 2, 0)
    regularizer = penalty(config.regularizer, (4, 4), 0.1)
    rows = (x, labels)
    return trained, list(train(config, trained, rows, rows, regularizer=regularizer))


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.parameters()])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_initial_weights_depend_only_on_the_seed(name):
    make = partial(untrained, NetworkConfig(name=name, hidden=32), SHAPE, 10)
    one, same, other = (torch.cat([p.flatten() for p in make(k).parameters()]) for k in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_examples_do_not_affect_each_other():
    made = untrained(NetworkConfig(name="cnn", hidden=8), (3, 8, 8), 5, 0)
    x, labels = torch.rand(3, 192, generator=seeded()), torch.arange(3)
    together = gradients(made, x, labels).classes
    alone = [gradients(made, row[None], labels[:1]).classes for row in x]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_gradient_descent_has_momentum_and_weight_decay_and_falls_by_tenths():
    """Two steps against the formula, the second at a tenth of the rate."""
    x, labels = torch.rand(8, 16, generator=seeded()), torch.arange(8) % 2
    options = {"optimizer": "sgd", "schedule": "steps", "weight_decay": 0.1, "lr": 0.5}
    config = ClassifierConfig(epochs=2, batch_size=8, noise=0, **options)
    made, slow = (untrained(NetworkConfig(hidden=8), (4, 4), 2, 0) for _ in range(2))
    list(train(config, made, (x, labels), (x, labels)))
    velocity = [torch.zeros_like(p) for p in slow.parameters()]
    for rate in (0.5, 0.05):
        loss = torch.nn.functional.cross_entropy(slow(x), labels)
        slopes = torch.autograd.grad(loss, list(slow.parameters()))
        with torch.no_grad():
            for p, v, slope in zip(slow.parameters(), velocity, slopes, strict=True):
                v.mul_(0.9).add_(slope + 0.1 * p)
                p.sub_(rate * v)
    torch.testing.assert_close(weights(made), weights(slow))


@pytest.mark.parametrize("regularizer", [RegularizerConfig(), SCORE, GNORM])
def test_a_training_is_reproducible(regularizer):
    options = {"regularizer": regularizer.changed(warmup=0.5), "noise": 0.1, "clip": 1.0}
    (one, metrics), (other, again) = finish(**options), finish(**options)
    assert metrics == again and len(metrics) == 4 and not one.training
    assert torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(one), weights(finish(**options, seed=1)[0]))


def test_the_weight_rises_from_nothing_over_the_warm_up():
    plain, _ = finish(epochs=1, batch_size=40)
    warm, _ = finish(epochs=1, batch_size=40, regularizer=GNORM.changed(warmup=1.0))
    torch.testing.assert_close(weights(plain), weights(warm))


def test_the_loss_is_cross_entropy_and_the_weighed_penalty():
    metrics = finish(regularizer=GNORM)[1][0]
    expected = metrics["train/cross_entropy"] + 0.5 * metrics["train/penalty"]
    assert metrics["train/loss"] == pytest.approx(expected)


def test_the_network_sees_a_batch_once_beside_gradient_norm(monkeypatch):
    made, seen = untrained(NetworkConfig(hidden=8), (4, 4), 2, 0), []
    made.register_forward_hook(lambda *_: seen.append(1))
    monkeypatch.setattr(classify, "accuracy", lambda *_: 0.0)
    monkeypatch.setattr(classify, "probe", lambda *_: {})
    finish(made, epochs=1, regularizer=GNORM)
    assert len(seen) == 2, "batches of an epoch"


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(NonFinite, match=r"found (nan|inf) in epoch \d, expected a finite one"):
        finish(lr=1e200)


def test_the_floor_is_in_units_of_the_smoothed_data():
    config = SCORE.changed(floor=1.5, stability=0.0)
    peak = EnergyFunction(lambda x: 1e4 * x.square().sum(1))  # a trace of −2e4 · 64
    floored = penalty(config, (8, 8), 0.1)(peak, torch.zeros(1, 64), generator=torch.Generator())
    assert float(floored.detach()) == pytest.approx(-1.5 * 64 / 0.1**2)
    assert penalty(RegularizerConfig(), (8, 8), 0.1) is None


@pytest.mark.parametrize("name", ["centred", "centred-control"])
def test_a_centred_regularizer_and_its_control_do_not_see_a_shift(name):
    config = by_name()[name].classifier.regularizer
    assert config.centred and config.weight == 0.1
    x = torch.rand(8, 64, generator=seeded())
    labels, plain = torch.arange(8) % 10, untrained(NetworkConfig(), (8, 8), 10, 0)
    losses = [
        penalty(config, (8, 8), 0.1)(ClassLogit(f, labels), x, generator=seeded())
        for f in (plain, shifted(plain, lambda x: 10 * (x @ stripes((8, 8)))))
    ]
    torch.testing.assert_close(*losses)


class Digits:
    """Handwritten digits in [0, 1], the last 500 of them held out."""

    def __init__(self):
        digits = load_digits()
        x = torch.tensor(digits.data / 16, dtype=torch.get_default_dtype())
        order = torch.randperm(len(x), generator=derive(0, "split"))
        x, labels = x[order], torch.tensor(digits.target)[order]
        self.train, self.held_out = (x[:-500], labels[:-500]), (x[-500:], labels[-500:])

    def trained(self, epochs, noise, **options):
        """Returns a classifier and its accuracy on held-out digits."""
        made = untrained(NetworkConfig(hidden=128), (8, 8), 10, 0)
        config = ClassifierConfig(
            epochs=epochs, noise=noise, regularizer=RegularizerConfig(name="score", **options)
        )
        regularizer = penalty(config.regularizer, (8, 8), 0.1)
        *_, last = train(config, made, self.train, self.held_out, regularizer=regularizer)
        return made, last["val/accuracy"]

    def gradients(self, made):
        """Returns mean norm and mean trace at noisy test points, and the mean DSM cosine."""
        x, labels = self.held_out
        noise = normal(x.shape, x, derive(1))
        at = ClassLogit(made, labels).at(x + 0.1 * noise)
        trace, score = at.laplacian(), at.score
        cosine = torch.cosine_similarity(score, -noise, dim=1).mean()
        return float(score.norm(dim=1).mean()), float(trace.mean()), float(cosine)


@pytest.mark.system
@pytest.mark.usefixtures("single_precision")
def test_the_recipe_aligns_digits_and_the_penalty_shrinks_by_the_law():
    """At 30 of the recipe's epochs."""
    digits = Digits()
    free, _ = digits.trained(30, 0.1, weight=0.1, stability=0.0)
    penalized, accuracy = digits.trained(30, 0.1, weight=0.1, stability=1e-3)
    norm, trace, cosine = digits.gradients(free)
    small, _, same = digits.gradients(penalized)
    assert small / norm == pytest.approx(1 / (1 + 2e-3 * -trace), rel=0.05)
    assert accuracy > 0.93 and cosine > 0.55 and same > 0.55


@pytest.mark.usefixtures("single_precision")
def test_without_noise_and_penalty_the_density_collapses():
    digits = Digits()
    made, accuracy = digits.trained(25, 0.0, weight=1.0, stability=0.0)
    _, trace, _ = digits.gradients(made)
    assert accuracy < 0.5 and trace < smallest_trace(64, 0.1)
