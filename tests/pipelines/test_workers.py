"""Workers that Ray Train launches: what they reserve, and what becomes of their failures."""

import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import ray.train.torch
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)
from ray.train.v2._internal.execution.controller.state import ReschedulingState, SchedulingState
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus
from ray.train.v2.api.exceptions import ControllerError

from ebflow.errors import BadInput, NonFinite
from pipelines import metrics_log
from pipelines.config import ClusterConfig, TrainConfig, Training
from pipelines.errors import StageFailed, failure
from pipelines.tracking.run import Reporter
from pipelines.training import launch, reports
from pipelines.training.loop import WorkerContext
from pipelines.training.reports import FailureLimit, Reports

from .nodes import ROOT

SHORT = TrainConfig(steps=12, batch_size=32, validate_every=6, log_every=3, dtype="float64")


def test_workers_that_wait_for_a_cluster_are_a_line(monkeypatch):
    free, lines = {"CPU": 8.0}, []
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    monkeypatch.setattr(launch, "embedded", lambda: False)
    reporter = SimpleNamespace(progress=lambda share, text, note: lines.append(note))
    config = Training(train={"threads": 2}, cluster=ClusterConfig(workers=4))
    launch._report_wait(config, reporter)
    free["CPU"] = 7.0
    launch._report_wait(config, reporter)
    assert lines == ["waits for 4 workers, each with 2 CPU (`ray status`)"]


@pytest.mark.parametrize("error", [WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError])
def test_starts_that_fail_end_a_training_and_those_that_wait_do_not(error):
    limit, state = FailureLimit(Reports(None), 2), ReschedulingState(ControllerError(error(2)))
    expected = error is WorkerGroupStartupFailedError
    with pytest.raises(StageFailed, match="workers fail to start") if expected else nullcontext():
        for start in range(2 * reports.START_LIMIT):
            if start == reports.START_LIMIT - 1:
                limit.after_worker_group_start(group_on("a"))
            limit.after_controller_state_update(SchedulingState(None), state)
    assert start == (2 * reports.START_LIMIT - 1)


