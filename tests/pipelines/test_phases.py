"""Trainings that lose mass: cells, what is lost, verdicts over seeds, the map."""

import json

import numpy as np
import pytest

from pipelines import metrics_log
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import phases
from pipelines.paper.experiments.phases import LOST, MAP, PAIRS, PHASES, WIDTH

GAUSSIAN = 100.0  # Its NLL, on validation and on test rows
FALLS = {"published": 3.0, "centred": 5.0, "learned": 8.0}  # How far flows end below it


def finished(folder, seeds=3, steps=600):
    """Writes trainings, of which those of the published activation lose mass."""
    found = []
    config = PaperConfig(experiment="phases", scale="cpu", seeds=seeds)
    for cell in PHASES.all_cells(config):
        place = folder / f"{len(found)}"
        place.mkdir()
        activation = cell.labels["activation"]
        nll = GAUSSIAN - FALLS[activation] + 0.01 * cell.seed
        masses = (0.1, 9.0) if activation == "published" else (0.1, 0.05)
        entries = [
            metrics_log.row("validate", k, 0.0, metrics={"latent/mean_norm2": WIDTH * mass})
            for k, mass in enumerate(masses)
        ]
        metrics_log.append(place / metrics_log.FILE, entries)
        metrics = {"train/steps": steps, "best/val_nll": nll}
        (place / "training.json").write_text(json.dumps({"metrics": metrics}))
        evaluation = {
            "test/nll": nll,
            "baseline/gaussian_nll": GAUSSIAN,
            "baseline/gaussian_val_nll": GAUSSIAN,
        }
        (place / "evaluation.json").write_text(json.dumps(evaluation))
        found.append(Finished(cell, {"trained": place, "likelihood": place}))
    return found


def test_the_map_crosses_activation_objective_start_and_rate():
    cells = PHASES.all_cells(PaperConfig(experiment="phases", scale="smoke"))
    parts = [cell.labels["part"] for cell in cells]
    assert (parts.count(MAP), parts.count(PAIRS)) == (3 * 5 * 2 * 2, 4 * (2 + 2))
    assert len({cell.title for cell in cells}) == len(cells)


def test_mass_is_lost_if_it_ends_large_and_has_risen(tmp_path):
    networks = phases.read(finished(tmp_path, seeds=1))
    lost = networks.groupby("activation")["lost"].all()
    assert dict(lost) == {"published": True, "centred": False, "learned": False}
    assert np.isclose(networks["end"].max(), 9.0) and networks["end"].min() < LOST


def test_claims_are_paired_by_seed(tmp_path):
    claims = phases.conclude(finished(tmp_path)).claims
    assert len(claims) == len(phases.LEADS) + len(phases.SHARES)
    _, below_gaussian, _, below_exact = claims[: len(phases.LEADS)]
    assert below_gaussian.value == pytest.approx(8.0, abs=0.02)
    assert below_gaussian.verdict == "holds"
    assert below_exact.value == pytest.approx(5.0)


def test_short_trainings_decide_nothing(tmp_path):
    claims = phases.conclude(finished(tmp_path, seeds=2, steps=30)).claims
    assert {claim.verdict for claim in claims} == {"not decided at this size"}


def test_one_row_for_each_activation_and_objective(tmp_path):
    rows = phases.rows(finished(tmp_path, seeds=2))
    published = [row for row in rows if row["labels"]["activation"] == "published"]
    assert len(rows) == 2 * (3 * 5 + 3)
    assert all(row["study/lost"] == 100.0 for row in published)


def test_the_map_is_drawn(tmp_path):
    drawn = phases.figures([], finished(tmp_path, seeds=1))
    drawn[MAP][0].savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000
