"""Workers that Ray Train launches: what they reserve, and what becomes of their failures."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import ray.train.torch

from ebflow.errors import BadInput, NonFinite
from pipelines import metrics_log
from pipelines.config import ClusterConfig, TrainConfig, Training
from pipelines.errors import failure
from pipelines.tracking.run import Reporter
from pipelines.training import launch
from pipelines.training.launch import Reports
from pipelines.training.loop import WorkerContext

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


def test_a_failure_of_a_range_counts_once_and_until_the_next_checkpoint(tmp_path):
    """Ray Train may report it at every poll; a checkpoint may come without rows."""
    lost, row = {0: RuntimeError("lost")}, metrics_log.row("log", 3, 0.5)
    writer = Reports(Reporter(tmp_path / metrics_log.FILE), max_failures=1)
    for _ in range(3):
        writer.after_exception(None, lost)
    writer.after_report(None, [{"rows": [row], "keep": False}], None)
    writer.after_report(None, [{"rows": [], "keep": True}], None)
    assert writer.failures == 0
    for _ in range(2):
        writer.counted = False  # other workers have started
        with pytest.raises(RuntimeError) if writer.failures else nullcontext():
            writer.after_exception(None, lost)


def test_the_controller_reports_rows_and_failures(tmp_path):
    one = {"kind": "log", "step": 2, "share": 0.5, "time": 0.0, "metrics": {}, "note": "",
           "text": ""}  # fmt: skip
    writer = Reports(Reporter(tmp_path / metrics_log.FILE))
    errors = {1: RuntimeError("lost\nits peer"), 0: MemoryError("full")}
    writer.after_exception(None, errors)
    own = [{**one, "metrics": {"loss": 1.0 + k, f"rank_{k}/x": float(k)}} for k in range(2)]
    writer.after_report(None, [{"rows": [each], "keep": False} for each in own], None)
    writer.after_exception(None, errors)
    first, row, second = metrics_log.read(tmp_path / metrics_log.FILE)
    assert (first["kind"], first["step"], first["share"]) == (metrics_log.FAILURE, 0, 0.0)
    assert row == {**one, "metrics": {"loss": 1.0, "rank_0/x": 0.0, "rank_1/x": 1.0}}
    assert (second["step"], second["share"]) == (2, 0.5)
    assert second["note"] == "worker 0: MemoryError: full; worker 1: RuntimeError: lost its peer"
