"""Trainers on real data, and ways to compare them."""

import math
from functools import cache, partial

import torch

from ebflow import objectives, preprocessing
from ebflow.anchor import Anchor
from ebflow.architectures import ARCHITECTURES, dense
from ebflow.bijections import Reshape
from ebflow.flow import Flow
from ebflow.loss import Loss
from ebflow.tables.batches import Batch
from ebflow.tables.rows import Arrays, Rows
from ebflow.train import Trainer

from .bijections.cases import seeded

OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=1e-3, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, fused=True, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-4),
    "sgd": partial(torch.optim.SGD, lr=1e-4, fused=True),
    "fast": partial(torch.optim.Adam, lr=1e-2, fused=True),
    "ascent": partial(torch.optim.SGD, lr=1e-3, maximize=True),
    "sgd-momentum": partial(torch.optim.SGD, lr=1e-4, momentum=0.9),
}


def loss_of(matched, objective="dsm", anchor=None, hyper=None, make=Loss, **options):
    """Returns the loss of the core of a flow.

    ``anchor`` holds the anchor's options, ``hyper`` the objective's.
    """
    function, lazy = objectives.OBJECTIVES[objective], objective == "lazy_ml"
    function = partial(function, **hyper) if hyper else function
    model = Anchor(matched, **(anchor or {})) if anchor is not None or lazy else None
    if lazy:
        function = partial(function, anchor=model)
    weight = 0.0 if lazy or anchor is None else 1.0
    return make(function, anchor=model, **{"anchor_weight": weight, **options})


NETS = {
    "convolutional": dict(kernel_size=3, blocks=2, depth=1, sign=1.0, noise=0.1),
    "dense": dict(noise=0.1),
}


def flow_of(width, architecture="dense", **options):
    """Returns a named flow of flat rows; nets of images take them for square ones."""
    options = {"generator": seeded(), **NETS.get(architecture, {}), **options}
    if architecture in ("dense", "coupling", "autoregressive"):
        return ARCHITECTURES[architecture]((width,), **options)
    image = (1, math.isqrt(width), math.isqrt(width))
    flow = ARCHITECTURES[architecture](image, **options)
    return Flow((width,), [Reshape((width,), image), *flow.layers])


@cache
def fitted(split, options):
    """Returns the preprocessing of a training split, fitted once."""
    return preprocessing.fit(split, **dict(options))


def trainer(
    dataset, objective="dsm", *, chain=None, net=None, loss=None, optimizer="adam", make=Trainer,
    make_loss=loss_of, **more
):  # fmt: skip
    """Returns a short training; every option of ``Trainer`` can be given."""
    split = dataset.split("train")
    flow = flow_of(split.width, **(net or {}))
    chain = fitted(split, tuple({"normalize": "whiten", **(chain or {})}.items()))
    match_after, device = more.pop("match_after", True), more.pop("device", "cpu")
    flow = flow.preprocessed(chain, match_after=match_after).to(device)
    made = make_loss(flow.core, objective, **(loss or {}))
    settings = dict(steps=12, batch_size=64, validate_every=6, log_every=3)
    return make(flow, dataset, loss=made, optimizer=OPTIMIZERS[optimizer], **{**settings, **more})


OBJECTIVES = {
    **{name: {} for name in objectives.OBJECTIVES},
    "dsm, anchored": dict(loss=dict(anchor=dict(interval=5))),
}


def named(dataset, name, make=trainer, **options):
    """Returns the training of an entry of the table."""
    return make(dataset, name.split(",")[0], **{**OBJECTIVES[name], **options})


def conditional(size=300, *, make=Trainer, make_loss=loss_of, **options):
    """Returns a training of rows in memory, x ~ N(c, 1), given contexts."""
    c = torch.randn(size, 1, generator=seeded(1))
    x = c * torch.tensor([2.0, -1.0]) + torch.randn(size, 2, generator=seeded(2))
    cuts = {"train": slice(0, size - 100), "validation": slice(size - 100, size)}
    data = Arrays(*(Rows(x[rows], context=c[rows], name=name) for name, rows in cuts.items()))
    data.digest = "rows"
    flow = dense((2,), depth=2, context=1, generator=seeded())
    flow.standardize_context(c.double().mean(0), c.double().std(0, correction=0))
    made = make_loss(flow, **options.pop("loss", dict(objective="ml")))
    settings = dict(steps=100, batch_size=50, validate_every=50, log_every=20)
    return make(flow, data, loss=made, **{
        "optimizer": partial(torch.optim.Adam, lr=2e-2), **settings, **options})  # fmt: skip


def batch_of(dataset, size=64, **options):
    """Returns the first training batch of seed 0."""
    return next(dataset.split("train").shuffled(size, seed=0, **options))


def cut(batch, rows):
    """Returns some rows of a batch."""
    return Batch(*(None if t is None else t[rows] for t in batch))


def losses(training):
    """Runs a training and returns its logged losses."""
    rows = [event.metrics for event in training.run() if event.kind == "log"]
    return [row["train/loss"] for row in rows]


def same(one, other):
    """Asserts that two trainings agree bit for bit."""
    for a, b in zip(one.flow.parameters(), other.flow.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one.averaged.parameters(), other.averaged.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.state == other.state


def broken(training, *steps, again=()):
    """Lets a training's weights break at steps; those in ``again`` after it was tried anew."""
    plain = training.train_step

    def step(batch):
        if training.step in (steps if training.state.relief == 1 else again):
            with torch.no_grad():
                training.parameters[0].view(-1)[0] = torch.nan
        plain(batch)

    training.train_step = step
    return training
