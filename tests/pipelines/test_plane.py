"""Flows beside known densities in the plane: excesses over likelihood, verdicts and pictures."""

import json
import math
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ebflow.toy_densities import SMOOTHED
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig
from pipelines.paper.diverge import SQUARE
from pipelines.paper.experiments.plane import (
    LENGTHS,
    MARGIN,
    PLANE,
    TRAINED,
    conclude,
    excesses,
    rows,
)
from pipelines.reporting import plane

# How far the density of an objective's flow is below ml's, in nats.
BELOW = {"ml": 0.0, "sml": 0.01, "ssm_vr": 0.05, "dsm": 0.3, "fd_ssm": 0.0, "exact_sm": 0.0}


def finished(folder, seeds=1):
    """Cells whose flows have known log-densities of the points."""
    found = []
    points = np.random.default_rng(0).normal(size=400)
    for cell in PLANE.all_cells(PaperConfig(experiment="plane", scale="smoke", seeds=seeds)):
        density, objective = cell.labels.values()
        place = folder / f"{density}-{objective}-{cell.seed}"
        place.mkdir()
        noise = 0.01 * np.random.default_rng(len(found)).normal(size=400)
        values = points - BELOW[objective] + noise
        energy = np.linspace(0, 20, 9).reshape(3, 3)
        np.savez(
            place / "arrays.npz", model_log_probs=values, energy=energy, log_prob=-1.5 - energy
        )
        (place / "evaluation.json").write_text(json.dumps({"study/kl": 0.1}))
        (place / "training.json").write_text(json.dumps({"metrics": {"train/steps": 2000}}))
        found.append(Finished(cell, {"trained": place, "measured": place}))
    return found


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_excess_over_likelihood_is_of_the_same_points(tmp_path, seeds):
    found = excesses(finished(tmp_path, seeds))
    for density, objective in product(LENGTHS, TRAINED):
        excess = found[density, objective]
        assert excess.value == pytest.approx(BELOW[objective], abs=0.005)
        assert excess.df == (399 if seeds == 1 else 2)


def test_a_claim_holds_where_the_excess_is_below_the_margin(tmp_path):
    cells = finished(tmp_path)
    verdicts = [claim.verdict for claim in conclude(cells).claims]
    assert verdicts == ["holds", "does not hold", "holds", "holds"] * 3 and 0.05 < MARGIN < 0.3
    assert rows(cells)[3]["excess"] == pytest.approx(0.3, abs=0.005)


def test_pictures_of_another_energy_are_seen(tmp_path):
    cells = finished(tmp_path)
    (check,) = conclude(cells).checks
    assert check.passed and check.item == "E12"
    place = cells[-1].folders["measured"] / "arrays.npz"
    arrays = dict(np.load(place))
    np.savez(place, **{**arrays, "energy": 1.01 * arrays["energy"]})
    (check,) = conclude(cells).checks
    assert not check.passed


def test_all_objectives_learn_the_same_smoothed_density():
    """Denoising score matching smooths by itself; the others train on noised rows."""
    for scale in ("smoke", "cpu", "full"):
        for cell in PLANE.all_cells(PaperConfig(experiment="plane", scale=scale)):
            flow, own = cell.config, getattr(cell.config.objective, "sigma", 0.0)
            assert math.hypot(flow.train.noise, own) == pytest.approx(0.375)
            assert flow.anchor.weight == 0 and not flow.preprocess.match_after


def test_full_trainings_have_the_published_networks():
    """Spec of the paper's code: ELU in networks of shifts, and weight normalization once."""
    found = {}
    for cell in PLANE.all_cells(PaperConfig(experiment="plane", scale="full")):
        model = cell.config.model
        found[tuple(cell.labels.values())] = (model.shift_activation, model.weight_norm)
    assert found["sine", "ml"] == ("swish", False) and found["sine", "dsm"] == ("elu", False)
    assert found["swirl", "ssm_vr"] == ("swish", False) and found["swirl", "ml"] == ("elu", False)
    assert found["checkerboard", "fd_ssm"] == ("elu", True)
    assert sum(normed for _, normed in found.values()) == 1
    assert sum(shift == "elu" for shift, _ in found.values()) == 9


def test_pictures_are_of_the_density_at_the_centres_of_pixels():
    truth = SMOOTHED["sine"](0.375)
    arrays = plane.evaluate(truth, SQUARE, pixels=20, arrows=4)
    x = torch.tensor([[-9 + 18 * 12.5 / 20, -9 + 18 * 3.5 / 20]], dtype=torch.float64)
    assert arrays["log_prob"][3, 12] == pytest.approx(float(truth.log_prob(x)), rel=1e-5)
    assert arrays["score"].shape == (4, 4, 2)
    axes = Figure().subplots(1, 3)
    for axis, picture in zip(axes, plane.PICTURES, strict=True):
        plane.draw(axis, picture, arrays, SQUARE)
