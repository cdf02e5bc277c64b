"""Many processes that log to one store at once lose nothing: embedded, and by a real server."""

import os
import subprocess
import sys
import time

import mlflow
import pytest

from pipelines.tracking.tracker import connect

# A process that logs points, some at a time, once it is told to
LOG = """
import sys, time
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect
tracker = connect("tests", sys.argv[1])
run = StageRun(tracker.client, tracker.start("trial", {}))
points, batch = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
input()
for first in range(0, points, batch):
    steps = range(first, min(first + batch, points))
    run.log_rows({"step": s, "time": time.time(), "metrics": {"train/loss": s}} for s in steps)
print(run.id)
"""


def points_per_second(processes, points, batch, environment):
    """Logs from many processes at once; returns the runs' ids, and points/s of them all."""
    command = [sys.executable, "-c", LOG]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    logging = [
        subprocess.Popen([*command, str(i), str(points), str(batch)], env=environment, **pipes)
        for i in range(processes)
    ]
    for process in logging:
        assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for process in logging:
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = [process.communicate()[0].strip() for process in logging]
    assert {process.returncode for process in logging} == {0}
    return ids, processes * points / (time.monotonic() - began)


def check(ids, uri, points):
    client = mlflow.MlflowClient(uri)
    for run_id in ids:
        history = client.get_metric_history(run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == [(s, s) for s in range(points)]


@pytest.mark.system
def test_three_processes_make_one_store_at_once_and_lose_nothing(home):
    ids, _ = points_per_second(3, 50, 5, dict(os.environ))
    tracker = connect("tests", "key")
    runs = [tracker.client.get_run(run_id) for run_id in ids]
    assert {run.info.experiment_id for run in runs} == {tracker.experiment}
    check(ids, tracker.client.tracking_uri, 50)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("where", ["embedded", "server"])
def test_sixteen_processes_of_a_thousand_points_lose_nothing(
    where, batch, tracking_home, request, record_property
):
    environment, uri = dict(os.environ), f"sqlite:///{tracking_home / 'mlflow.db'}"
    if where == "server":
        uri = request.getfixturevalue("server").uri
        environment["MLFLOW_TRACKING_URI"] = uri
    ids, rate = points_per_second(16, 1000, batch, environment)
    check(ids, uri, 1000)
    record_property("points_per_second", rate)
    print(f"{where}, {batch} points at a time: {rate:.0f} points/s")
