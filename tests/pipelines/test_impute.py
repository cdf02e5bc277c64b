"""The imputation stage on a flow that is a Gaussian: its draws and their errors are known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from pipelines.config import DensityConfig
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import prepare
from pipelines.paper.config import ImputeConfig
from pipelines.paper.sampling import imputation_error
from pipelines.paper.stages import impute as stage
from pipelines.paper.stages.impute import masks
from pipelines.training import metrics_log
from pipelines.training.resumable import save_training
from tests.pipelines.trainers import build

from .untracked import Untracked

SHRINKAGE = 0.05
CONFIG = ImputeConfig(images=40, draws=8, steps=400)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    """Digits, and the checkpoint of a flow that is their Gaussian: whitening and the identity."""
    folder = tmp_path_factory.mktemp("impute")
    prepare("digits", folder / "data")
    config = DensityConfig(
        preprocess={"shrinkage": SHRINKAGE},
        model={"depth": 1, "noise": 0.0, "bias": 0.0},
        train={"dtype": "float64"},
    )
    trainer = build(config, Dataset(folder / "data"))
    save_training(trainer, folder / "checkpoint")
    (folder / "out").mkdir()
    run = Untracked(folder / "out", folder)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(stage, "SHRINKAGE", SHRINKAGE)
        stage.impute(CONFIG, folder / "data", folder, run=run)
    metrics = json.loads((folder / "out" / "evaluation.json").read_text())
    assert metrics == run.metrics
    with np.load(folder / "out" / "arrays.npz") as file:
        arrays = {name: torch.from_numpy(array) for name, array in file.items()}
    return SimpleNamespace(flow=trainer.flow, metrics=metrics, folder=folder, **arrays)


def test_it_tells_which_chain_draws(gaussian):
    rows, _ = metrics_log.read(gaussian.folder / metrics_log.FILE)
    names = ("adaptive", "langevin", "momentum")
    assert [row["text"] for row in rows] == [f"draws by the {name} chain" for name in names]


def logits(flow, truth, missing):
    """Returns the logits of digits with the stage's own dequantization."""
    noise = derive(0, "impute", "gaussian")
    elementwise = Flow((64,), list(flow.layers)[:2], n_preprocessing=2).to(flow.device, flow.dtype)
    return elementwise.preprocess(truth.masked_fill(missing, 0), generator=noise)


def conditional(flow, y, missing):
    """Returns mean and root of the covariance of a row's missing logits, by Schur's complement."""
    standard, white = flow.layers[2:4]
    root = (white.weight * standard.log_scale.exp()).double()
    covariance = torch.linalg.inv(root.mT @ root)
    cross, seen = covariance[~missing][:, missing], covariance[~missing][:, ~missing]
    gain = torch.linalg.solve(seen, cross).mT
    mean = standard.shift[missing] + gain @ (y - standard.shift)[~missing]
    return mean, torch.linalg.cholesky(covariance[missing][:, missing] - gain @ cross)


def test_seen_pixels_stay_exactly(gaussian):
    seen = ~gaussian.missing
    for name in ("adaptive", "langevin", "momentum", "gaussian"):
        found = getattr(gaussian, name)
        assert torch.equal(found[seen], gaussian.truth[seen])
        assert not torch.equal(found[~seen], gaussian.truth[~seen])
    assert torch.equal(gaussian.missing, masks((8, 8), CONFIG.images, seed=0).flatten(1))


def test_the_flow_is_the_gaussian(gaussian):
    metrics = gaussian.metrics
    assert metrics["test/nll"] == pytest.approx(metrics["baseline/gaussian_nll"], rel=1e-6)
    assert 0.1 < metrics["study/missing"] < 0.6


def test_langevins_error_is_that_of_exact_draws(gaussian):
    """Draws of the conditional law by its closed form; ε P / 2 is small where it matters."""
    truth, missing = gaussian.truth, gaussian.missing
    y = logits(gaussian.flow, truth, missing)
    noise = torch.Generator().manual_seed(0)
    exact = truth.double().repeat(40, 1, 1)
    for row, free in enumerate(missing):
        mean, root = conditional(gaussian.flow, y[row], free)
        z = torch.randn(40, len(mean), generator=noise, dtype=torch.float64)
        exact[:, row, free] = (17 * torch.sigmoid(mean + z @ root.mT)).floor()
    holes = missing.repeat(40, 1)
    expected = imputation_error(truth.repeat(40, 1), exact.view(-1, 64), holes).value
    assert gaussian.metrics["study/rmse_langevin"] == pytest.approx(expected, rel=0.05)
    averaged = imputation_error(truth, exact.mean(0), missing).value
    alone = gaussian.metrics["study/rmse_langevin"] ** 2 - averaged**2
    mean = math.sqrt(averaged**2 + alone / CONFIG.draws)
    assert gaussian.metrics["study/rmse_langevin_mean"] == pytest.approx(mean, rel=0.05)


def test_the_gaussians_guess_is_its_conditional_mean(gaussian):
    y = logits(gaussian.flow, gaussian.truth, gaussian.missing)
    for row, free in enumerate(gaussian.missing):
        mean, _ = conditional(gaussian.flow, y[row], free)
        expected = (17 * torch.sigmoid(mean)).floor()
        assert torch.equal(gaussian.gaussian[row, free].double(), expected), row


def test_means_better_draws_and_the_training_mean(gaussian):
    metrics = gaussian.metrics
    assert metrics["study/rmse_langevin_mean"] < metrics["study/rmse_langevin"]
    assert metrics["study/rmse_langevin_mean"] < metrics["study/rmse_mean_fill"]
    assert all(
        metrics[f"{name}_se"] > 0
        for name in metrics
        if name.startswith("study/rmse") and not name.endswith("_se")
    )
