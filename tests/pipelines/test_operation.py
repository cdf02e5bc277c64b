"""Health checks, logs, and what is deleted beside a pipeline that runs, on real systems."""

import os
import signal
import time

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from pipelines.cli import doctor

from .conftest import QUICK

DISK = psutil.disk_partitions(all=True)[0]
NFS = [DISK._replace(mountpoint="/", fstype="nfs4")]

# What is broken: where it is changed, to what, and two parts of the line about it
BROKEN = {
    "versions": (doctor, "requires", lambda _: ["torch>=99"], "torch: found 2.", "expected >=99"),
    "store": (os.environ, "EBFLOW_HOME", "/dev/null/store", "found the file /dev/null", ""),
    "bucket": (os.environ, "EBFLOW_STORAGE", "s3://me:secret@bucket/x", "found a user", ""),
    "MLflow": (os.environ, "MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "Connection refused", ""),
    "SQLite": (psutil, "disk_partitions", lambda all: NFS, "nfs4, where SQLite is not safe", ""),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_doctor_names_what_is_broken(tracking_home, ebflow, monkeypatch, broken):
    place, name, value, *texts = BROKEN[broken]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (monkeypatch.setitem if place is os.environ else monkeypatch.setattr)(place, name, value)
    monkeypatch.setattr(doctor, "_ray", str)
    result = ebflow("doctor")
    (wrong,) = [line for line in result.out if line.startswith("✗")]
    assert result.code == 1 and all(text in wrong for text in texts)
    assert sum(line.startswith("✓") for line in result.out) >= 2


@pytest.mark.slow  # its process must not have used Ray with another token
def test_doctor_passes_a_server_and_a_ray_that_work_and_sees_when_the_server_dies(
    home, server, ebflow, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    result = ebflow("doctor")
    checks = [line.split()[:2] for line in result.out]
    names = ["versions", "store", "MLflow", "Ray"]
    assert (result.code, checks) == (0, [["✓", name] for name in names])
    assert not MlflowClient(server.uri).search_runs(["0"], run_view_type=ViewType.ALL)
    assert server.uri in result.out[2] and "CPU, 0 GPU)" in result.out[3]
    server.kill()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(doctor, "_ray", str)
    assert f"✗ MLflow    MLflow at {server.uri}: " in ebflow("doctor").text


def test_the_log_of_a_run_is_found_by_its_name_and_by_its_id(digits):
    run_id = digits.summary()["mlflow_run_id"]
    by_name, by_id = digits.run("logs", "digits"), digits.run("logs", run_id[:6])
    assert (
        "alembic" not in by_name
        and by_id in by_name
        and f" MLflow run {run_id} at " in by_id.splitlines()[0]
    )
    process = digits.start("logs", "nothing")
    assert "found no 'nothing', expected digits" in process.communicate()[1]


def age(root, days):
    """Makes all files of a store older."""
    for path in (path for path in root.rglob("*") if path.is_file()):
        seconds = path.stat().st_mtime - days * 86400
        os.utime(path, (seconds, seconds))


def artefacts(home):
    return {path.parent.name: path for path in (home / "artefacts").glob("*/*.json")}


def test_prune_leaves_what_a_running_pipeline_uses(digits, tmp_path):
    """It uses prepared data and preprocessing of an old run; the old training goes."""
    store = digits.copy(tmp_path)
    before = store.summary()["test/nll"]
    age(store.home, 30)
    running = store.start("run", "density", "--train.steps", "100000", "--name", "long")
    deadline = time.monotonic() + store.patience
    while not [*(store.home / "work" / "train").glob("*/checkpoints")]:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    try:
        planned = store.run("store", "prune", "--days", "0", "--dry-run")
        assert {*artefacts(store.home)} == {"prepare", "preprocess", "train", "evaluate", "report"}
        done = store.run("store", "prune", "--days", "0")
        assert planned.replace("would be deleted", "to delete") == done
        assert {*artefacts(store.home)} == {"prepare", "preprocess"} and running.poll() is None
    finally:
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=store.patience)
    assert "interrupted; resume with" in err, out + err
    assert [*(store.home / "work" / "train").glob("*")]
    again = store.run("run", "density", *QUICK)
    assert "prepare cached, preprocess cached, train ran" in " ".join(again.split())
    assert store.summary()["test/nll"] == before
