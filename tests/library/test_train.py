"""Training on real data: determinism, averages, schedules, verdicts."""

import math

import pytest
import torch

from ebflow import train
from ebflow.architectures import autoregressive, dense
from ebflow.errors import BadInput, NonFinite
from ebflow.evaluation import evaluate
from ebflow.flow import Flow
from ebflow.loss import constant, cosine, warmed
from ebflow.randomness import uniform
from ebflow.tables.rows import Arrays, Rows
from ebflow.train import Trainer

from .bijections.cases import seeded
from .training import (
    OBJECTIVES,
    OPTIMIZERS,
    batch_of,
    broken,
    conditional,
    fitted,
    loss_of,
    losses,
    named,
    same,
    trainer,
)

everything = pytest.mark.parametrize("name", OBJECTIVES)


@everything
def test_same_seed_same_loss_to_the_bit(digits, name):
    one, other = (named(digits, name, steps=6) for _ in range(2))
    assert losses(one) == losses(other)
    same(one, other)


@everything
def test_every_parameter_moves(digits, name):
    training = named(digits, name, steps=2)
    before = [p.detach().clone() for p in training.parameters]
    list(training.run())
    assert all((a != b).any() for a, b in zip(before, training.parameters, strict=True))


@pytest.mark.parametrize("name", ["ml", "relative_ml", "lazy_ml", "sml", "dsm, anchored"])
def test_likelihood_improves(digits, name):
    training = named(digits, name, steps=30, validate_every=30, net=dict(calibrated=True))
    first, *_, last = [e.metrics["val/nll"] for e in training.run() if e.kind == "validate"]
    assert last < first - 0.5


def test_events_come_at_their_intervals(digits):
    training = named(digits, "dsm", steps=10, log_every=4, validate_every=5)
    events = [(e.kind, e.step) for e in training.run()]
    assert events == [
        ("validate", 0), ("log", 4), ("validate", 5), ("log", 8), ("log", 10), ("validate", 10),
    ]  # fmt: skip
    assert training.state.verdict == "ended after 10 steps"


def test_validation_is_the_likelihood_of_the_average(digits):
    training = named(digits, "dsm")
    events = [e for e in training.run() if e.kind == "validate"]
    found = evaluate(training.averaged, digits.split("validation"))
    assert events[-1].metrics["val/nll"] == found.nll
    assert events[-1].metrics["val/bpd"] == found.bpd
    assert found.nll != evaluate(training.flow, digits.split("validation")).nll


def test_some_of_many_validation_rows_choose_the_weights_and_all_measure_them(digits, monkeypatch):
    monkeypatch.setattr(train, "VALIDATED", 50)
    training, split = named(digits, "dsm", steps=30), digits.split("validation")
    *_, last = [e.metrics["val/nll"] for e in training.run() if e.kind == "validate"]
    rows = training.held_out
    assert len(rows) == 50 and last == evaluate(training.averaged, rows).nll
    numbers = (split.tensor() == rows.tensor()[:, None]).all(2).nonzero()[:, 1]
    assert len(numbers) == 50 and (numbers.diff() > 0).all() and numbers[-1] > 60
    assert training.load_best() == evaluate(training.flow, split).nll


def test_best_is_the_least_so_far(digits):
    training = named(digits, "ml", steps=30, validate_every=5)
    best = math.inf
    for event in training.run():
        if event.kind == "validate":
            nll = event.metrics["val/nll"]
            assert event.best == (nll < best)
            best = min(best, nll)
    assert training.state.best.nll == best


@pytest.mark.parametrize("decay", [0.999, 0.5])
def test_average_is_the_formula(digits, decay):
    """The first update copies; update t then has the decay min(d, (1 + t)/(10 + t))."""
    training = named(digits, "dsm", ema_decay=decay)
    batches = digits.split("train").shuffled(64, seed=0)
    weight, expected = training.plain.flow.layers[0].weight, torch.zeros(64, 64)
    for t in range(8):
        training.train_step(next(batches))
        d = min(decay, (1 + t) / (10 + t)) if t else 0.0
        expected = d * expected + (1 - d) * weight.detach()
        found = training.averaged.core.layers[0].weight
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_rates_follow_the_schedule(digits):
    factor = warmed(cosine, 0.25)
    training = named(digits, "dsm", schedule=factor, log_every=1)
    rates = [e.metrics["train/lr"] for e in training.run() if e.kind == "log"]
    assert rates == pytest.approx([1e-3 * factor(k / 12) for k in range(12)])


