"""Steps on two real workers (gloo), and their precision."""

import datetime
import json
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from ebflow.bijections.base import products
from ebflow.checkpoint import load
from ebflow.errors import NonFinite
from ebflow.loss import LossModule
from ebflow.objectives import OBJECTIVES, full_products
from pipelines.data.dataset import Dataset
from pipelines.training.augment import flip_and_shift
from pipelines.training.checkpoints import resume, save_training
from pipelines.training.loop import TrainingLoop, WorkerContext

from .cases import NETS, same, trainer

TRAININGS = {
    "dsm, clipped": dict(objective="dsm", clip=1.0),
    "dsm in one step of three": dict(objective="dsm",
        loss=dict(every=3, anchor=dict(interval=4, tolerance=1e-3))),
    "latent mean, anchored, finish": dict(objective="ssm_vr",
        loss=dict(latent_mean=5.0, anchor=dict(interval=5), finish=0.3)),
    "normalized convolutions, anchored": dict(objective="ssm",
        net=dict(architecture="convolutional", spectral_norm=True),
        loss=dict(anchor=dict(interval=6, tolerance=1e-3, check_every=2))),
    "taylor_sm": dict(objective="taylor_sm", loss=dict(hyper=dict(slices=2))),
    "augmented": dict(objective="dsm", augment=flip_and_shift((8, 8), reach=1.0)),
    "sml": dict(objective="sml"),
    "coupling": dict(objective="dsm", net=dict(architecture="coupling", depth=1, hidden=4)),
}  # fmt: skip


def measured(dataset, name, shard, **more):
    """Returns the losses, the NLLs and the weights of one training."""
    training = trainer(dataset, **TRAININGS[name], log_every=1, shard=shard, **more)
    rows = [(event.kind, event.metrics) for event in training.run()]
    return {
        "loss": [m["train/loss"] for kind, m in rows if kind == "log"],
        "nll": [m["val/nll"] for kind, m in rows if kind == "validate"],
        "weights": torch.cat([t.detach().flatten() for t in training.parameters]).tolist(),
    }


def broken(dataset, shard):
    """Returns what a training says whose loss breaks on rank 1 alone."""
    training = trainer(dataset, log_every=1, retry=False, shard=shard)
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


def returned(dataset, folder, shard):
    """Returns to which steps a training goes back whose loss breaks on rank 1 alone."""
    training = trainer(dataset, log_every=1, shard=shard)
    place = WorkerContext(lambda rows, keep: None, shard, local_rank=shard[0])
    loop = TrainingLoop(training, Path(folder) / "work", place)
    plain, back = training.backward, []

    def backward(batch):
        broken = training.step == 8 and training.state.relief == 1 and shard[0] == 1
        return plain(batch) * (torch.nan if broken else 1)

    training.backward = backward
    for event in training.run():
        loop.take(event)
        back += [event.step] if event.kind == "resume" else []
    return {"back": back, "steps": training.step, "best": training.state.best_step}


def resumed(dataset, folder, shard):
    """Saves a training half-way, goes on from there, and compares with the one that went on."""
    options = dict(objective="dsm", loss=dict(anchor=dict(interval=4)), shard=shard)
    first, second = trainer(dataset, **options), trainer(dataset, **options)
    for event in first.run():
        if event.kind == "validate" and event.step == 6:
            save_training(first, f"{folder}/half")
    torch.distributed.barrier()
    resume(second, f"{folder}/half")
    list(second.run())
    same(first, second)
    save_training(first, f"{folder}/end")


def worker(rank, world, folder, data):
    """Runs every training as one of ``world`` workers, and writes what rank it saw."""
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
    found = {name: measured(dataset, name, shard) for name in TRAININGS}
    found["broken"] = broken(dataset, shard)
    found["returned"] = returned(dataset, folder, shard)
    resumed(dataset, folder, shard)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.system
