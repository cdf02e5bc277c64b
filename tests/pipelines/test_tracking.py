"""MLflow, a real embedded store: states, metrics that wait, inputs, the model."""

import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from unittest.mock import Mock

import cloudpickle
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import DataType

import ebflow
from ebflow.errors import BadInput
from pipelines import metrics_log, store
from pipelines.errors import StageFailed, in_one_line
from pipelines.tracking import backend
from pipelines.tracking.models import _inputs, _parts, log_model
from pipelines.tracking.run import Reporter, StageRun
from pipelines.tracking.tracker import connect
from tests.prepared import prepare


@pytest.fixture
def tracker(tracking_home):
    return connect("tests", "pipeline-key")


@pytest.fixture
def run(tracker):
    return StageRun(tracker.client, tracker.start("run", {"ebflow.role": "pipeline"}))


def status(tracker, run_id):
    return tracker.client.get_run(run_id).info.status


ENDINGS = {ValueError(): "FAILED", BadInput("no"): "FAILED", KeyboardInterrupt(): "KILLED"}


@pytest.mark.parametrize("error, expected", ENDINGS.items(), ids=repr)
def test_an_unhappy_ending_is_told(tracker, error, expected):
    run_id, other = tracker.start("run", {}), tracker.start("other", {})
    killed = tracker.start("stage", {"mlflow.parentRunId": run_id})
    with pytest.raises(type(error)), tracker.run(run_id):
        raise error
    ended = [status(tracker, one) for one in (run_id, killed, other)]
    assert ended == [expected, "KILLED", "RUNNING"]


def test_a_happy_ending_is_told_and_found(tracker):
    run_id = tracker.start("run", {"ebflow.role": "pipeline"})
    role = {"ebflow.role": "pipeline"}
    with tracker.run(run_id):
        assert status(tracker, run_id) == "RUNNING"
        assert not tracker.runs("FINISHED", role)
    (found,) = tracker.runs("FINISHED", role)
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")


def test_a_run_is_described_in_markdown(tracker, run):
    run.command = "ebflow run x"
    run.describe("Subject.", "Results.")
    note = tracker.client.get_run(run.id).data.tags["mlflow.note.content"]
    assert note == "Subject.\n\nResults.\n\nTo reproduce it:\n\n```sh\nebflow run x\n```"


def test_what_a_killed_driver_left_running_is_reclaimed(tracker):
    own = tracker.start("run", {})
    other = connect("tests", "other-key").start("run", {})
    tracker.reclaim()
    assert (status(tracker, own), status(tracker, other)) == ("KILLED", "RUNNING")


def test_the_next_run_of_a_name_ends_one_that_was_killed(tracker):
    killed = tracker.start("mine", {"ebflow.role": "pipeline", "ebflow.name": "mine"})
    stage = tracker.start("train", {"ebflow.stage": "train"})
    later = connect("tests", "other-key")
    later.reclaim_last("another")
    with store.lock("run-pipeline-key"):  # it still runs
        later.reclaim_last("mine")
    assert [status(tracker, run_id) for run_id in (killed, stage)] == ["RUNNING"] * 2
    later.reclaim_last("mine")
    assert [status(tracker, run_id) for run_id in (killed, stage)] == ["KILLED"] * 2


