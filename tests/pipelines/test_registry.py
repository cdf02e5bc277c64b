"""Models that are registered on request, in a real embedded store."""

import mlflow
import numpy as np
import pytest

from pipelines.cli.run import check_names
from pipelines.tracking.models import log_model, register
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect

from .conftest import NO_RAY, QUICK

BAD = {
    "slash": ("--register a/b", "--register: found 'a/b', expected letters, digits, '.', '_'"),
    "no name": ("--register  --alias a", "Missing value for argument '--register'"),
    "alone": ("--alias champion", "--alias: found 'champion' without --register, expected both"),
    "latest": ("--register a --alias Latest", "--alias: found 'Latest', expected letters"),
    "version": ("--register a --alias v12", "--alias: found 'v12', expected letters"),
    "colon": ("--register a --alias x:y", "--alias: found 'x:y', expected letters"),
}


@pytest.mark.parametrize("words, line", BAD.values(), ids=BAD)
def test_a_bad_name_is_one_line_and_nothing_runs(home, ebflow, words, line):
    result = ebflow("run", "density", *words.split())
    assert line in result.refusal
    assert not home.exists()


def test_good_names():
    check_names("digits-flow.2", "champion")
    check_names(None, None)


@pytest.fixture
def logged(tracking_home, tmp_path):
    """Makes runs that logged a model; returns the id of one."""
    tracker = connect("tests", "key")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text("{}")

    def make():
        run = StageRun(tracker.client, tracker.start("run", {}))
        log_model(run, checkpoint, np.zeros((2, 64), dtype=np.uint8))
        return run.id

    return tracker.client, make


def test_a_model_is_registered_once_a_run_and_an_alias_moves(logged):
    client, make = logged
    first, second = make(), make()
    assert register(first, "flow", "champion") == "flow, version 1: models:/flow@champion"
    assert register(first, "flow", None) == "flow, version 1: models:/flow/1"
    assert register(second, "flow", "champion") == "flow, version 2: models:/flow@champion"
    assert client.get_model_version_by_alias("flow", "champion").run_id == second
    assert client.get_model_version("flow", "1").aliases == []


def test_two_may_make_a_registered_model_at_once(logged, monkeypatch):
    client, make = logged
    client.create_registered_model("flow")
    monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", lambda *_: [])
    assert register(make(), "flow", None) == "flow, version 1: models:/flow/1"


@pytest.mark.slow
def test_a_finished_run_is_registered_without_running_anything(digits, tmp_path):
    store = digits.copy(tmp_path / "copy")
    words = ("--register", "digits-flow", "--alias", "champion")
    printed = store.run("run", "density", *QUICK, *words, **NO_RAY)
    line = "registered    digits-flow, version 1: models:/digits-flow@champion"
    assert line in printed.splitlines()
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    found = client.get_model_version_by_alias("digits-flow", "champion")
    assert found.run_id == store.summary()["mlflow_run_id"]