@pytest.mark.parametrize("error", [BadInput("a shard: found none"), NonFinite("step 3: inf")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_whom_others_wait_for_fails_by_itself(workers, error, monkeypatch, tmp_path):
    """Ray would hold its result until the others finish, which wait for it."""

    def train(*words):
        raise error

    monkeypatch.setattr(launch, "launched", lambda: WorkerContext(None, (0, workers)))
    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(launch, "embedded", lambda: True)
    monkeypatch.setattr(launch, "_meet", lambda *where: None)
    job = {"arguments": (Training(), tmp_path, tmp_path, tmp_path / "work")}
    if workers > 1 and isinstance(error, BadInput):
        with pytest.raises(BadInput, match="a shard: found none"):
            launch.worker(job)
    else:
        assert launch.worker(job) == {"error": error}


def test_what_one_of_several_workers_says_of_its_input_reaches_the_user():
    lost = ray.train.WorkerGroupError("worker 1: …", {1: BadInput("a shard")})
    assert isinstance(failure(lost), BadInput)


def test_a_process_that_the_watch_ended_is_one_line():
    line = str(failure(ray.exceptions.WorkerCrashedError()))
    assert "hung for longer than --cluster.patience, or the system killed it" in line


WORKERS = {(1, 1): 1, (2, 1): 2, (8, 1): 2, (1, 2): 1, (2, 2): 1, (1, 3): 0.6666}


@pytest.mark.parametrize(("requested", "cpus"), WORKERS.items())
@pytest.mark.parametrize("alone", [True, False])
def test_workers_reserve_their_threads(requested, cpus, alone, monkeypatch):
    """Together no more than a machine has that cannot grow."""
    monkeypatch.setattr(launch, "embedded", lambda: alone)
    monkeypatch.setattr(launch, "largest_node", lambda: 2.0)
    threads, workers = requested
    config = Training(
        train=SHORT.model_copy(update={"threads": threads, "batch_size": 6 * workers}),
        cluster=ClusterConfig(workers=workers, gpu=0.25, memory=1.5, accelerator_type="A10G"),
    )
    found = launch._scaling(config)
    each = {"CPU": threads, "GPU": 0.25, "memory": 1.5 * 2**30, "accelerator_type:A10G": 0.001}
    expected = {"CPU": cpus, "GPU": 0.25} if alone else each
    assert found.use_gpu and found._resources_per_worker_not_none == expected
    assert config.needs == {kind: workers * amount for kind, amount in each.items()}


def group_on(*nodes):
    """Returns workers on nodes of these names."""
    workers = [SimpleNamespace(metadata=SimpleNamespace(node_id=node)) for node in nodes]
    return SimpleNamespace(get_workers=lambda: workers)


def polled(errors):
    """Returns the status of a poll in which workers have failed."""
    return WorkerGroupPollStatus({rank: WorkerStatus(False, errors[rank]) for rank in errors})


@pytest.mark.parametrize(
    ("between", "ends"),
    [("nothing", True), ("a checkpoint", False), ("a checkpoint again", True), ("a node", False)],
)
def test_failures_end_a_training_that_saves_nothing_new(between, ends, monkeypatch, tmp_path):
    """Ray Train reports a failure at every poll; a node may be lost before Ray notices it."""
    alive, waits = {"a", "b"}, []
    nodes = lambda: [{"NodeID": name, "Alive": name in alive} for name in "ab"]  # noqa: E731
    lose = lambda s: (waits.append(s), alive.discard("b"))  # noqa: E731
    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(reports.time, "sleep", lose if between == "a node" else waits.append)
    monkeypatch.setattr(reports, "NODE_S", 0.1)
    writer = Reports(Reporter(tmp_path / metrics_log.FILE))
    limit, row = FailureLimit(writer, max_failures=2), metrics_log.row("log", 3, 0.5)
    with pytest.raises(RuntimeError, match="lost") if ends else nullcontext():
        for failed in range(4):
            limit.after_worker_group_start(group_on("a", "b"))
            for _ in range(2):
                limit.after_worker_group_poll_status(polled({1: RuntimeError("lost")}))
            if between.startswith("a checkpoint"):
                step = {"step": 3 if "again" in between else 3 + failed}
                writer.after_report(None, [{"rows": [{**row, **step}], "keep": False}], None)
                writer.after_report(None, [{"rows": [], "keep": True}], None)
    notes = [row for row in metrics_log.read(writer.reporter.file) if row["kind"] == "failure"]
    assert len(notes) == 4 - (between == "nothing") and bool(waits) == (between != "a checkpoint")


def test_the_controller_reports_rows_and_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "nodes", list)
    one = {"kind": "log", "step": 2, "share": 0.5, "time": 0.0, "metrics": {}, "note": "",
           "text": ""}  # fmt: skip
    writer = Reports(Reporter(tmp_path / metrics_log.FILE))
    errors = {1: RuntimeError("lost\nits peer"), 0: MemoryError("full")}
    limit = FailureLimit(writer, 2)
    limit.after_worker_group_start(group_on("a"))
    limit.after_worker_group_poll_status(polled(errors))
    own = [{**one, "metrics": {"loss": 1.0 + k, f"rank_{k}/x": float(k)}} for k in range(2)]
    writer.after_report(None, [{"rows": [each], "keep": False} for each in own], None)
    limit.after_worker_group_start(group_on("a"))
    limit.after_worker_group_poll_status(polled(errors))
    first, row, second = metrics_log.read(tmp_path / metrics_log.FILE)
    assert (first["kind"], first["step"], first["share"]) == (metrics_log.FAILURE, 0, 0.0)
    assert row == {**one, "metrics": {"loss": 1.0, "rank_0/x": 0.0, "rank_1/x": 1.0}}
    assert (second["step"], second["share"]) == (2, 0.5)
    assert second["note"] == "worker 0: MemoryError: full; worker 1: RuntimeError: lost its peer"


CONTROLLER = """
import sys, ray, ray.train
from pathlib import Path
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from pipelines import metrics_log
from pipelines.tracking.run import Reporter
from pipelines.training.reports import FailureLimit, Reports

def loop(job):
    starts = len(list(job["folder"].glob("start-*"))) + 1
    (job["folder"] / f"start-{starts}").touch()
    row = metrics_log.row("log", starts if job["progress"] else 1, 0.1 * starts)
    ray.train.report({"rows": [row], "keep": True})
    ray.train.report({"rows": [], "keep": False})
    if starts < 4:
        raise RuntimeError("a worker fails")

folder = Path.cwd()
reports = Reports(Reporter(folder / metrics_log.FILE))
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
try:
    DataParallelTrainer(
        loop, train_loop_config={"folder": folder, "progress": "progress" in sys.argv},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            "it", str(folder), callbacks=[reports, FailureLimit(reports, 1)],
            failure_config=ray.train.FailureConfig(max_failures=-1),
        ),
    ).fit()
except ray.train.ControllerError as error:
    print("failed:", error.controller_failure)
print("starts:", len(list(folder.glob("start-*"))))
"""


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("words", "starts"), [(["progress"], 4), ([], 2)])
def test_a_controller_ends_a_training_whose_workers_fail_without_progress(words, starts, tmp_path):
    more = {"PYTHONPATH": str(ROOT), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    command = [sys.executable, "-c", CONTROLLER, *words]
    options = {"env": {**os.environ, **more}, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=tmp_path, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"starts: {starts}"
    assert ("failed: a worker fails" in done.stdout) == (not words)
