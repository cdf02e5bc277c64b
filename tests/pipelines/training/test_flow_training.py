"""Training by the pipelines: shards, augmentation, clipping, precision."""

import copy
import math

import pytest
import torch

from ebflow.checkpoint import load
from ebflow.errors import NonFinite
from ebflow.loss import constant, cosine
from ebflow.randomness import RowGenerator, uniform
from ebflow.train import Trainer
from pipelines.training.augment import flip_and_shift
from pipelines.training.checkpoints import resume, save_training
from pipelines.training.flow_training import FlowTraining
from pipelines.training.losses import epochs, geometric
from tests.library.training import OBJECTIVES, batch_of, conditional, losses

from .cases import loss_of, named, same, same_when_resumed, states, trainer


def test_augmentation_changes_raw_training_rows_and_nothing_else(digits):
    """An augmentation without effect gives the same bits; validation is not augmented."""
    seen = []

    def unchanged(x, generator):
        seen.append((x.dtype, x.shape, float(uniform((1,), x.double(), generator))))
        return x

    plain, same_rows = trainer(digits), trainer(digits, augment=unchanged)
    assert losses(same_rows) == losses(plain)
    same(same_rows, plain)
    assert [entry[:2] for entry in seen] == [(torch.uint8, (64, 64))] * 12
    assert len({entry[2] for entry in seen}) == 12
    flipped = trainer(digits, augment=flip_and_shift((8, 8)))
    assert losses(flipped) != losses(plain)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_shards_average_to_the_gradient_of_the_batch(digits, name):
    """Two half-batches, with noise of their shard, and one whole: to 1e-10."""

    def gradient(rank, world):
        training = named(digits, name, shard=(rank, world), optimizer="sgd")
        rows = batch_of(digits, share=training.shards.rows(training.shards.own))
        training.train_step(rows)
        return [p.grad.clone() for p in training.parameters]

    whole, left, right = gradient(0, 1), gradient(0, 2), gradient(1, 2)
    for exact, a, b in zip(whole, left, right, strict=True):
        torch.testing.assert_close((a + b) / 2, exact, rtol=1e-10, atol=1e-10)


def test_metrics_have_the_names_of_the_contract(digits):
    training = named(digits, "dsm, anchored", clip=1.0)
    found = {"log": set(), "validate": set()}
    for event in training.run():
        found[event.kind] |= set(event.metrics)
        assert all(isinstance(v, float) for v in event.metrics.values())
    latent = {"latent/mean_norm2", "latent/var_min", "latent/var_max"}
    assert {"val/nll", "val/bpd", "train/nll"} | latent <= found["validate"]
    assert {"train/loss", "train/examples_per_s", "train/grad_norm", "time/step_ms"} <= found[
        "log"
    ]
    assert {"anchor/refreshes", "anchor/drift"} <= found["log"]


def test_rates_fall_at_steps_however_long_training_is(digits):
    training = named(digits, "dsm", schedule=constant, decay=epochs(0.5, 5, 1), log_every=1)
    rates = [e.metrics["train/lr"] for e in training.run() if e.kind == "log"]
    assert rates == pytest.approx([1e-3] * 5 + [5e-4] * 7)


def test_annealed_noise_follows_progress_and_is_logged(digits):
    sigma = geometric(1.0, 0.1)
    training = named(digits, "dsm", loss=dict(annealed={"sigma": sigma}), log_every=1)
    found = [e.metrics["train/sigma"] for e in training.run() if e.kind == "log"]
    assert found == pytest.approx([sigma(k / 12) for k in range(12)])


def test_clipping_bounds_the_step(digits):
    training = named(digits, "dsm", clip=1e-3, optimizer="sgd", schedule=constant)
    before = [p.detach().clone() for p in training.parameters]
    training.train_step(batch_of(digits))
    moved = sum(
        float((a - b).detach().square().sum())
        for a, b in zip(before, training.parameters, strict=True)
    )
    assert math.sqrt(moved) == pytest.approx(1e-4 * 1e-3, rel=1e-4)
    assert float(training.norms[0]) > 1e-3