def test_two_workers(digits, tmp_path, subtests):
    """They train as one does; all in one test, for they are started once."""
    torch.multiprocessing.spawn(worker, (2, str(tmp_path), str(digits.folder)), nprocs=2)
    workers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for name in TRAININGS:
        expected = measured(digits, name, (0, 1))
        assert len(expected["loss"]) == 12 and len(expected["nll"]) == 3
        with subtests.test(f"losses, likelihoods and weights up to rounding: {name}"):
            one, other = (found[name] for found in workers)
            assert one == other  # to the bit
            assert one["loss"] == pytest.approx(expected["loss"], rel=1e-9)
            assert one["nll"] == pytest.approx(expected["nll"], rel=1e-9)
            found, exact = torch.tensor(one["weights"]), torch.tensor(expected["weights"])
            torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-10)
    with subtests.test("a loss that breaks on one worker stops all at its step"):
        one, other = (found["broken"] for found in workers)
        assert one == other and one.startswith("step 4: found a loss of nan")
    with subtests.test("all return to the checkpoint of the best"):
        one, other = (found["returned"] for found in workers)
        assert one == other and one["back"] == [6] and one["steps"] == 12
    with subtests.test("one worker resumes from the checkpoint of two"):
        flow = load(tmp_path / "end")
        alone = trainer(digits, objective="dsm", loss=dict(anchor=dict(interval=4)))
        resume(alone, tmp_path / "end")
        for saved, averaged in zip(flow.parameters(), alone.averaged.parameters(), strict=True):
            assert torch.equal(saved, averaged.to(saved.dtype))


# How DDP wraps a model


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A process group of one worker."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", NETS)
def test_a_wrapped_model_trains_to_the_bit_as_the_model_itself(
    digits, group, monkeypatch, name, objective
):
    """DDP raises at the second step if the first one did not use all parameters."""
    weights = []
    for kind in (DistributedDataParallel, LossModule):
        with monkeypatch.context() as patch:
            if kind is LossModule:
                patch.setattr(torch.distributed, "is_initialized", lambda: False)
            training = trainer(digits, objective, net=NETS[name], shard=(0, 2))
            batches = training.batches()
            for _ in range(2):
                training.train_step(next(batches))
        assert type(training.module) is kind
        weights.append(torch.cat([p.detach().flatten() for p in training.averaged.parameters()]))
    assert torch.equal(*weights)


# Precision


DIFFERENCES = ("fd_ssm", "taylor_sm")
SINGLE = torch.zeros(2, dtype=torch.float32)


def state():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_precision_is_set_for_a_while(precision):
    before = state()
    with pytest.raises(KeyError), products(precision):
        assert state() == (precision, precision != "highest")
        raise KeyError
    assert state() == before


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_single_precision_needs_full_products(precision):
    full_products(SINGLE)
    with products(precision):
        full_products(SINGLE.double())
        with pytest.raises(ValueError, match=f"precision: found {precision}, expected highest"):
            full_products(SINGLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="found half precision"):
        full_products(SINGLE.to(dtype))


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="no autocast"):
        full_products(SINGLE)


MIXED = {
    **{
        name: dict(objective=name) for name in ("dsm", "ssm", "ssm_vr", "ml", "relative_ml", "sml")
    },
    "anchored": dict(objective="dsm", loss=dict(anchor=dict(interval=4, tolerance=1e-3))),
    "convolutional": dict(objective="ssm", net=dict(architecture="convolutional")),
    "coupling": dict(objective="ssm", net=dict(architecture="coupling", depth=1, hidden=4)),
}


@pytest.mark.parametrize("options", MIXED.values(), ids=MIXED)
def test_mixed_precision_trains_float32_weights(options, digits, single_precision):
    """A step's relative error of 4e-3 leaves the NLL after 12 steps within 0.1 nats."""
    nll, losses = [], []
    for precision in ("highest", "bfloat16"):
        training = trainer(digits, **options, precision=precision, log_every=1)
        events = list(training.run())
        nll.append([e.metrics["val/nll"] for e in events if e.kind == "validate"])
        losses.append([e.metrics["train/loss"] for e in events if e.kind == "log"])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in training.parameters)
    assert nll[1] == pytest.approx(nll[0], abs=0.1) and nll[1][0] == nll[0][0]
    assert losses[1] != losses[0] and losses[1][-1] == pytest.approx(losses[0][-1], abs=1)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_refuse_mixed_precision(name, digits, single_precision):
    with pytest.raises(ValueError, match="found half precision"):
        list(trainer(digits, objective=name, precision="bfloat16").run())


def test_autocast_ends():
    with products("bfloat16"):
        assert torch.nn.functional.linear(SINGLE, SINGLE[None]).dtype == torch.bfloat16
    assert torch.nn.functional.linear(SINGLE, SINGLE[None]).dtype == torch.float32
