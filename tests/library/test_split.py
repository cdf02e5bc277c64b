"""Weights split among two real workers (FSDP2 on gloo) give the training of one process."""

import datetime
import json
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from ebflow.checkpoint import load, resume, save_training
from ebflow.data.loader import Dataset
from ebflow.execution import split, whole

from .test_parallel import TRAININGS, told
from .training import same, trainer


def seen(dataset, name, shard):
    """Returns the losses, the NLLs and the weights of a training with split weights."""
    training = trainer(dataset, **TRAININGS[name], log_every=1, shard=shard, wrap=split)
    rows = [(event.kind, event.metrics) for event in training.run()]
    weights = whole(dict(enumerate(training.parameters)))
    return {
        "loss": [m["train/loss"] for kind, m in rows if kind == "log"],
        "nll": [m["val/nll"] for kind, m in rows if kind == "validate"],
        "weights": [t.detach().flatten().tolist() for t in weights.values()],
    }


def resumed(dataset, folder, shard):
    """Saves a training half-way, goes on from there, and compares with the one that went on."""
    options = dict(objective="dsm", loss=dict(anchor=dict(interval=4)), shard=shard, wrap=split)
    first, second = trainer(dataset, **options), trainer(dataset, **options)
    for event in first.run():
        if event.kind == "validate" and event.step == 6:
            save_training(first, f"{folder}/half")
    torch.distributed.barrier()
    resume(second, f"{folder}/half")
    list(second.run())
    same(first, second)
    save_training(first, f"{folder}/end")
    parts = first.optimizer.state[first.parameters[0]]["exp_avg"].to_local()
    return {"held": parts.numel(), "of": first.parameters[0].numel()}


def worker(rank, world, folder, data):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=120),
    )
    dataset, shard = Dataset(data), (rank, world)
    found = {name: seen(dataset, name, shard) for name in TRAININGS}
    found["resumed"] = resumed(dataset, folder, shard)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """Where two workers left what they saw, and checkpoints."""
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(worker, (2, str(folder), str(digits.folder)), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def workers(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", TRAININGS)
def test_split_weights_train_as_whole_ones(digits, workers, name):
    expected = told(digits, name, (0, 1), lambda module: module)
    for found in workers:
        assert found[name]["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert found[name]["nll"] == pytest.approx(expected["nll"], rel=1e-9)
        for a, b in zip(found[name]["weights"], expected["weights"], strict=True):
            assert a == pytest.approx(b, rel=1e-8, abs=1e-10)
    assert workers[0][name] == workers[1][name]


def test_a_worker_holds_its_part_of_the_moments(workers):
    assert [2 * found["resumed"]["held"] for found in workers] == [64 * 64] * 2
    assert workers[0]["resumed"]["of"] == 64 * 64


def test_a_checkpoint_of_split_weights_is_whole(digits, folder, workers):
    flow = load(folder / "end")
    alone = trainer(digits, objective="dsm", loss=dict(anchor=dict(interval=4)))
    resume(alone, folder / "end")
    for saved, mine in zip(flow.parameters(), alone.averaged.parameters(), strict=True):
        assert torch.equal(saved, mine.to(saved.dtype))