def test_a_user_learns_that_mlflow_is_waited_for(home, monkeypatch):
    monkeypatch.setattr(backend, "SLOW_S", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow:5000")
    shown, waited = [], threading.Event()
    with backend.announced(lambda line: (shown.append(line), waited.set())):
        assert waited.wait(60)
    assert shown == ["waiting for MLflow at http://mlflow:5000"]


def test_what_a_killed_stage_left_running_is_reclaimed_by_the_next_try(tracker, run):
    killed, other = (
        tracker.start("train", {"ebflow.stage": "train", "ebflow.key": key})
        for key in ("key", "other")
    )
    with tracker.stage("train", "key", parent=run.id) as child:
        pass
    ended = [status(tracker, run_id) for run_id in (killed, other, run.id, child.id)]
    assert ended == ["KILLED", "RUNNING", "RUNNING", "FINISHED"]


def test_stages_and_other_children_name_their_parent(tracker, run):
    with tracker.stage("train", "key", parent=run.id) as stage:
        pass
    child = run.child("trial 000", {"ebflow.trial": "0"})
    found, tags = (tracker.client.get_run(one.id).data.tags for one in (stage, child))
    assert found["mlflow.parentRunId"] == tags["mlflow.parentRunId"] == run.id
    assert (found["ebflow.stage"], found["ebflow.key"]) == ("train", "key")
    assert tags["ebflow.pipeline_key"] == tracker.key


def test_runs_of_another_store_are_left_alone(tracker):
    elsewhere = replace(tracker, home="another store")
    theirs = elsewhere.start("run", {"ebflow.role": "pipeline"})
    tracker.reclaim()
    assert status(tracker, theirs) == "RUNNING"


def test_two_stores_that_share_a_server_may_make_an_experiment_at_once(tracker, monkeypatch):
    look, looks = MlflowClient.get_experiment_by_name, []

    def too_early(self, name):
        looks.append(name)
        return look(self, name) if len(looks) > 1 else None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", too_early)
    assert connect("tests", "another").experiment == tracker.experiment


def test_a_group_that_shares_a_store_may_write_to_its_database(home):
    before = os.umask(0o002)
    try:
        connect("tests", "key")
    finally:
        os.umask(before)
    assert (home / "mlflow.db").stat().st_mode & 0o060 == 0o060


def test_stages_of_a_kind_may_start_at_once(tracker):
    start = threading.Barrier(4)

    def begin(number):
        for parent in parents:
            start.wait(60)
            with tracker.stage("train", f"key-{number}", parent=parent):
                pass

    parents = [tracker.start("parent", {}) for _ in range(5)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))


def test_parameters_are_flat_and_many(tracker, run):
    many = {f"p{i}": i for i in range(150)}
    run.log_params({"train": {"lr": 0.5, "clip": None}, "many": many})
    found = tracker.client.get_run(run.id).data.params
    assert (found["train.lr"], found["train.clip"], found["many.p149"]) == ("0.5", "None", "149")
    assert len(found) == 152


def test_bounds_are_one_parameter_whatever_the_names_of_columns(tracker, run):
    run.log_params({"preprocess": {"bounds": {"length (cm)": (0.0, None)}}})
    params = tracker.client.get_run(run.id).data.params
    assert params == {"preprocess.bounds": "{'length (cm)': (0.0, None)}"}


def test_the_source_of_very_many_files_is_their_number(tracker, run, tmp_path):
    manifest = prepare("digits", tmp_path / "data", rows=300, validation=50, test=50)
    files = {"name": "parts", "column": None, "files": manifest.source["files"] * 700}
    run.log_input(manifest.model_copy(update={"source": files}), "training")
    (found,) = tracker.client.get_run(run.id).inputs.dataset_inputs
    assert json.loads(found.dataset.source) == {**files, "files": 700}


def row(step, kind="log", value=1.0):
    metrics = (
        {} if kind in (metrics_log.RESTARTED, metrics_log.WENT_BACK) else {f"{kind}/x": value}
    )
    return {"kind": kind, "step": step, "share": 0.5, "time": 1.0, "metrics": metrics, "note": "",
            "text": ""}  # fmt: skip


def steps(tracker, run, name):
    return [metric.step for metric in tracker.client.get_metric_history(run.id, name)]


@pytest.fixture
def reporter(run, tmp_path):
    return Reporter(tmp_path / metrics_log.FILE, run)


def arrived(tracker, run, name, expected):
    """Waits until MLflow has a metric at the expected steps."""
    while steps(tracker, run, name) != expected:
        time.sleep(0.01)


def test_rows_go_to_mlflow_while_a_training_runs(tracker, run, reporter):
    reporter.log([row(1), row(2)])
    arrived(tracker, run, "log/x", [1, 2])
    assert [row["step"] for row in metrics_log.read(reporter.file)] == [1, 2]


def test_what_a_restarted_training_repeats_is_sent_once(tracker, run, reporter):
    """Its times differ, which makes it no other curve."""
    timed = {**row(2), "metrics": {"log/x": 1.0, "time/train_s": 1.0}}
    again = {**timed, "metrics": {"log/x": 1.0, "time/train_s": 2.0}}
    reporter.log([row(1), timed, row(2, "validate")])
    arrived(tracker, run, "validate/x", [2])
    reporter.log([row(1, metrics_log.RESTARTED), again, row(3), row(2, "validate")])
    first = run.id
    reporter.finish()
    assert run.id == first
    assert steps(tracker, run, "log/x") == [1, 2, 3]
    assert steps(tracker, run, "validate/x") == steps(tracker, run, "time/train_s") == [2]