def test_finish_is_by_exact_likelihood(digits, monkeypatch):
    """The last quarter has the loss −log p, and refreshes no anchor."""
    training = trainer(digits, loss=dict(anchor=dict(interval=1), finish=0.25), log_every=1)
    flow, found = copy.deepcopy(training.flow), []
    plain = training.train_step

    def step(batch):
        flow.load_state_dict(training.flow.state_dict())
        noise = RowGenerator(training.seed, "train", training.step)
        exact = -float(
            flow.core.log_prob(flow.preprocess(batch.x, generator=noise)).detach().mean()
        )
        refreshes = training.anchor.refreshes
        plain(batch)
        near = abs(float(training.window[-1]) - exact) < 1e-9
        found.append((near, training.anchor.refreshes == refreshes))

    monkeypatch.setattr(training, "train_step", step)
    list(training.run())
    assert found == [(False, False)] * 9 + [(True, True)] * 3


def test_seconds_bound_training_and_the_schedule(digits, turn, monkeypatch):
    """A step takes a second of the clock that the test turns, a validation none that counts."""
    training = trainer(digits, steps=1_000_000, max_seconds=20, log_every=1)
    plain, validate = training.backward, training.validate

    def backward(batch):
        turn(1)
        return plain(batch)

    def seen():
        turn(1000)
        return validate()

    monkeypatch.setattr(training, "backward", backward)
    monkeypatch.setattr(training, "validate", seen)
    rates = [e.metrics["train/lr"] for e in training.run() if e.kind == "log"]
    assert training.step == 21 and training.seconds == pytest.approx(21)
    # A step is counted when it is over, or a validation follows, as after every sixth.
    shares = [(k - (k % 6 > 0)) / 20 for k in range(21)]
    assert rates == pytest.approx([1e-3 * cosine(t) for t in shares], abs=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["dsm", "ml", "dsm, anchored"])
def test_a_loss_that_is_not_finite_raises_with_its_step(digits, tmp_path, name, optimizer):
    training = named(digits, name, optimizer=optimizer, log_every=4, steps=40, retry=False)
    folder = tmp_path / "checkpoint"
    with pytest.raises(NonFinite, match=r"step \d+") as error:
        for event in training.run():
            if event.kind == "log" and event.step == 8:
                save_training(training, folder)
                training.rates = [1e200]
    assert "\n" not in str(error.value)
    again = named(digits, name, optimizer=optimizer)
    resume(again, folder)
    assert again.step == 8
    assert all(t.isfinite().all() for t in states(again)[0].values())


def test_only_a_step_is_of_lower_precision(digits):
    seen = []

    training = trainer(digits, precision="medium")
    training.plain.register_forward_pre_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    for event in training.run():
        assert torch.get_float32_matmul_precision() == "highest", event
    assert set(seen) == {"medium"} and len(seen) == training.steps


def test_resumption_keeps_rows_and_contexts_together(tmp_path):
    short = dict(steps=10, validate_every=5, log_every=1, make=FlowTraining, make_loss=loss_of)
    whole, first, second = (conditional(**short) for _ in range(3))
    same_when_resumed(whole, first, second, 5, tmp_path / "checkpoint")


NET = dict(architecture="coupling", depth=2, hidden=4)


@pytest.mark.parametrize("shard", [(0, 2), (1, 2)])
def test_every_worker_takes_the_same_statistics(digits, shard):
    one, part = trainer(digits, net=NET), trainer(digits, net=NET, shard=shard)
    for a, b in zip(one.parameters, part.parameters, strict=True):
        assert torch.equal(a, b)


def test_a_loaded_flow_is_not_initialized_again(digits, tmp_path):
    training = trainer(digits, net=NET)
    list(training.run())
    save_training(training, tmp_path / "checkpoint")
    flow = load(tmp_path / "checkpoint").requires_grad_()
    rows = digits.split("test").tensor()
    assert flow.initialized
    with torch.no_grad():
        assert torch.equal(flow.log_prob(rows), training.averaged.log_prob(rows))
    before = copy.deepcopy(flow.state_dict())
    Trainer(flow, digits, loss=training.loss, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    assert all(torch.equal(before[k], t) for k, t in flow.state_dict().items())
