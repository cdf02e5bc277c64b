"""A resumed training equals the uninterrupted one, bit for bit."""

from functools import cache

import pytest
import torch

from ebflow.checkpoint import read, write
from ebflow.errors import BadInput
from ebflow.loss import cosine, warmed
from pipelines.training.augment import flip_and_shift
from pipelines.training.checkpoints import resume, save_training
from pipelines.training.losses import geometric

from .cases import same, states, trainer

ADAPTIVE = dict(anchor=dict(interval=7, tolerance=1e-3, check_every=2))

TRAININGS = {
    **{name: dict(optimizer=name) for name in ("adam", "rmsprop", "sgd-momentum")},
    "clipped and warmed": dict(clip=1.0, schedule=warmed(cosine, 0.3)),
    "anchored": dict(loss=dict(anchor=dict(interval=5))),
    "scores in every third step": dict(loss=dict(anchor=dict(interval=5), every=3)),
    "adaptive": dict(loss=ADAPTIVE, optimizer="adamw"),
    "everything": dict(loss={**ADAPTIVE, "low_energy": 0.1, "latent_mean": 1.0, "finish": 0.3},
        clip=0.5, patience=10, ema_decay=0.9),
    "finishing": dict(loss=dict(anchor=dict(interval=3), finish=0.6)),
    "logs that do not divide": dict(log_every=3, clip=1.0),
    "sliced": dict(objective="ssm", loss=dict(hyper=dict(slices=2))),
    "lazy": dict(objective="lazy_ml", loss=dict(anchor=dict(interval=5))),
    "annealed": dict(loss=dict(annealed={"sigma": geometric(1.0, 0.1)})),
    "differences": dict(objective="taylor_sm", loss=dict(hyper=dict(slices=2))),
    "sampled": dict(objective="sml"),
    "before preprocessing": dict(objective="ssm", match_after=False,
        chain=dict(normalize="none", margin=1e-2)),
    "convolutional": dict(net=dict(architecture="convolutional"), loss=ADAPTIVE),
    "spectrally normalized": dict(net=dict(architecture="convolutional", spectral_norm=True),
        loss=ADAPTIVE, objective="ssm"),
    "coupling": dict(net=dict(architecture="coupling", depth=1, hidden=4),
        loss=dict(anchor=dict(interval=5))),
    "augmented": dict(augment=flip_and_shift((8, 8), reach=1.0)),
    "before a logit": dict(match_after=False, chain=dict(normalize="none", margin=1e-2)),
    "single precision": dict(net=dict(dtype=torch.float32)),
}  # fmt: skip
trainings = pytest.mark.parametrize("name", TRAININGS)


def made(dataset, name, **more):
    short = dict(steps=8, validate_every=4, log_every=2)
    options = {**short, **TRAININGS[name], **more}
    return trainer(dataset, options.pop("objective", "dsm"), **options)


def metrics(events):
    """Returns what events tell, times left out."""
    timed = ("time/step_ms", "time/train_s", "train/examples_per_s")
    return [
        (e.kind, e.step, e.best, {k: v for k, v in e.metrics.items() if k not in timed})
        for e in events
    ]


def interrupted(dataset, name, folder, at):
    """Saves at an event, goes on from there in a fresh trainer; returns it and its events."""
    training, before = made(dataset, name), []
    for event in training.run():
        before.append(event)
        if len(before) == at:
            save_training(training, folder)
            break
    again = made(dataset, name)
    resume(again, folder)
    return again, [*before, *again.run()]


@trainings
def test_resumed_is_uninterrupted(digits, tmp_path, name):
    whole = made(digits, name)
    expected = list(whole.run())
    validations = [k for k, e in enumerate(expected, 1) if e.kind == "validate"]
    resumed, events = interrupted(digits, name, tmp_path / "checkpoint", validations[1])
    same(resumed, whole)
    assert metrics(events) == metrics(expected)
    assert resumed.state.verdict == whole.state.verdict


@pytest.mark.parametrize("at", [1, 4, 6, 7])
def test_any_event_will_do(digits, tmp_path, at):
    """After a log event as after a validation, at the first as at the last."""
    whole = made(digits, "everything")
    expected = list(whole.run())
    assert len(expected) == 7
    resumed, events = interrupted(digits, "everything", tmp_path / "checkpoint", at)
    same(resumed, whole)
    assert metrics(events) == metrics(expected)


@cache
def ended(dataset, name="adam"):
    training = made(dataset, name)
    list(training.run())
    return training


@pytest.fixture
def saved(digits, tmp_path):
    """The checkpoint of a training that has ended."""
    save_training(ended(digits), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_an_ended_training_does_not_go_on(digits, saved):
    training, again = ended(digits), made(digits, "adam")
    resume(again, saved)
    assert again.seconds == pytest.approx(training.seconds)
    assert (
        list(again.run()) == []
        and again.step == 8
        and again.state.verdict == training.state.verdict
    )


def test_saving_changes_nothing(digits, tmp_path):
    one, other = ended(digits, "everything"), made(digits, "everything")
    for _ in other.run():
        save_training(other, tmp_path / "checkpoint")
    same(one, other)


def test_twice_interrupted(digits, tmp_path):
    training = made(digits, "everything")
    for at in (2, 6):
        for event in training.run():
            if event.step == at:
                break
        save_training(training, tmp_path / str(at))
        training = made(digits, "everything")
        resume(training, tmp_path / str(at))
    list(training.run())
    same(training, ended(digits, "everything"))


def test_other_data_are_refused(few_digits, saved):
    with pytest.raises(BadInput, match="checkpoint: found a training with data") as error:
        other = made(few_digits, "adam", chain=dict(normalize="standardize"))
        resume(other, saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "other",
    [dict(net=dict(depth=3)), dict(chain=dict(normalize="none")), TRAININGS["anchored"]],
    ids=["depth", "preprocessing", "anchor"],
)
def test_another_flow_is_refused(digits, saved, other):
    with pytest.raises(BadInput, match="does not fit") as error:
        resume(made(digits, "adam", **other), saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("progress", [None, [], {}])
def test_progress_that_makes_no_sense_is_told(digits, saved, progress):
    loaded = read(saved)
    loaded.state.pop("progress") if progress is None else loaded.state.update(progress=progress)
    write(saved, loaded)
    with pytest.raises(BadInput, match="checkpoint: does not fit this training: ") as error:
        resume(made(digits, "adam"), saved)
    assert len(str(error.value).splitlines()) == 1


def test_state_holds_no_pickle_and_everything_else(digits, tmp_path):
    training = ended(digits, "everything")
    save_training(training, tmp_path / "checkpoint")
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
    tensors, _ = states(training)
    assert {k.split(".")[0] for k in tensors} == {"model", "ema", "optimizer"}
