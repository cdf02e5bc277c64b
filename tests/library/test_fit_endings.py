"""How a fit ends: its report, time limits, interruptions, and trainings that do not improve."""

from unittest.mock import Mock

import pytest
import torch

import ebflow
from ebflow.errors import NonFinite

from .bijections.cases import seeded
from .test_fitting import FEW, SMALL, nll, rows

pytestmark = pytest.mark.usefixtures("single_precision")


def test_the_report_says_why_training_ended(tmp_path):
    flow = ebflow.fit(rows(), **{**SMALL, "steps": 150})
    report, best = flow.report, min(r["val/nll"] for r in flow.history if "val/nll" in r)
    assert (report.ended, report.steps, report.nll) == ("steps", 150, best)
    assert report.architecture == "autoregressive" and report.recipe["name"] == "tabular"
    assert "best validation NLL" in str(report) and "random" not in str(report)
    ebflow.save(flow, tmp_path / "flow")
    assert ebflow.load(tmp_path / "flow").report == report


def test_a_report_has_the_likelihood_of_all_validation_rows(monkeypatch):
    monkeypatch.setattr(ebflow.train, "VALIDATED", 20)
    flow = ebflow.fit(rows(), **SMALL)
    order = torch.randperm(400, generator=ebflow.randomness.generator(0, "validation"))
    assert nll(flow, rows()[order[:40]]) == pytest.approx(flow.report.nll, abs=1e-4)
    assert "20 random validation rows chose the step" in str(flow.report)


def test_a_row_without_likelihood_beyond_those_that_chose_the_step_loses_no_flow(monkeypatch):
    monkeypatch.setattr(ebflow.train, "VALIDATED", 20)
    monkeypatch.setattr(ebflow.train, "evaluate", Mock(side_effect=NonFinite("row 7: -inf")))
    with pytest.warns(RuntimeWarning, match="the NLL is that of 20 of 40 validation rows"):
        flow = ebflow.fit(rows(), **SMALL)
    assert flow.report.nll == min(r["val/nll"] for r in flow.history if "val/nll" in r)


def test_patience_and_interruptions_are_reported():
    harsh = {**FEW, "steps": 400, "patience": 1, "lr": 1.0, "architecture": "dense"}
    assert ebflow.fit(rows(), **harsh).report.ended == "patience"

    def interrupt(event):
        if event.step > 5 and event.kind != "end":
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted"):
        flow = ebflow.fit(rows(), callback=interrupt, **SMALL)
    assert flow.report.ended == "interrupted" and flow.log_prob(rows()).isfinite().all()


def costing(turn, seconds):
    """Returns a loss whose every step takes seconds of the clock that the test turns."""

    def loss(density, x, generator, progress):
        turn(seconds)
        at = density.at(x)
        return at.energy + density.log_normalizer(), at

    return loss


def test_a_time_limit_covers_preprocessing_and_validations(turn, monkeypatch):
    """Preprocessing takes 30 s, the optimizer 10 s, a step 1 s, a validation 5 s."""
    fit_front, log_probs = ebflow.preprocessing.fit, ebflow.train.log_probs

    def slow(seconds, function):
        def call(*arguments, **options):
            turn(seconds)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(ebflow.preprocessing, "fit", slow(30, fit_front))
    monkeypatch.setattr(ebflow.train, "log_probs", slow(5, log_probs))
    options = {"architecture": "dense", "patience": None, "progress": False, "marginals": False}
    options["optimizer"] = slow(10, torch.optim.SGD)
    flow = ebflow.fit(rows(), loss=costing(turn, 1), max_seconds=100, batch_size=64, **options)
    assert flow.report.ended == "seconds" and 80 <= flow.report.seconds <= 101
    assert 30 <= flow.report.steps <= 55
    flow = ebflow.fit(rows(), loss=costing(turn, 1), max_seconds=20, batch_size=64, **options)
    assert flow.report.ended == "seconds" and flow.report.steps == 0 and flow.report.seconds < 50


def test_seconds_alone_end_a_training_without_steps(turn, monkeypatch):
    monkeypatch.setattr(ebflow.recipes, "LEAST_STEPS", 20)
    monkeypatch.setattr(ebflow.recipes, "LEAST_EPOCHS", 1)
    options = {"architecture": "dense", "patience": None, "progress": False, "marginals": False}
    assert ebflow.fit(rows(40), batch_size=8, **options).report.steps == 20
    flow = ebflow.fit(rows(40), loss=costing(turn, 1), max_seconds=60, batch_size=8, **options)
    assert flow.report.ended == "seconds" and flow.report.steps > 50


def test_a_limit_below_one_epoch_is_reported(turn):
    options = {"architecture": "dense", "patience": None, "progress": False, "marginals": False}
    with pytest.warns(RuntimeWarning, match="of one pass over the rows: raise max_seconds"):
        ebflow.fit(rows(), loss=costing(turn, 1), max_seconds=3, batch_size=8, **options)


@pytest.mark.system
def test_a_training_that_never_improves_returns_its_start():
    """50 rows of 40 independent normals: nothing is to be learned beyond the shrunken Gaussian."""
    x, fresh = torch.randn(50, 40, generator=seeded(0)), torch.randn(2000, 40, generator=seeded(1))
    options = {"architecture": "dense", "marginals": False, "progress": False, "patience": None}
    start = ebflow.fit(x, steps=1, lr=1e-30, **options)
    with pytest.warns(RuntimeWarning, match="no step of the training improved on its start"):
        flow = ebflow.fit(x, steps=200, **options)
    assert flow.report.best_step == 0 and nll(flow, fresh) == pytest.approx(nll(start, fresh))


def test_a_divergence_without_improvement_returns_the_start():
    wild = {**FEW, "architecture": "dense", "lr": 1e12, "steps": 30}
    with pytest.warns(RuntimeWarning, match="no step of the training improved on its start"):
        flow = ebflow.fit(rows(), **wild)
    assert flow.report.ended == "diverged" and flow.log_prob(rows()).isfinite().all()
