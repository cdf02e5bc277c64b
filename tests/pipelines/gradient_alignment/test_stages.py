"""Stages: interrupted and resumed, on other nodes, with trainings that diverge or collapse."""

import json

import pytest

from ebflow.train import Trainer
from pipelines import metrics_log
from pipelines.cluster import environment
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import classify, flow, measure, reference
from pipelines.gradient_alignment.config import FlowConfig, MeasureConfig
from pipelines.gradient_alignment.reference import unit_rows
from pipelines.training import loop
from pipelines.training.checkpoints import Checkpoints

from ..untracked import Untracked
from .cases import QUICK

FAST = FlowConfig(
    label=1, copies=4, training={"preprocess": {"logit": None, "shrinkage": 0.01},
                                "objective": {"name": "lazy_ml"},
                                "train": {"steps": 40, "validate_every": 10}},
)  # fmt: skip


class Stop(Exception):
    """Ends a stage in its middle."""


def runs(stage, config, *inputs, folder):
    """Runs a stage in a folder; returns its run."""
    run = Untracked(folder / "out", folder / "work")
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    body = getattr(stage, stage.__name__.rpartition(".")[2])
    body(config, *inputs, run=run)
    return run


def stopping(function, count):
    """Returns a function that stops at that call."""
    calls = []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            raise Stop
        return function(*arguments, **options)

    return stopped


def outcome(folder):
    return json.loads((folder / "out" / classify.OUTCOME).read_text())


def test_a_classifier_is_trained_though_its_rows_go_to_another_node(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "append", lambda path, rows: None)
    runs(classify, QUICK, digits, folder=tmp_path)
    assert outcome(tmp_path)["diagnosis"] == "" and outcome(tmp_path)["trace"] < 0


def test_a_collapse_is_diagnosed_by_name(digits, tmp_path):
    """Data said to be smoothed by 100 have a floor that any network is below."""
    runs(classify, QUICK.changed(smoothing=100.0), digits, folder=tmp_path)
    diagnosis = outcome(tmp_path)["diagnosis"]
    assert diagnosis.startswith("collapse: mean trace -") and "the floor -0.0064" in diagnosis


def test_a_divergence_is_diagnosed_and_has_no_numbers(digits, tmp_path):
    runs(classify, QUICK.changed(lr=1e30), digits, folder=tmp_path / "trained")
    assert outcome(tmp_path / "trained")["diagnosis"].startswith("diverged: loss: found")
    trained = [tmp_path / "trained" / "out"] * 3
    runs(measure, MeasureConfig(), digits, [], tmp_path, *trained, folder=tmp_path / "measured")
    stored = json.loads((tmp_path / "measured" / "out" / "numbers.json").read_text())
    assert stored["numbers"] == {} and stored["diagnosis"].startswith("diverged")


def test_an_interrupted_flow_resumes_to_the_same_weights(digits, home, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    whole = runs(flow, FAST, digits, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", stopping(Trainer.validate, 3))
        with pytest.raises(Stop):
            runs(flow, FAST, digits, folder=tmp_path / "parts")
    assert Checkpoints(tmp_path / "parts" / "work" / loop.CHECKPOINTS).newest()[0] > 0
    parts = runs(flow, FAST, digits, folder=tmp_path / "parts")
    logged = [[row["step"] for row in run.rows if row["metrics"]] for run in (whole, parts)]
    assert logged[0] == logged[1]
    one, other = (
        (tmp_path / k / "out" / "checkpoint" / "ema.safetensors").read_bytes()
        for k in ("whole", "parts")
    )
    assert one == other


def test_a_flow_is_trained_where_checkpoints_go_to_a_storage(digits, home, tmp_path, monkeypatch):
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/bucket")
    monkeypatch.setenv(environment.LOOPBACK_ALONE, "0")
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    folder = home / "work" / "flow" / "key"
    runs(flow, FAST, digits, folder=folder)
    assert (folder / "out" / "checkpoint" / "ema.safetensors").exists()
    assert list((tmp_path / "bucket").rglob("*"))


def test_every_seed_has_its_own_points_if_there_are_more_rows(digits):
    dataset = Dataset(digits)

    def chosen(count, seed):
        return reference.of_split(MeasureConfig(points=count, seed=seed), dataset, "test")

    first, again, other = (chosen(50, seed) for seed in (0, 0, 1))
    rows = unit_rows(dataset.split("test"))
    assert first.clean.equal(again.clean) and not first.clean.equal(other.clean)
    assert chosen(1000, 0).clean.equal(rows)
    places = [(rows == row).all(1).nonzero()[0].item() for row in first.clean]
    assert places == sorted(places) and len(set(places)) == 50
    assert dataset.split("test").labels()[places].equal(first.labels)
