"""Two real workers of DDP on gloo give the training of one process with the same global batch."""

import datetime
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from ebflow.data.loader import Dataset
from ebflow.errors import NonFinite
from pipelines.augment import FlipAndShift

from .training import trainer

TRAININGS = {
    "dsm": dict(objective="dsm", clip=1.0),
    "ssm, anchored": dict(objective="ssm", loss=dict(anchor=dict(interval=4, tolerance=1e-3))),
    "dsm in one step of three": dict(
        objective="dsm", loss=dict(every=3, anchor=dict(interval=4, tolerance=1e-3))
    ),
    "latent mean": dict(objective="dsm", loss=dict(latent_mean=5.0, low_energy=0.1)),
    "latent mean, anchored, finish": dict(
        objective="ssm_vr", loss=dict(latent_mean=5.0, anchor=dict(interval=5), finish=0.3)
    ),
    "normalised convolutions, anchored": dict(
        objective="ssm",
        net=dict(architecture="convolutional", spectral_norm=True),
        loss=dict(anchor=dict(interval=6, tolerance=1e-3, check_every=2)),
    ),
    "fd_ssm": dict(objective="fd_ssm"),
    "exact_sm": dict(objective="exact_sm"),
    "taylor_sm": dict(
        objective="taylor_sm", loss=dict(hyper=dict(slices=2, directions="orthogonal"))
    ),
    "ladder of pairs": dict(loss=dict(hyper=dict(sigma=(0.5, 0.1), antithetic=True))),
    "augmented": dict(objective="dsm", augment=FlipAndShift((8, 8), reach=1.0)),
    "dsm in parts": dict(objective="dsm", clip=1.0, accumulate=4),
    "ml": dict(objective="ml"),
    "relative_ml": dict(objective="relative_ml"),
    "sml": dict(objective="sml"),
    "coupling": dict(objective="dsm", net=dict(architecture="coupling", depth=2, hidden=4)),
    "coupling, anchored": dict(
        objective="ssm",
        net=dict(architecture="coupling", depth=1, hidden=4),
        loss=dict(anchor=dict(interval=5)),
    ),
}


def told(dataset, name, shard, wrap):
    """Returns the losses, the NLLs and the weights of one training."""
    training = trainer(dataset, **TRAININGS[name], log_every=1, shard=shard, wrap=wrap)
    rows = [(event.kind, event.metrics) for event in training.run()]
    return {
        "loss": [m["train/loss"] for kind, m in rows if kind == "log"],
        "nll": [m["val/nll"] for kind, m in rows if kind == "validate"],
        "weights": [p.detach().flatten().tolist() for p in training.parameters],
    }


def broken(dataset, shard, wrap):
    """Returns what a training says whose loss breaks on rank 1 alone."""
    training = trainer(dataset, log_every=1, shard=shard, wrap=wrap)
    plain = training.train_step

    def step(batch):
        plain(batch)
        if training.step == 5 and shard[0] == 1:
            training.window[-1].fill_(torch.nan)

    training.train_step = step
    try:
        list(training.run())
    except NonFinite as error:
        return str(error)
    return "went on"


def worker(rank, world, folder, data):
    """Runs every training as one of ``world`` workers, and writes what rank it saw."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    wrap = partial(nn.parallel.DistributedDataParallel, broadcast_buffers=False)
    dataset = Dataset(data)
    found = {name: told(dataset, name, (rank, world), wrap) for name in TRAININGS}
    found["broken"] = broken(dataset, (rank, world), wrap)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(digits, tmp_path_factory):
    """What two workers saw."""
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(worker, (2, str(folder), str(digits.folder)), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def whole(dataset, name):
    return told(dataset, name, (0, 1), lambda module: module)


@pytest.mark.parametrize("name", TRAININGS)
def test_two_workers_tell_the_losses_of_one(digits, workers, name):
    expected = whole(digits, name)
    assert len(expected["loss"]) == 12 and len(expected["nll"]) == 3
    for found in workers:
        assert found[name]["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert found[name]["nll"] == pytest.approx(expected["nll"], rel=1e-9)


@pytest.mark.parametrize("name", TRAININGS)
def test_two_workers_get_the_weights_of_one(digits, workers, name):
    for found in workers:
        for a, b in zip(found[name]["weights"], whole(digits, name)["weights"], strict=True):
            assert a == pytest.approx(b, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", TRAININGS)
def test_workers_agree_to_the_bit(workers, name):
    assert workers[0][name] == workers[1][name]


def test_a_loss_that_breaks_on_one_worker_stops_all_at_its_step(workers):
    messages = [found["broken"] for found in workers]
    assert messages[0] == messages[1] and messages[0].startswith("step 4: found a loss of nan")
