"""Checks of the paper's formulas: that they pass, and that an error would be seen."""

import json
from types import SimpleNamespace

import pytest

from ebflow.flow import Flow
from pipelines.paper.cell import Finished
from pipelines.paper.config import FormulasConfig, PaperConfig
from pipelines.paper.experiments.formulas import CHECKS, FORMULAS, conclude
from pipelines.paper.formulas import formulas


def measured(repeats=100):
    metrics = {}
    run = SimpleNamespace(log_params=lambda params: None, write_metrics=metrics.update)
    formulas(FormulasConfig(repeats=repeats), run=run)
    return metrics


def concluded(folder, metrics):
    (cell,) = FORMULAS.all_cells(PaperConfig(experiment="formulas", scale="smoke"))
    (folder / "evaluation.json").write_text(json.dumps(metrics))
    return conclude([Finished(cell, {"measured": folder})]).checks


@pytest.fixture(scope="module")
def metrics():
    return measured()


def test_every_formula_is_what_another_way_computes(tmp_path, metrics):
    checks = concluded(tmp_path, {**metrics, "study/data_sets_missing": 0.0})
    assert {check.check: check.verdict for check in checks if not check.passed} == {}
    assert len(checks) == len(CHECKS) and {check.item for check in checks} == {"E1", "E13", "E14"}


def test_bounds_of_integers_are_below_their_probability(metrics):
    assert 0 <= metrics["study/gap_weighted"] < metrics["study/gap_mean"]


def test_a_wrong_normalizer_is_seen(tmp_path, monkeypatch):
    right = Flow.log_normalizer
    monkeypatch.setattr(Flow, "log_normalizer", lambda flow: right(flow) + 1e-6)
    checks = concluded(tmp_path, measured(repeats=10))
    failed = {check.check for check in checks if check.passed is False}
    assert "Energy and normalizer are the log-density." in failed
    assert "The score is the gradient of the log-density." not in failed


def test_a_missing_data_set_is_seen(tmp_path, metrics):
    checks = concluded(tmp_path, {**metrics, "study/data_sets_missing": 1.0})
    assert [check.item for check in checks if not check.passed] == ["E13"]
