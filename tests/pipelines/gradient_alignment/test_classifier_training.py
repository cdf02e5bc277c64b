"""Training of classifiers: exact resume, faults told, and the targets on digits."""

from functools import partial

import pytest
import torch

from ebflow.alignment.logit import ClassLogit
from ebflow.alignment.regularizers import gradient_norm, score_matching, smallest_trace
from ebflow.errors import BadInput, NonFinite
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.gradient_alignment import classifier_training as alignment
from pipelines.gradient_alignment.classifier_training import ClassifierTraining as Training
from pipelines.gradient_alignment.classifiers import mlp
from pipelines.training.resumable import resume, save_training
from tests.library.bijections.cases import seeded
from tests.library.conftest import double_precision, single_precision  # noqa: F401


def training(network=None, **options):
    x = torch.rand(40, 16, generator=seeded())
    labels = (x[:, 0] > 0.5).long()
    given = {"optimizer": partial(torch.optim.Adam, lr=1e-2), "batch_size": 16, "epochs": 4}
    network = network or mlp((4, 4), 2, hidden=8, generator=derive(0))
    return Training(network, x, labels, held=(x, labels), **given | options)


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.network.parameters()])


def finish(trained):
    return list(trained.run())


@pytest.mark.parametrize("regularizer", [None, score_matching(), gradient_norm()])
def test_a_resumed_training_is_the_uninterrupted_one(regularizer, tmp_path):
    options = {"regularizer": regularizer, "weight": 0.1, "noise": 0.1, "clip": 1.0, "warmup": 0.5}
    whole, first = training(**options), training(**options)
    events = finish(whole)
    run = first.run()
    next(run), next(run)
    save_training(first, tmp_path / "kept")
    second = training(**options)
    resume(second, tmp_path / "kept")
    assert [e.metrics for e in finish(second)] == [e.metrics for e in events[2:]]
    assert torch.equal(weights(second), weights(whole))
    assert second.verdict == "ended after 4 epochs" and not second.network.training
    with pytest.raises(BadInput, match="found a training with seed 0, expected 1"):
        resume(training(**options, seed=1), tmp_path / "kept")


def test_a_long_epoch_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(alignment, "PACE", 2)
    trained = training(batch_size=8, epochs=2)
    events = [(event.kind, event.text, trained.progress) for event in trained.run()]
    assert [kind for kind, *_ in events] == ["log", "log", "validate"] * 2
    assert events[2][1].startswith("epoch 1, validation accuracy 0.") and events[3][1] == "epoch 2"
    assert [share for *_, share in events] == [0.1, 0.3, 0.5, 0.6, 0.8, 1.0]


def test_a_weight_of_nothing_is_plain_cross_entropy():
    plain, none = training(noise=0.1), training(noise=0.1, regularizer=score_matching())
    finish(plain), finish(none)
    assert torch.equal(weights(plain), weights(none))


def test_the_weight_rises_over_the_warm_up():
    warm = training(regularizer=gradient_norm(), weight=0.5, warmup=1.0, epochs=1)
    run = finish(warm)[0].metrics
    # Two batches: at progress 0 and ½ of the only epoch.
    x, labels = warm.x, warm.labels
    assert run["train/loss"] < run["train/cross_entropy"] + 0.5 * run["train/penalty"]
    plain = training(epochs=1, batch_size=40)
    warm = training(epochs=1, batch_size=40, regularizer=gradient_norm(), weight=0.5, warmup=1.0)
    finish(plain), finish(warm)
    torch.testing.assert_close(weights(plain), weights(warm))
    assert len(x) == len(labels) == 40


def test_the_loss_is_cross_entropy_and_the_weighed_penalty():
    found = finish(training(regularizer=gradient_norm(), weight=0.5))[0].metrics
    expected = found["train/cross_entropy"] + 0.5 * found["train/penalty"]
    assert found["train/loss"] == pytest.approx(expected)


def test_the_network_sees_a_batch_once_beside_gradient_norm():
    network, seen = mlp((4, 4), 2, hidden=8, generator=derive(0)), []
    network.register_forward_hook(lambda *_: seen.append(1))
    trained = training(network, regularizer=gradient_norm(), weight=1.0, epochs=1)
    trained.network.train()
    trained._step(torch.arange(16), 0, 1)
    assert len(seen) == 1


def test_a_loss_that_is_not_finite_ends_the_training():
    broken = training(optimizer=partial(torch.optim.SGD, lr=1e200))
    with pytest.raises(NonFinite, match=r"found (nan|inf) in epoch \d, expected a finite one"):
        finish(broken)


def test_a_batch_larger_than_the_rows_is_refused():
    with pytest.raises(ValueError, match=r"batch_size: found 41, expected 1 … 40"):
        training(batch_size=41)


class Digits:
    """Handwritten digits in [0, 1], the last 500 of them held out."""

    def __init__(self):
        from sklearn.datasets import load_digits

        found = load_digits()
        x = torch.tensor(found.data / 16, dtype=torch.get_default_dtype())
        order = torch.randperm(len(x), generator=derive(0, "split"))
        x, labels = x[order], torch.tensor(found.target)[order]
        self.train, self.held = (x[:-500], labels[:-500]), (x[-500:], labels[-500:])

    def fitted(self, **options):
        network = mlp((8, 8), 10, hidden=128, generator=derive(0, "weights"))
        optimizer = partial(torch.optim.Adam, lr=2e-3, fused=True)
        trained = Training(network, *self.train, held=self.held, optimizer=optimizer, **options)
        *_, last = trained.run()
        return network, last.metrics["val/accuracy"]

    def gradients(self, network):
        """Returns mean norm and mean trace at noisy test points, and the mean DSM cosine."""
        x, labels = self.held
        noise = normal(x.shape, x, derive(1))
        score, trace = ClassLogit(network, labels).score_and_laplacian(x + 0.1 * noise)
        cosine = torch.cosine_similarity(score, -noise, dim=1).mean()
        return float(score.norm(dim=1).mean()), float(trace.mean()), float(cosine)


@pytest.mark.usefixtures("single_precision")
def test_the_recipe_aligns_digits_and_the_penalty_shrinks_by_the_law():
    """At 30 of the recipe's 50 epochs."""
    digits = Digits()
    options = {"noise": 0.1, "weight": 0.1, "epochs": 30}
    free, _ = digits.fitted(regularizer=score_matching(stability=0.0), **options)
    held, accuracy = digits.fitted(regularizer=score_matching(stability=1e-3), **options)
    norm, trace, cosine = digits.gradients(free)
    small, _, same = digits.gradients(held)
    assert small / norm == pytest.approx(1 / (1 + 2e-3 * -trace), rel=0.05)
    assert accuracy > 0.93 and cosine > 0.55 and same > 0.55


@pytest.mark.usefixtures("single_precision")
def test_without_noise_and_penalty_the_density_collapses():
    digits = Digits()
    options = {"weight": 1.0, "epochs": 25, "regularizer": score_matching(stability=0.0)}
    network, accuracy = digits.fitted(noise=0.0, **options)
    _, trace, _ = digits.gradients(network)
    assert accuracy < 0.5 and trace < smallest_trace(64, 0.1)
