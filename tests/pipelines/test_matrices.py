"""Structured matrices on 512 modes: cells, pairing, verdicts, curves, and the stage itself."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebflow.architectures import structured
from ebflow.checkpoint import save
from ebflow.randomness import generator as derive
from ebflow.toy import hops, hops_log_prob, mode
from pipelines import metrics_log
from pipelines.paper import modes
from pipelines.paper.cell import Finished
from pipelines.paper.config import ModesConfig, PaperConfig
from pipelines.paper.experiments.matrices import (
    FULL,
    MATRICES,
    OTHERS,
    conclude,
    excess,
    figures,
    rows,
)
from pipelines.paper.progress import curve

# NLL above that of arbitrary matrices, in nats.
ABOVE = {"lower": 2.0, "lu": 0.01}


def logged(folder, nlls):
    """Writes the validations of a training, ten steps and two seconds apart."""
    entries = [
        metrics_log.row("validate", 10 * k, 0.0, metrics={"val/nll": nll, "time/train_s": 2.0 * k})
        for k, nll in enumerate(nlls)
    ]
    metrics_log.append(folder / metrics_log.FILE, entries)


def finished(folder, seeds=1):
    found, points = [], np.random.default_rng(0).normal(size=300)
    for cell in MATRICES.all_cells(PaperConfig(experiment="matrices", scale="smoke", seeds=seeds)):
        place = folder / f"{len(found)}"
        place.mkdir()
        noise = 1e-3 * np.random.default_rng(len(found)).normal(size=300)
        above = ABOVE.get(cell.labels["matrices"], 1.0 if cell.labels["matrices"] != FULL else 0)
        np.savez(place / "arrays.npz", model_log_probs=points - above + noise)
        (place / "evaluation.json").write_text(json.dumps({"study/nll": 30.0 + above}))
        (place / "training.json").write_text(json.dumps({"metrics": {"train/steps": 600}}))
        logged(place, [50.0, 40.0, 30.0 + above])
        found.append(Finished(cell, {"trained": place, "measured": place}))
    return found


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_excess_is_of_the_same_points(tmp_path, seeds):
    found = finished(tmp_path, seeds)
    assert excess(found, "lower").value == pytest.approx(2.0, abs=0.01)
    assert excess(found, "lower").df == (299 if seeds == 1 else 2)
    assert excess(found[1:], "lower") is None or seeds > 1
    verdicts = {claim.claim.split()[1]: claim.verdict for claim in conclude(found).claims}
    expected = {name: "does not hold" if name == "lu" else "holds" for name in OTHERS}
    assert verdicts == expected


def test_curves_are_the_logged_validations(tmp_path):
    found = finished(tmp_path)
    one = curve(found[0])
    assert (one.steps, one.seconds, one.nlls) == ([0, 10, 20], [0.0, 2.0, 4.0], [50.0, 40.0, 30.0])
    assert one.best_within(3.0) == 40.0 and one.best_within(-1.0) is None
    ((figure, _),) = figures(rows(found), found).values()
    assert [len(axis.lines) for axis in figure.axes] == [7, 7]


def test_cells_have_the_published_settings():
    cells = MATRICES.all_cells(PaperConfig(experiment="matrices", scale="full"))
    flow = {cell.labels["matrices"]: cell.config for cell in cells}["two_triangles"]
    train = flow.train
    found = (train.steps, train.batch_size, train.lr, train.clip, train.dtype, train.ema_decay)
    assert found == (10_001, 2_048, 1e-3, 500.0, "float64", 0.0)
    assert flow.model.structure == "two_triangles" and flow.objective.name == "ml"
    assert flow.preprocess.normalize == "none" and flow.train.validate_every == 100


def test_the_divergence_and_the_masses_of_modes_are_measured(tmp_path, monkeypatch):
    """Against an estimate by other noise; samples of the truth are nearer to equal masses."""
    monkeypatch.setattr(modes, "Dataset", lambda folder: folder)
    (tmp_path / "trained").mkdir()
    flow = structured((10,), depth=1, dtype=torch.float64)
    with torch.no_grad():
        for layer in (flow.layers[0], flow.layers[-1]):
            layer.weight.copy_(torch.eye(10))
    save(flow, tmp_path / "trained" / "checkpoint")
    metrics = {}
    run = SimpleNamespace(output=tmp_path, open=lambda *_: None, write_metrics=metrics.update)
    modes.modes(ModesConfig(samples=4_000), tmp_path, tmp_path, tmp_path / "trained", run=run)
    noise, latents = torch.randn(2, 4_000, 10, generator=derive(9), dtype=torch.float64)
    with torch.no_grad():
        terms = hops_log_prob(noise) - flow.log_prob(hops(noise))
        masses = modes.total_variation(mode(flow.from_latent(latents)))
    spread = float(terms.std()) / 4_000**0.5
    assert metrics["study/kl"] == pytest.approx(float(terms.mean()), abs=6 * spread)
    assert metrics["study/kl_se"] == pytest.approx(spread, rel=0.2)
    assert metrics["study/modes_tv"] == pytest.approx(masses, abs=0.03)
    assert metrics["study/modes_tv_truth"] < 0.2 < metrics["study/modes_tv"]
    arrays = np.load(tmp_path / modes.ARRAYS)
    assert -arrays["model_log_probs"].mean() == pytest.approx(metrics["study/nll"])


def test_the_total_variation_of_masses():
    assert modes.total_variation(torch.arange(512)) == pytest.approx(0.0)
    assert modes.total_variation(torch.zeros(9, dtype=torch.long)) == pytest.approx(511 / 512)
    assert math.isclose(modes.total_variation(torch.arange(256)), 0.5)