def test_a_stage_that_is_tried_again_has_the_whole_curve(tracker, run, tmp_path):
    metrics_log.append(tmp_path / metrics_log.FILE, [row(1), row(2)])
    reporter = Reporter(tmp_path / metrics_log.FILE, run)
    arrived(tracker, run, "log/x", [1, 2])
    reporter.log([row(2), row(3)])
    reporter.finish()
    assert steps(tracker, run, "log/x") == [1, 2, 3]


DISCARDED = {
    "a loss that was not finite": (metrics_log.WENT_BACK, [row(2, value=2.0), row(3, value=3.0)]),
    "a restart that ended earlier": (metrics_log.RESTARTED, [row(2, value=9.0)]),
    "a restart with other losses": (metrics_log.RESTARTED, [row(2, value=2.0), row(3, value=9.0)]),
}


@pytest.mark.parametrize("kind, repeated", DISCARDED.values(), ids=DISCARDED)
def test_a_curve_that_was_discarded_stays_in_a_run_that_failed(
    tracker, run, tmp_path, kind, repeated
):
    parent = run.id
    with tracker.stage("train", "key", parent=parent) as stage:
        stage.log_params({"lr": 0.5})
        first, reporter = stage.id, Reporter(tmp_path / metrics_log.FILE, stage)
        reporter.log([row(1, value=1.0), row(2, value=9.0), row(3, value=9.0)])
        arrived(tracker, stage, "log/x", [1, 2, 3])
        reporter.log([row(1, kind), *repeated])
        reporter.finish()
    client = tracker.client
    history = client.get_metric_history(stage.id, "log/x")
    expected = [(1, 1.0), *((one["step"], one["metrics"]["log/x"]) for one in repeated)]
    assert [(point.step, point.value) for point in history] == expected
    assert (status(tracker, first), status(tracker, stage.id)) == ("FAILED", "FINISHED")
    data = client.get_run(stage.id).data
    assert data.params == {"lr": "0.5"} and data.tags["mlflow.parentRunId"] == parent


def test_a_reporter_goes_on_in_another_process(tracker, run, reporter):
    """Ray Train's controller gets a copy."""
    reporter.log([row(1)])
    arrived(tracker, run, "log/x", [1])
    cloudpickle.loads(cloudpickle.dumps(reporter)).log([row(1), row(2)])
    arrived(tracker, run, "log/x", [1, 2])


def test_what_is_sent_twice_is_kept_once(tracker, run):
    for _ in range(2):
        run.log_rows([row(1), row(2)])
    assert steps(tracker, run, "log/x") == [1, 2]


def test_metrics_are_listed_in_the_order_in_which_they_came(tracker, run):
    run.log_metrics({"test/nll": 1.0, "best/nll": 2.0})
    run.log_rows([row(1, "validate"), row(1)])
    found = tracker.client.get_run(run.id).data.metrics
    assert list(found) == ["test/nll", "best/nll", "validate/x", "log/x"]


def test_a_metric_that_was_not_measured_is_left_out(tracker, run):
    run.log_metrics({"nll": 1.0, "nll_se": None, "gain_se": float("nan")})
    assert tracker.client.get_run(run.id).data.metrics == {"nll": 1.0}


def test_every_run_has_system_tags(tracker, run):
    tags = tracker.client.get_run(run.id).data.tags
    assert tags["ebflow.pipeline"] == "tests"
    assert tags["mlflow.user"] == psutil.Process().username()
    assert tags["mlflow.source.name"] == f"ebflow {ebflow.__version__}"
    assert re.fullmatch(r"[0-9a-f]{40}\+?", tags["mlflow.source.git.commit"])


def test_a_data_set_is_an_input_by_whose_digest_runs_are_found(tracker, tmp_path):
    manifests = [
        prepare("digits", tmp_path / str(seed), rows=300, validation=50, test=50, seed=seed)
        for seed in (0, 1)
    ]
    ids = []
    for manifest in (manifests[0], manifests[1], manifests[0]):
        made = StageRun(tracker.client, tracker.start("run", {}))
        made.log_input(manifest, "training")
        ids.append(made.id)
    first = tracker.client.get_run(ids[0]).inputs.dataset_inputs[0]
    assert first.dataset.digest == manifests[0].digest[:36]
    assert json.loads(first.dataset.profile)["sha256"] == manifests[0].digest
    assert first.tags[0].value == "training"
    found = tracker.client.search_runs(
        [tracker.experiment], f"dataset.digest = '{manifests[0].digest[:36]}'"
    )
    assert {same.info.run_id for same in found} == {ids[0], ids[2]}