def test_the_step_of_a_loss_that_is_not_finite_is_exact(digits):
    training = named(digits, "dsm", log_every=10, validate_every=100, steps=40, retry=False)
    with pytest.raises(NonFinite, match=r"\bstep 13\b"):
        list(broken(training, 13).run())


def test_a_validation_that_is_not_finite_names_its_step(digits):
    """Weights may break between two looks at the loss."""
    training = named(digits, "dsm", log_every=100, validate_every=5, steps=40, retry=False)
    with pytest.raises(NonFinite, match=r"\bstep \d+\b"):
        for _ in training.run():
            with torch.no_grad():
                training.averaged.core.layers[0].weight[0, 0] = torch.nan


BLIND = dict(net=dict(noise=0.0), patience=3, validate_every=20, optimizer="fast")


@pytest.mark.parametrize("objective", ["dsm", pytest.param("ssm", marks=pytest.mark.slow)])
def test_plain_score_matching_is_stopped_and_told_blind(digits, objective):
    """After as many validations without a better one as its patience."""
    training = trainer(digits, objective, steps=600, log_every=10, batch_size=128, **BLIND)
    bests = [event.best for event in training.run() if event.kind == "validate"]
    assert bests[-3:] == [False] * 3 and bests[-4]
    assert training.state.verdict.startswith("stopped early at step") and training.step < 600
    assert "blind" in training.state.verdict and "anchor" in training.state.verdict


OVERFITTED = dict(
    objective="ml", log_every=10, batch_size=50, chain=dict(normalize="standardize"),
    net=dict(calibrated=True), schedule=constant, optimizer="fast",
)  # fmt: skip


def test_likelihood_that_overfits_is_told_so(few_digits):
    """100 rows for 8,320 parameters."""
    training = trainer(few_digits, steps=400, validate_every=10, patience=2, **OVERFITTED)
    list(training.run())
    assert "stopped early" in training.state.verdict
    assert "over-fitting" in training.state.verdict and "blind" not in training.state.verdict


def test_early_validations_tell_of_over_fitting_and_use_up_no_patience(few_digits):
    """All come before the first of the interval, and the best is one of the first."""
    training = trainer(few_digits, steps=140, validate_every=2000, patience=1, **OVERFITTED)
    steps = [event.step for event in training.run() if event.kind == "validate"]
    assert steps == [0, 16, 32, 64, 128, 140] and training.state.best_step < 64
    assert training.state.verdict.startswith("ended after 140 steps: ")
    assert "over-fitting" in training.state.verdict


def test_many_rows_are_not_validated_before_their_first_epoch(digits):
    training = trainer(digits, "ml", steps=100, validate_every=90, batch_size=30)
    assert 32 * 30 < len(training.dataset.split("train")) <= 64 * 30
    steps = [event.step for event in training.run() if event.kind == "validate"]
    assert steps == [0, 64, 90, 100]


def test_a_start_that_is_never_bettered_is_told_in_numbers(digits):
    """Gradient ascent: the best likelihood is that of step 0, before any loss was logged."""
    training = trainer(digits, "ml", optimizer="ascent", steps=100, patience=2)
    list(training.run())
    assert training.state.best_step == 0 and training.state.verdict.startswith(
        "stopped early at step 12"
    )
    assert "nan" not in training.state.verdict and "inf" not in training.state.verdict
    assert "converged" in training.state.verdict


def test_no_patience_never_stops(digits):
    training = trainer(digits, "ml", optimizer="ascent", steps=30, patience=None)
    list(training.run())
    assert training.step == 30


@pytest.mark.parametrize("match_after", [True, False])
def test_matching_before_preprocessing_trains_too(digits, match_after):
    training = trainer(
        digits, "ssm", match_after=match_after, chain=dict(normalize="none", margin=1e-2)
    )
    assert all(math.isfinite(v) for v in losses(training))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dsm, anchored", "ssm", "taylor_sm", "ml", "sml"])
