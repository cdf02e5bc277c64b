"""The ablation: what each change is, paired losses over rows and seeds, verdicts and figures."""

import json
import math

import numpy as np
import pytest

from ebflow.errors import BadInput
from pipelines import metrics_log
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.ablation import (
    ABLATION,
    BOUND,
    CHANGES,
    MATCHING,
    NUMBERS,
    UNBOUNDED,
    conclude,
    figures,
    gradient_norms,
    losses,
    rows,
)

CONFIG = PaperConfig(experiment="ablation", source="digits", scale="full")
D = 64

# NLL above that of the published settings, in nats a dimension.
ABOVE = {"no-map": 2.0, "no-ema-no-map": 2.5, "no-ema": 0.001, "positive-start": -0.5}


def cells(**options):
    found = ABLATION.all_cells(CONFIG.changed(**options))
    return {tuple(cell.labels.values()): cell for cell in found}


def finished(folder, seeds=1):
    """Cells whose NLL is known, with gradients of norm 3 at each logged step."""
    found = []
    rng = np.random.default_rng(0)
    test = rng.normal(size=200)
    for cell in ABLATION.all_cells(CONFIG.changed(networks=("FC",), seeds=seeds)):
        place = folder / f"{len(found)}"
        place.mkdir()
        noise = 1e-4 * rng.normal(size=200)
        log_probs = D * (test - ABOVE.get(cell.labels["settings"], 0.0) + noise)
        np.savez(place / "log_probs.npz", test=log_probs)
        nll = float(-log_probs.mean())
        metrics = {"test/nll": nll, "test/bpd": nll / (D * math.log(2))}
        (place / "evaluation.json").write_text(json.dumps(metrics))
        (place / "training.json").write_text(json.dumps({"metrics": {"train/steps": 200}}))
        logged = [
            metrics_log.row("log", step, step / 20, metrics={"train/grad_norm": 3.0})
            for step in (10, 20)
        ]
        metrics_log.append(place / metrics_log.FILE, logged)
        found.append(Finished(cell, {"trained": place, "likelihood": place}))
    return found


def test_each_change_is_of_one_setting():
    found = cells()
    assert len(found) == 2 * len(CHANGES) * len(MATCHING)
    for network, settings, objective in found:
        flow, plain = (found[network, name, objective].config for name in (settings, "published"))
        assert flow.preprocess.match_after == ("no-map" not in settings)
        assert flow.train.ema_decay == (0.0 if "no-ema" in settings else plain.train.ema_decay)
        assert flow.model.sign == (1 if settings == "positive-start" else -1)
        assert (flow.train.schedule == "constant") == (settings == "constant-rate")
        clipped = (objective == "fd_ssm") != (settings == "clipping")
        assert flow.train.clip == (BOUND if clipped else UNBOUNDED)
        assert flow.train.epoch == 500 and flow.objective == plain.objective


def test_published_numbers_are_beside_their_cells():
    found = cells()
    assert found["FC", "no-map", "dsm"].published == 4455.0
    assert found["CNN", "no-ema-no-map", "fd_ssm"].published == 3593.3
    assert found["CNN", "no-ema", "dsm"].published is None
    numbers = [cell.published for cell in found.values() if cell.published]
    assert len(numbers) == 3 * len(NUMBERS)


def test_a_short_run_has_one_network_and_one_objective_unless_others_are_chosen():
    assert len(cells(scale="smoke")) == len(CHANGES)
    more = cells(scale="smoke", networks=("FC", "CNN"), settings=("no-map",))
    assert [*more] == [("FC", "no-map", "dsm"), ("CNN", "no-map", "dsm")]
    with pytest.raises(BadInput, match="--settings"):
        cells(settings=("no-sign",))


@pytest.mark.parametrize("seeds", [1, 3])
def test_losses_are_of_the_same_rows(tmp_path, seeds):
    found = finished(tmp_path, seeds)
    for settings, above in ABOVE.items():
        loss = losses(found, ("FC", settings, "dsm"), ("FC", "published", "dsm"))
        assert loss.value == pytest.approx(above, abs=1e-4)
        assert loss.df == (199 if seeds == 1 else 2)
    assert losses(found, ("CNN", "no-map", "dsm"), ("CNN", "published", "dsm")) is None


def test_verdicts_are_about_thresholds_in_nats_a_dimension(tmp_path):
    found = finished(tmp_path)
    claims = conclude(found).claims
    assert len(claims) == 6 * len(MATCHING)
    verdicts = [claim.verdict for claim in claims if "dsm" in claim.claim]
    assert verdicts == ["holds"] * 5 + ["does not hold"]
    (row,) = [row for row in rows(found)
              if [*row["labels"].values()] == ["FC", "no-map", "ssm_vr"]]  # fmt: skip
    assert row["loss"] == pytest.approx(2.0, abs=1e-3) and row["published"] == 1720.5


def test_matching_has_to_matter(tmp_path, monkeypatch):
    monkeypatch.setitem(ABOVE, "no-map", 0.09)
    first = conclude(finished(tmp_path)).claims[0]
    assert first.verdict == "does not hold" and "matching" in first.claim


def test_figures_show_losses_and_norms_of_gradients(tmp_path):
    found = finished(tmp_path)
    assert gradient_norms(found[0]) == ([10, 20], [3.0, 3.0])
    assert [*figures(rows(found), found)] == ["ablation", "gradients"]
