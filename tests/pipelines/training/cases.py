"""Trainings of flows with all that the pipelines add, and their state."""

import json
from functools import partial

import torch

from pipelines.training.checkpoints import pack, resume, save_training
from pipelines.training.flow_training import FlowTraining
from pipelines.training.losses import StabilizedLoss
from tests.library import training

loss_of = partial(training.loss_of, make=StabilizedLoss)

NETS = {
    "dense": {},
    "convolutional": dict(architecture="convolutional"),
    "coupling": dict(architecture="coupling", depth=1, hidden=4),
    "autoregressive": dict(architecture="autoregressive", depth=2, hidden=8),
    "glow": dict(architecture="glow", depth=1, levels=1, hidden=4),
}


def trainer(dataset, objective="dsm", **options):
    """Returns a short training; every option of ``FlowTraining`` can be given."""
    return training.trainer(dataset, objective, make=FlowTraining, make_loss=loss_of, **options)


named = partial(training.named, make=trainer)


def states(trained):
    """Returns all tensors of a training, by name, and the rest of its state."""
    checkpoint = pack(trained)
    parts = ("model", "ema", "optimizer")
    tensors = {f"{p}.{k}": t for p in parts for k, t in getattr(checkpoint, p).items()}
    state = {k: v for k, v in checkpoint.state.items() if k not in ("clock", "logged_seconds")}
    return tensors, json.loads(json.dumps(state))


def same_when_resumed(whole, first, second, step, folder):
    """Asserts that a training is the same when it stops at a validation and another resumes."""
    list(whole.run())
    for event in first.run():
        if event.kind == "validate" and event.step == step:
            save_training(first, folder)
            break
    resume(second, folder)
    list(second.run())
    same(whole, second)


def same(one, other):
    """Asserts that two trainings agree bit for bit."""
    (a, rest), (b, others) = states(one), states(other)
    assert a.keys() == b.keys()
    differ = [name for name in a if not torch.equal(a[name], b[name])]
    assert not differ, differ
    assert rest == others
