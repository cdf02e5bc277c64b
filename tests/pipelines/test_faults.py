"""What is killed loses no finished work: real processes, real signals, a real Ray."""

import os
import re
import signal
import time
from pathlib import Path

import mlflow
import psutil
import pytest

from pipelines import rows

from .conftest import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG = ("--train.steps", "4000", "--train.validate-every", "200", "--train.log-every", "50")
"""Options of a training of some ten seconds, long enough to be hit."""

HIT_AT = 600
PATIENCE_S = 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    store = Store(tmp_path_factory.mktemp("whole"))
    store.run("run", "density", *LONG)
    return store


def curve(store, name="digits"):
    """Returns validation NLL by step, of the finished training."""
    found, _ = rows.read(artefact(store, name) / rows.FILE)
    return {row["step"]: row["metrics"]["val/nll"] for row in rows.curve(found, "validate")}


def artefact(store, name="digits"):
    return Path(store.summary(name)["artefacts"]["train"])


def wait_for_training(store):
    """Waits until a training has validated beyond a step, so that a checkpoint is there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for path in (store.home / "work" / "train").glob(f"*/{rows.FILE}"):
            steps = [r["step"] for r in rows.read(path)[0] if r["kind"] == "validate"]
            if max(steps, default=0) >= HIT_AT:
                return path.parent
        time.sleep(0.05)
    raise TimeoutError("the training never came that far")


def statuses(store):
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("density").experiment_id
    found = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    names = (run.data.tags.get("ebflow.name", run.info.run_name) for run in found)
    return [(name, run.info.status) for name, run in zip(names, found, strict=True)]


def test_a_killed_driver_goes_on_and_gives_the_same_numbers(whole, tmp_path):
    store = Store(tmp_path)
    process = store.start("run", "density", *LONG)
    wait_for_training(store)
    process.kill()
    process.communicate()
    store.run("run", "density", *LONG)
    assert curve(store) == curve(whole)
    assert store.summary()["test/nll"] == whole.summary()["test/nll"]
    ended = statuses(store)
    assert ended[0] == ("digits", "KILLED")
    assert ("train", "KILLED") in ended and ("train", "FINISHED") in ended
    assert [name for name, _ in ended].count("prepare") == 1
    assert not [status for _, status in ended if status == "RUNNING"]


def test_a_killed_worker_is_replaced_and_gives_the_same_numbers(whole, tmp_path):
    store = Store(tmp_path)
    process = store.start("run", "density", *LONG)
    wait_for_training(store)
    worker = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    )
    worker.kill()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err + out
    assert curve(store) == curve(whole)
    assert store.summary()["test/nll"] == whole.summary()["test/nll"]
    assert [name for name, _ in statuses(store)].count("train") == 1
    client, run = trained(store)
    assert run.data.tags["ebflow.restarts"] == "1"
    assert re.match(r"worker 0: \w*Actor\w*Error: ", run.data.tags["ebflow.failure.1"])
    for name in ("train/loss", "val/nll", "time/step_ms"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert steps == sorted(set(steps)) and steps[-1] == 4000
    kept = {item.path for item in client.list_artifacts(run.info.run_id, "checkpoint")}
    assert "checkpoint/ema.safetensors" in kept


def trained(store):
    """Returns the client and the training's run."""
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    tags = client.get_run(store.summary()["mlflow_run_id"]).data.tags
    return client, client.get_run(tags["ebflow.stage.train"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_says_how_to_go_on_and_does(whole, tmp_path, number):
    store = Store(tmp_path)
    process = store.start("run", "density", *LONG)
    work = wait_for_training(store)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    command = " ".join(["ebflow", "run", "density", *LONG])
    assert err.splitlines() == [f"ebflow: interrupted; to go on from where it stopped: {command}"]
    assert dict(statuses(store)) == {"digits": "KILLED", "prepare": "FINISHED", "train": "KILLED"}
    assert list(work.glob("ray/checkpoint_*"))
    store.run("run", "density", *LONG)
    assert curve(store) == curve(whole)


def test_two_workers_give_what_one_gives(whole, tmp_path):
    store = Store(tmp_path)
    store.run("run", "density", *LONG, "--workers", "2")
    one, two = curve(whole), curve(store)
    assert one.keys() == two.keys()
    for step, nll in one.items():
        assert two[step] == pytest.approx(nll, abs=0.02), step
    assert two[0] == one[0]


def test_two_equal_commands_at_once_do_the_work_once(tmp_path):
    store = Store(tmp_path)
    words = ("run", "density", "--train.steps", "300")
    processes = [store.start(*words), store.start(*words)]
    told = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sorted("train cached" in out for out, _ in told) == [False, True]
    assert [name for name, _ in statuses(store)].count("train") == 1


def test_different_commands_at_once_share_what_they_have_in_common(tmp_path):
    store = Store(tmp_path)
    rates = ("0.001", "0.002")
    processes = [
        store.start(
            "run", "density", "--train.steps", "300", "--train.lr", rate, "--name", f"r{i}"
        )
        for i, rate in enumerate(rates)
    ]
    told = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    ended = [name for name, _ in statuses(store)]
    assert (ended.count("prepare"), ended.count("train")) == (1, 2)
    assert store.summary("r0")["test/nll"] != store.summary("r1")["test/nll"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run_with_a_diagnosis(tmp_path, workers):
    store = Store(tmp_path)
    words = ("--train.lr", "1e30", "--train.optimizer", "sgd", "--train.steps", "400")
    process = store.start("run", "density", *words, "--workers", str(workers))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1
    assert "step" in err and "train.lr" in err and str(store.home / "logs") in err
    assert ("train", "FAILED") in statuses(store)
    assert list((store.home / "work" / "train").glob("*/ray/checkpoint_*"))
    assert not (store.root / "runs").exists()


def test_metrics_survive_a_tracking_server_that_was_away(server, tmp_path):
    store = Store(tmp_path / "here")
    store.root.mkdir()
    process = store.start("run", "density", *LONG, MLFLOW_TRACKING_URI=server.uri)
    wait_for_training(store)
    server.kill()
    time.sleep(3)
    server.start()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), err + out
    client = mlflow.MlflowClient(server.uri)
    run = client.get_run(store.summary()["mlflow_run_id"])
    for run_id in (run.info.run_id, run.data.tags["ebflow.stage.train"]):
        history = client.get_metric_history(run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(50, 4001, 50))


def test_a_tracking_server_that_stays_away_costs_no_finished_work(server, tmp_path):
    store = Store(tmp_path / "here")
    store.root.mkdir()
    settings = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    process = store.start("run", "density", *LONG, **settings)
    wait_for_training(store)
    server.kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and len(err.splitlines()) == 1
    assert server.uri.removeprefix("http://").partition(":")[0] in err
    server.start()
    store.run("run", "density", *LONG, **settings)
    client = mlflow.MlflowClient(server.uri)
    run = client.get_run(store.summary()["mlflow_run_id"])
    history = client.get_metric_history(run.data.tags["ebflow.stage.train"], "train/loss")
    assert [metric.step for metric in history] == list(range(50, 4001, 50))


def test_ray_listens_on_loopback_alone(tmp_path):
    store = Store(tmp_path)
    process = store.start("run", "density", *LONG)
    wait_for_training(store)
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for child in psutil.Process(process.pid).children(recursive=True)
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert addresses == {"127.0.0.1"}
