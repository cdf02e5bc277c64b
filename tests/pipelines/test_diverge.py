"""Divergences of a flow from an exact density: from a checkpoint to the stage's files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebflow.architectures import dense
from ebflow.checkpoint import Checkpoint, write
from ebflow.randomness import generator
from ebflow.toy import SMOOTHED
from pipelines.config import Coupling, PreprocessConfig, TrainConfig, Training
from pipelines.data.dataset import Dataset
from pipelines.paper.config import DivergeConfig
from pipelines.paper.toy import EXTENT, RESOLUTION, SAMPLES, fisher_divergence, kl_divergence, toy
from pipelines.training.checkpoints import save_training
from tests.pipelines.trainers import build
from tests.prepared import prepare

from .untracked import Untracked

CONFIG = DivergeConfig(density="checkerboard")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "data"
    prepare("checkerboard", folder, rows=3_000, validation=500, test=1_000)
    return folder


def measured(folder, data):
    """Runs the stage on ``folder / "last"``; returns its numbers and arrays."""
    output = folder / "output"
    output.mkdir()
    run = Untracked(output)
    toy(CONFIG, data, folder, run=run)
    metrics = json.loads((output / "evaluation.json").read_text())
    assert metrics == run.metrics
    return metrics, np.load(output / "arrays.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A short training: its trainer, whose averaged weights are not its last, and the stage's."""
    folder = tmp_path_factory.mktemp("trained")
    config = Training(
        model=Coupling(depth=2, hidden=8),
        preprocess=PreprocessConfig(normalize="none", logit=None),
        train=TrainConfig(steps=30, lr=1e-2, noise=0.375, validate_every=30),
    )
    trainer = build(config, Dataset(data))
    list(trainer.run())
    save_training(trainer, folder / "last")
    return SimpleNamespace(trainer=trainer, stage=measured(folder, data))


def test_it_measures_the_averaged_flow_against_the_smoothed_density(trained):
    """An independent sample of the density gives the same numbers within five of their errors."""
    numbers, _ = trained.stage
    truth = SMOOTHED["checkerboard"](0.375)
    x = truth.sample(1_000, generator=generator(5, "independent"))
    flow = trained.trainer.averaged
    for name, divergence in (("kl", kl_divergence), ("fisher", fisher_divergence)):
        expected = divergence(truth, flow, x)
        bound = 5 * np.hypot(expected.se, numbers[f"study/{name}_se"])
        assert abs(numbers[f"study/{name}"] - expected.value) < bound
        assert 1 < expected.se / numbers[f"study/{name}_se"] < 6


def test_it_is_the_averaged_flow_and_not_the_best(trained):
    """The pictures are those of the average at the end, to the last digit."""
    flow, arrays = trained.trainer.averaged, trained.stage[1]
    corner = torch.tensor([[-9 + 0.075, -9 + 0.075]])
    average, raw = (float(f.log_prob(corner).detach()) for f in (flow, trained.trainer.flow))
    assert arrays["model"][0, 0] == pytest.approx(average, rel=1e-5)
    assert arrays["model"][0, 0] != pytest.approx(raw, rel=1e-4)


def test_pictures_hold_densities_with_their_axes_the_right_way(trained):
    """The truth integrates to 1, and is dark where a square is missing."""
    _, arrays = trained.stage
    pixel = (2 * EXTENT / RESOLUTION) ** 2
    assert np.exp(arrays["truth"]).sum() * pixel == pytest.approx(1, abs=1e-3)
    assert np.exp(arrays["model"]).sum() * pixel == pytest.approx(1, abs=0.1)

    def at(x, y):
        return arrays["truth"][int((y + 9) / 0.15), int((x + 9) / 0.15)]

    assert at(1.5, 1.5) > -5 and at(-4.5, 1.5) > -5 and at(-1.5, 1.5) < -10


def test_of_a_gaussian_it_is_the_closed_form(tmp_path, data):
    """KL(p ‖ N(0, I)) = E log p + log 2π + E‖x‖²/2; E‖x‖² = 24 + 2 σ² of the checkerboard."""
    flow = dense((2,), depth=1, dtype=torch.float64)
    weights = flow.state_dict()
    state = {"flow": {**flow.spec, "dtype": "float64"}}
    write(tmp_path / "last", Checkpoint(weights, state, weights))
    numbers, _ = measured(tmp_path, data)
    truth = SMOOTHED["checkerboard"](0.375)
    entropy = truth.energy(truth.sample(SAMPLES, generator=generator(3)))
    expected = float(np.log(2 * np.pi)) + 12 + 0.375**2 - float(entropy.mean())
    error = np.hypot(numbers["study/kl_se"], float(entropy.std()) / np.sqrt(SAMPLES))
    assert abs(numbers["study/kl"] - expected) < 5 * error
