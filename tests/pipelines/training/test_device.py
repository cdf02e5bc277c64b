"""GPUs against the CPU, by the same code; skipped where there is none."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from ebflow.bijections.base import products
from ebflow.checkpoint import load
from ebflow.evaluation import evaluate
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import RowGenerator
from pipelines.data.dataset import Dataset
from pipelines.training.checkpoints import save_training

from .cases import NETS, same_when_resumed, trainer
from .test_sharding import measured

GPUS = torch.cuda.device_count()
pytestmark = pytest.mark.skipif(not GPUS, reason="no CUDA device")
several = pytest.mark.skipif(GPUS < 2, reason=f"{GPUS} CUDA devices, expected two")

DEVICE = "cuda"
ANCHORED = dict(anchor=dict(interval=5, tolerance=1e-3, check_every=2))
TRAININGS = {
    "dsm": dict(objective="dsm", loss={**ANCHORED, "latent_mean": 1.0}, clip=1.0),
    "ssm_vr": dict(objective="ssm_vr", loss=dict(finish=0.3)),
    "relative_ml": dict(objective="relative_ml", optimizer="sgd"),
    "convolutions": dict(objective="ssm", loss=ANCHORED, net=NETS["convolutional"]),
    "coupling": dict(objective="ssm", loss=ANCHORED, net=NETS["coupling"]),
    "autoregressive": dict(objective="ml", net=NETS["autoregressive"]),
    "bfloat16": dict(objective="dsm", precision="bfloat16"),
    "spectral": dict(objective="ml", net=dict(architecture="convolutional", spectral_norm=True)),
}
PRECISIONS = {torch.float64: 1e-8, torch.float32: 2e-3}
precisions = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
trainings = pytest.mark.parametrize("name", TRAININGS)


@pytest.fixture(autouse=True)
def full_precision():
    """Keeps PyTorch from rounding convolutions to TF32."""
    with products("highest"):
        yield


def close(found, expected, dtype):
    """Asserts that results agree up to a relative error of the largest."""
    tolerance = PRECISIONS[dtype] * float(expected.abs().max())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance)


@pytest.fixture
def equal_noise(monkeypatch):
    """Gives GPUs the random numbers of the CPU."""
    numbers = RowGenerator.symmetric

    def symmetric(self, shape, like):
        return numbers(self, shape, like.cpu()).to(like.device)

    monkeypatch.setattr(RowGenerator, "symmetric", symmetric)


def pair(digits, name, dtype, objective="ml"):
    """Returns trainings of the same model on the CPU and on the GPU."""
    torch.set_default_dtype(dtype)
    options = dict(net=NETS[name], clip=1.0)
    return [trainer(digits, objective, device=device, **options) for device in ("cpu", DEVICE)]


@precisions
@pytest.mark.parametrize("name", NETS)
def test_densities_scores_and_samples_are_those_of_the_cpu(digits, name, dtype):
    here, there = (training.averaged for training in pair(digits, name, dtype))
    x = digits.split("test").tensor()[:50]
    with torch.no_grad():
        u = here.to_latent(x)
        close(there.log_prob(x), here.log_prob(x), dtype)
        close(there.score(x), here.score(x), dtype)
        close(there.to_latent(x), u, dtype)
        close(there.core.from_latent(u.to(DEVICE)), here.core.from_latent(u), dtype)
        assert there.sample(7).device.type == DEVICE


@precisions
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_a_step_is_that_of_the_cpu(digits, equal_noise, name, objective, dtype):
    if dtype == torch.float32 and objective in ("fd_ssm", "taylor_sm"):
        pytest.skip("differences of energies have few digits in float32")
    gradients = []
    for training in pair(digits, name, dtype, objective):
        training.train_step(next(training.batches()))
        gradients.append(torch.cat([p.grad.flatten() for p in training.parameters]))
    close(gradients[1], gradients[0], dtype)


@trainings
def test_a_resumed_training_is_the_uninterrupted_one(digits, name, tmp_path, single_precision):
    whole, first, second = (trainer(digits, **TRAININGS[name], device=DEVICE) for _ in range(3))
    same_when_resumed(whole, first, second, 6, tmp_path / "checkpoint")
    assert all(p.isfinite().all() and p.device.type == DEVICE for p in whole.parameters)


def test_a_checkpoint_loads_on_a_machine_without_one(digits, tmp_path):
    training = trainer(digits, device=DEVICE)
    list(training.run())
    save_training(training, tmp_path / "checkpoint")
    flow = load(tmp_path / "checkpoint")
    assert flow.device.type == "cpu"
    split = digits.split("test")
    here, there = evaluate(flow, split), evaluate(training.averaged, split)
    assert here.nll == pytest.approx(there.nll, abs=6 * here.nll_se)


def worker(rank, world, folder, data):
    """Trains as one of ``world`` workers, each on a GPU of its own."""
    torch.set_default_dtype(torch.float64)
    torch.cuda.set_device(rank)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("nccl", store, rank=rank, world_size=world)
    found = measured(Dataset(data), "dsm, clipped", (rank, world), device=f"cuda:{rank}")
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@several
def test_two_gpus_train_as_one_does(digits, tmp_path):
    torch.multiprocessing.spawn(worker, (2, str(tmp_path), str(digits.folder)), nprocs=2)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = measured(digits, "dsm, clipped", (0, 1), device=DEVICE)
    assert one == other and one["weights"] == pytest.approx(alone["weights"], rel=1e-8, abs=1e-10)
