"""Training on a GPU by the same code; skipped where there is none."""

import pytest
import torch

from ebflow.checkpoint import load
from ebflow.evaluation import evaluate
from pipelines.training.checkpoints import resume, save_training

from .cases import trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ANCHORED = dict(anchor=dict(interval=5, tolerance=1e-3, check_every=2))
TRAININGS = {
    "dsm": dict(objective="dsm", loss={**ANCHORED, "latent_mean": 1.0}, clip=1.0),
    "ssm": dict(objective="ssm", loss=ANCHORED),
    "ssm_vr": dict(objective="ssm_vr", loss=dict(finish=0.3)),
    "fd_ssm": dict(objective="fd_ssm"),
    "taylor_sm": dict(objective="taylor_sm", loss=dict(hyper=dict(slices=2))),
    "ml": dict(objective="ml"),
    "relative_ml": dict(objective="relative_ml", optimizer="sgd"),
    "lazy_ml": dict(objective="lazy_ml"),
    "sml": dict(objective="sml"),
    "zero": dict(objective="dsm", loss=ANCHORED, net=dict(architecture="convolutional")),
    "coupling": dict(
        objective="ssm", loss=ANCHORED, net=dict(architecture="coupling", depth=2, hidden=8)
    ),
    "normalized": dict(
        objective="ml",
        net=dict(architecture="convolutional", spectral_norm=True),
    ),
}
trainings = pytest.mark.parametrize("name", TRAININGS)


def made(dataset, name, **more):
    options = {**TRAININGS[name], "device": "cuda", **more}
    return trainer(dataset, options.pop("objective"), **options)


@trainings
def test_a_step_leaves_everything_on_the_device(digits, name):
    training = made(digits, name)
    events = list(training.run())
    assert events and {p.device.type for p in training.parameters} == {"cuda"}
    assert all(torch.isfinite(p).all() for p in training.parameters)


@trainings
def test_a_resumed_training_is_the_uninterrupted_one(digits, name, tmp_path):
    whole, first, second = (made(digits, name) for _ in range(3))
    list(whole.run())
    for event in first.run():
        if event.kind == "validate" and event.step == 6:
            save_training(first, tmp_path / "checkpoint")
            break
    resume(second, tmp_path / "checkpoint")
    list(second.run())
    for a, b in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_loads_on_a_machine_without_one(digits, tmp_path):
    training = made(digits, "dsm")
    list(training.run())
    save_training(training, tmp_path / "checkpoint")
    flow = load(tmp_path / "checkpoint")
    assert flow.device.type == "cpu"
    split = digits.split("test")
    here, there = evaluate(flow, split), evaluate(training.averaged, split)
    assert here.nll == pytest.approx(there.nll, abs=6 * here.nll_se)