def test_either_type_trains_under_the_usual_default(digits, name, dtype, single_precision):
    training = named(digits, name, net=dict(dtype=dtype), steps=3)
    assert all(math.isfinite(v) for v in losses(training))
    assert {p.dtype for p in training.parameters} == {dtype}
    assert training.averaged.dtype == dtype


def test_a_batch_larger_than_the_split_is_refused(digits):
    with pytest.raises(BadInput, match="batch_size: found 5000"):
        list(trainer(digits, batch_size=5000).run())


def test_validation_moves_no_normalized_weight(digits):
    """Power iterations belong to steps: a likelihood told is that of the weights saved."""
    training = trainer(digits, net=dict(architecture="convolutional", spectral_norm=True))
    list(training.run())
    before = {k: t.clone() for k, t in training.averaged.state_dict().items()}
    first = training.validate().metrics["val/nll"]
    assert training.validate().metrics["val/nll"] == first
    assert all(torch.equal(t, before[k]) for k, t in training.averaged.state_dict().items())


# Contexts, tensors, statistics


LOSSES = {
    "ml": dict(objective="ml"),
    "dsm, anchored": dict(objective="dsm", anchor=dict(interval=5), weight=0.1),
    "ssm_vr": dict(objective="ssm_vr"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_rows_in_memory_train_given_their_contexts(name):
    """The truth has log 2πe = 2.84 nats given c, and ½ log 6 = 0.9 more without it."""
    training = conditional(loss=LOSSES[name])
    nll = [e.metrics["val/nll"] for e in training.run() if e.kind == "validate"]
    assert nll[-1] < (3.3 if name != "ssm_vr" else nll[0])


NET = dict(architecture="coupling", depth=2, hidden=4)


def test_a_trainer_shows_the_first_global_batch_to_weights_and_average(digits):
    training = trainer(digits, net=NET)
    rows = batch_of(digits).x
    flow = training.plain.flow
    with torch.no_grad():
        y = Flow((64,), list(flow.layers)[:3]).to_latent(
            training.flow.preprocess(rows.double() + 0.5)
        )
        assert y.mean(0).abs().max() < 0.8 and (y.var(0) - 1).abs().max() < 1
        expected, found = training.flow.log_prob(rows), training.averaged.log_prob(rows)
    assert training.averaged.initialized and torch.equal(found, expected)
    assert next(training.run()).metrics["val/nll"] < 1e3


def test_a_retry_takes_other_noise(digits):
    """The loss of step 3 is not finite the first time; all later noise is new."""
    seen = []

    def loss(density, x, generator, progress):
        seen.append((progress.step, float(uniform((1,), x, generator))))
        at = density.at(x)
        broken = len(seen) == 4
        return (at.energy + density.log_normalizer()) / (0.0 if broken else 1.0), at

    flow = dense((64,), generator=seeded()).preprocessed(fitted(digits.split("train"), ()))
    training = Trainer(flow, digits, loss=loss, optimizer=OPTIMIZERS["adam"], steps=6, log_every=1)
    assert "resume" in [event.kind for event in training.run()]
    noise = dict(seen[:4]), dict(seen[4:])
    assert noise[1].keys() == set(range(6))
    assert all(noise[0][step] != noise[1][step] for step in noise[0])


def test_smoothing_is_noise_on_real_elements_that_falls_to_zero():
    """Rows are 0, and their preprocessing changes nothing; the third element is a category."""
    x = torch.zeros(4_000, 3)
    flow = autoregressive((3,), categories=[0, 0, 2], generator=seeded())
    splits = Arrays(*(Rows(x, name=name) for name in ("train", "validation")))
    training = Trainer(flow, splits, loss=loss_of(flow, "ml"), optimizer=OPTIMIZERS["adam"],
                       steps=4, smoothing=0.5)  # fmt: skip
    spreads = []
    for step in (0, 1, 2, 3, 4):
        training.state.step = step
        y = training.preprocessed(x, training.noise("train"))
        assert (y[:, 2] == 0).all()
        spreads.append(float(y[:, :2].std()))
    assert spreads == pytest.approx([0.5 * (1 - k / 4) ** 4 for k in range(5)], rel=0.05)
    again = training.preprocessed(x, training.noise("train"))
    training.state.step = 2
    assert not torch.equal(training.preprocessed(x, training.noise("train")), again)
