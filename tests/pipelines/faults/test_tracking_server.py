"""A tracking server that goes away while a flow is trained."""

import time

import mlflow
import pytest

from .harness import STEPS, end, ends_well, intact, prepared, same, start, training_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

AWAY_S = 3


def check_history(uri, store):
    """Every point of the loss is there, once."""
    client = mlflow.MlflowClient(uri)
    run = client.get_run(store.summary()["mlflow_run_id"])
    history = client.get_metric_history(run.data.tags["ebflow.stage.train"], "train/loss")
    assert [metric.step for metric in history] == list(range(25, STEPS + 1, 25))


def test_one_that_comes_back_is_told_all(whole, server, tmp_path):
    store = prepared(whole, tmp_path / "here")
    process = start(store, MLFLOW_TRACKING_URI=server.uri)
    training_of(store)
    server.kill()
    time.sleep(AWAY_S)
    server.start()
    ends_well(process)
    same(store, whole)
    check_history(server.uri, store)
    intact(6)


def test_one_that_stays_away_costs_no_finished_work(whole, server, tmp_path):
    store = prepared(whole, tmp_path / "here")
    settings = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    process = start(store, "--retries", "0", **settings)
    training_of(store)
    server.kill()
    code, _, err = end(process)
    assert code == 1 and len(err) == 1
    assert server.uri.removeprefix("http://").partition(":")[0] in err[0]
    server.start()
    ends_well(start(store, **settings))
    same(store, whole)
    check_history(server.uri, store)
