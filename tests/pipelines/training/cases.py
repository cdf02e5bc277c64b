"""Trainings of flows with all that the pipelines add, and their state."""

import json
from functools import partial

import torch

from pipelines.training.checkpoints import pack
from pipelines.training.flow_training import FlowTraining
from pipelines.training.losses import StabilizedLoss
from tests.library import training

loss_of = partial(training.loss_of, make=StabilizedLoss)


def trainer(dataset, objective="dsm", **options):
    """Returns a short training; every option of ``FlowTraining`` can be given."""
    return training.trainer(dataset, objective, make=FlowTraining, make_loss=loss_of, **options)


named = partial(training.named, make=trainer)


def states(trained):
    """Returns all tensors of a training, by name, and the rest of its state."""
    checkpoint = pack(trained)
    parts = ("model", "ema", "optimizer")
    tensors = {f"{p}.{k}": t for p in parts for k, t in getattr(checkpoint, p).items()}
    state = {k: v for k, v in checkpoint.state.items() if k != "clock"}
    return tensors, json.loads(json.dumps(state))


def same(one, other):
    """Asserts that two trainings agree bit for bit."""
    (a, rest), (b, others) = states(one), states(other)
    assert a.keys() == b.keys()
    differ = [name for name in a if not torch.equal(a[name], b[name])]
    assert not differ, differ
    assert rest == others
