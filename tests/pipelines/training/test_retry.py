"""A training that becomes non-finite goes on from its best, once, and never ends without one."""

import warnings

import pytest
import torch

import ebflow
from ebflow.errors import NonFinite
from ebflow.loss import constant
from pipelines.training.checkpoints import Checkpoints, resume, save_training
from tests.library.training import broken

from .cases import same, states, trainer

OPTIONS = dict(steps=25, validate_every=5, log_every=5, optimizer="sgd-momentum", clip=1.0)


def made(dataset, *steps, again=(), **options):
    return broken(trainer(dataset, "ml", **{**OPTIONS, **options}), *steps, again=again)


def run(training, folder):
    """Yields the events of a training whose best state is saved each time."""
    checkpoints = Checkpoints(folder)
    training.reload = lambda step: resume(training, checkpoints.path(step))
    for event in training.run():
        if event.best:
            checkpoints.save(training)
        yield event


def kinds(events):
    return [(event.kind, event.step) for event in events]


def test_it_goes_on_from_the_best_as_a_training_of_a_quarter_of_the_rate(digits, tmp_path):
    """The reference: what was saved at the best validation, resumed by hand."""
    events, training = [], made(digits, 13)
    for event in run(training, tmp_path / "checkpoints"):
        events.append(event)
        if event.kind == "validate" and event.step == 10:
            save_training(training, tmp_path / "ten")
    assert kinds(events)[3:6] == [("log", 10), ("validate", 10), ("resume", 10)]
    other = made(digits)
    resume(other, tmp_path / "ten")
    other.state.relief = 0.25
    list(other.run())
    for name, tensor in states(training)[0].items():
        assert torch.equal(tensor, states(other)[0][name]), name
    assert training.step == 25 and training.state.verdict.startswith("ended after 25 steps")


def test_what_was_done_is_told_in_one_line(digits, tmp_path):
    training = made(digits, 13)
    (event,) = [event for event in run(training, tmp_path) if event.kind == "resume"]
    (warning,) = training.state.warnings
    assert event.note == warning and "\n" not in warning
    assert warning.startswith("step 13: found a loss of nan; lower the learning rate")
    assert "went back to step 10" in warning and "quarter of the learning rate" in warning


def test_a_second_time_it_ends_with_the_best(digits, tmp_path):
    training = made(digits, 13, again=(22,))
    found = kinds(run(training, tmp_path))
    best = training.state.best_step
    assert found[-1] == ("resume", best) and training.step == best == 20
    assert "twice" in training.state.verdict and "step 22" in training.state.verdict
    assert [warning.split(":")[0] for warning in training.state.warnings] == ["step 13", "step 22"]
    fresh = made(digits)
    resume(fresh, Checkpoints(tmp_path).path(best))
    for name, tensor in states(fresh)[0].items():
        assert torch.equal(tensor, states(training)[0][name]), name
    assert not list(training.run())


def test_a_third_time_is_not_tried(digits, tmp_path):
    training, whole = made(digits, 13, again=(13,)), made(digits)
    assert [event.kind for event in run(training, tmp_path)].count("resume") == 2
    next(event for event in whole.run() if event.best and event.step == 10)
    for name, tensor in states(training)[0].items():  # steps in between have not moved the best
        assert torch.equal(tensor, states(whole)[0][name]), name


def test_the_clock_does_not_go_back(digits, tmp_path):
    training, seconds = made(digits, 13), []
    for _ in run(training, tmp_path):
        seconds.append((training.seconds, training.clock.totals["validate"]))
    assert seconds == sorted(seconds)


def test_a_bound_of_seconds_is_not_prolonged(digits, turn, monkeypatch, tmp_path):
    """A step takes a second of the clock that the test turns."""
    training = made(digits, 13, steps=1_000_000, max_seconds=20, schedule=constant)
    plain = training.backward

    def backward(batch):
        turn(1)
        return plain(batch)

    monkeypatch.setattr(training, "backward", backward)
    for event in run(training, tmp_path):
        if event.kind == "resume":
            assert training.step == 10 and training.progress == pytest.approx(14 / 20)
    assert training.seconds == pytest.approx(20) and training.step == 15


@pytest.mark.parametrize("at", range(1, 14, 2))
def test_a_training_that_was_killed_comes_to_the_same(digits, tmp_path, at):
    """Before the break, where the best is another checkpoint, and behind it."""
    whole, killed, again = (made(digits, 13) for _ in range(3))
    list(run(whole, tmp_path / "whole"))
    kept = Checkpoints(tmp_path / "killed")
    for count, _ in enumerate(run(killed, kept.folder), 1):
        if count == at:
            kept.save(killed)
            break
    resume(again, kept.path(kept.newest()[0]))
    list(run(again, kept.folder))
    same(again, whole)


def test_one_between_two_validations_returns_to_the_best(digits, tmp_path):
    training, again = (made(digits, 13, validate_every=10) for _ in range(2))
    checkpoints = Checkpoints(tmp_path)
    next(event for event in run(training, tmp_path) if event.best and event.step == 10)
    training.train_step(next(digits.split("train").shuffled(64, seed=0, start=10)))
    checkpoints.save(training)
    resume(again, checkpoints.path(11))
    assert again.step == 11 and again.best == 10
    assert ("resume", 10) in kinds(run(again, tmp_path))


def test_without_a_finite_start_it_fails_with_one_line(digits):
    training = made(digits)
    with torch.no_grad():
        training.averaged.core.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(NonFinite, match="step 0") as error:
        list(training.run())
    assert "\n" not in str(error.value)


def breaking(step):
    """Returns a loss that is not finite at a step, whenever it comes there."""

    def loss(density, x, generator, progress):
        at = density.at(x)
        return (at.energy + density.log_normalizer()) / (progress.step != step), at

    return loss


@pytest.mark.system
def test_fit_tells_it_and_takes_back_what_held_no_more():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = x[:, 0] ** 2 + 0.2 * x[:, 1]
    options = dict(steps=60, validate_every=10, marginals=False, progress=False)
    with pytest.warns(RuntimeWarning) as caught:
        flow = ebflow.fit(x, loss=breaking(38), **options)
    assert len(caught) == 2 and "step 38" in str(caught[0].message)
    steps = [row["step"] for row in flow.history if row["kind"] == "validate"]
    assert steps == sorted(set(steps)) and 0 < max(row["step"] for row in flow.history) <= 30
    held = min(row["val/nll"] for row in flow.history if "val/nll" in row)
    again = ebflow.fit(x, loss=breaking(-1), **options)
    assert held == min(r["val/nll"] for r in again.history if r["step"] <= 30 and "val/nll" in r)
    assert flow.log_prob(x).isfinite().all()


def test_nothing_is_told_where_nothing_broke(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training = made(digits)
        list(training.run())
    assert training.state.warnings == [] and training.state.relief == 1