class Away:
    """A client whose store is away for a while; its threads tell nobody."""

    def __init__(self, client):
        self.client, self.away = client, True

    def __getattr__(self, name):
        return getattr(self.client, name)

    def log_batch(self, *words, synchronous=True, **batch):
        if not self.away:
            self.client.log_batch(*words, synchronous=synchronous, **batch)
        elif synchronous:
            raise MlflowException("away")


@pytest.fixture
def away(run):
    run.client = Away(run.client)
    return run.client


def test_what_did_not_arrive_is_sent_at_the_end(tracker, run, reporter, away):
    reporter.log([row(1), row(2)])
    away.away = False
    reporter.log([row(3)])
    arrived(tracker, run, "log/x", [3])
    reporter.finish()
    assert steps(tracker, run, "log/x") == [1, 2, 3]


class Raced(Away):
    """A client that refuses a batch as MLflow does if another thread inserts the same points.

    Arguments:
        client: The client.
        arriving: How many of the points the other thread has inserted, at most.
    """

    def __init__(self, client, arriving):
        self.client, self.arriving = client, arriving

    def log_batch(self, run_id, metrics, **_):
        present, self.arriving = metrics[: self.arriving], 0
        self.client.log_batch(run_id, metrics=present)
        if present:
            raise MlflowException("UNIQUE constraint failed", error_code=BAD_REQUEST)
        self.client.log_batch(run_id, metrics=metrics)


def test_points_that_arrive_while_the_rest_is_sent_are_no_error(tracker, run, reporter):
    metrics_log.append(reporter.file, [row(step) for step in range(4)])
    run.client = Raced(run.client, 2)
    reporter.finish()
    assert steps(tracker, run, "log/x") == [0, 1, 2, 3]


def test_a_refusal_although_nothing_has_arrived_is_an_error(run, reporter, monkeypatch):
    metrics_log.append(reporter.file, [row(1)])
    refusal = MlflowException("too long", error_code=BAD_REQUEST)
    monkeypatch.setattr(run, "log_rows", Mock(side_effect=refusal))
    with pytest.raises(MlflowException, match="too long"):
        reporter.finish()


def test_metrics_that_never_arrived_are_not_passed_over(reporter, away):
    reporter.log([row(1)])
    with pytest.raises(MlflowException, match="away"):
        reporter.finish()


@pytest.mark.parametrize("user", ["", "me:secret@"])
def test_a_store_that_cannot_be_reached_is_one_line_without_password(home, monkeypatch, user):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{user}127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StageFailed) as caught:
        connect("tests", "key")
    assert str(caught.value) == "MLflow at http://127.0.0.1:9: [Errno 111] Connection refused"


def test_a_failed_request_shows_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@h:5000")
    error = MlflowException("API request to http://me:secret@h:5000/api failed")
    assert "API request to http://h:5000/api failed" in in_one_line(error)


def test_the_model_is_code_without_pickle_named_after_its_run(tracker, tmp_path):
    run = StageRun(tracker.client, tracker.start("digits · dsm σ 0.3", {}))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.json").write_text("{}")
    log_model(run, tmp_path / "checkpoint", np.zeros((2, 64), dtype=np.uint8))
    files = {path.name for path in (store.home() / "mlartifacts" / "models").rglob("*")}
    assert {"MLmodel", "model.py", "state.json", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt"))]
    (model,) = tracker.client.search_logged_models([tracker.experiment])
    assert model.name == "digits · dsm σ 0-3"


def test_the_signature_of_columns_that_lack_values():
    columns = {"city": [None, "Bern"], "member": [None, True], "age": [np.nan, 3.0],
               "id": [None, None]}  # fmt: skip
    types = [column.type for column in _inputs(pd.DataFrame(columns)).inputs]
    assert types == [DataType.string, DataType.boolean, DataType.double, DataType.string]


def test_decimals_are_doubles_in_a_model(tmp_path):
    parts = _parts(tmp_path, pd.DataFrame({"price": [None, Decimal("1.5")]}))
    assert parts["input_example"]["price"].dtype == float
    assert parts["signature"].inputs.input_types() == [DataType.double]
