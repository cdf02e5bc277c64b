"""Curves of trainings: leads at equal time, verdicts and figures."""

import json

import pytest

from pipelines import metrics_log
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.curves import CURVES, by_network, conclude, figures
from pipelines.paper.table import TABLE

CONFIG = PaperConfig(
    experiment="curves", source="digits", networks=("FC",), objectives=("ml", "dsm", "ssm_vr")
)

# Seconds of a validation, and NLL after each of ten.
SPEED = {"ml": 4.0, "dsm": 1.0, "ssm_vr": 2.0}
FINAL = {"ml": 10.0, "dsm": 8.0, "ssm_vr": 30.0}


def finished(folder, seeds=3, steps=1_000):
    found = []
    for cell in CURVES.all_cells(CONFIG.changed(seeds=seeds)):
        objective = cell.labels["objective"]
        place = folder / f"{objective}-{cell.seed}"
        place.mkdir()
        rows = [
            metrics_log.row(
                "validate",
                100 * k,
                k / 10,
                metrics={
                    "time/train_s": SPEED[objective] * k,
                    "val/nll": FINAL[objective] + 10 - k + 0.01 * cell.seed * k,
                },
            )
            for k in range(11)
        ]
        metrics_log.append(place / metrics_log.FILE, rows)
        (place / "training.json").write_text(json.dumps({"metrics": {"train/steps": steps}}))
        found.append(Finished(cell, {"trained": place}))
    return found


def test_the_cells_are_those_of_the_table():
    config = CONFIG.changed(objectives=())
    found = [cell.config for cell in CURVES.all_cells(config)]
    table = TABLE.all_cells(config.changed(experiment="table", settings=("paper",)))
    assert found == [cell.config for cell in table] and len(found) == 5


def test_leads_are_at_equal_time(tmp_path):
    """After 10 s dsm has ended at 8, and ml has 18: validations at 0, 4 and 8 s."""
    claims = {claim.claim: claim for claim in conclude(finished(tmp_path)).claims}
    dsm = claims["FC: dsm is ahead of ml at equal time."]
    assert dsm.verdict == "holds" and dsm.value == pytest.approx(10, abs=0.2)
    assert claims["FC: ssm_vr is ahead of ml at equal time."].verdict == "does not hold"
    assert {claim.item for claim in claims.values()} == {"E7"}


def test_a_single_seed_and_short_trainings_decide_nothing(tmp_path):
    verdicts = {claim.verdict for claim in conclude(finished(tmp_path, seeds=1)).claims}
    assert verdicts == {"not decided at this size"}
    (tmp_path / "short").mkdir()
    assert conclude(finished(tmp_path / "short", steps=60)).claims == ()


def test_a_figure_has_every_objective(tmp_path):
    cells = finished(tmp_path)
    (name,) = figures([], cells)
    assert name == "curves-FC"
    assert {k: len(seeds) for k, seeds in by_network(cells)["FC"].items()} == {
        "ml": 3,
        "ssm_vr": 3,
        "dsm": 3,
    }
