"""Processes that are killed, or told to end: real signals, a real Ray."""

import os
import re
import shlex
import signal
import time

import mlflow
import pytest

from .harness import (
    HIT_AT,
    LONG,
    PAIR,
    STEPS,
    children,
    end,
    ends_well,
    failures,
    intact,
    noted,
    prepared,
    runs,
    same,
    start,
    training_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_killed_workers_are_replaced_while_checkpoints_are_saved(whole, pair, tmp_path):
    store = prepared(whole, tmp_path)
    process = start(store, *PAIR, "--cluster.max-failures", "1")
    for at in (HIT_AT, 4 * HIT_AT):
        hit = training_of(store, at)
        _, worker = children(process, "RayTrainWorker")
        worker.kill()
    out = ends_well(process)
    same(store, pair)
    assert any(re.match(r"train: worker .*Actor\w*Error: ", line) for line in out), out
    assert [name for name, _ in runs(store)].count("train") == 1
    check_history(store)
    noted(1, store, hit)


def check_history(store):
    """Each point of a curve is in MLflow once, and so is the checkpoint."""
    notes = failures(store)
    assert len(notes) == 2 and all(re.match(r"worker .*Actor\w*Error: ", one) for one in notes)
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    run = client.get_run(store.summary()["mlflow_run_id"]).data.tags["ebflow.stage.train"]
    for name in ("train/loss", "val/nll", "time/step_ms"):
        steps = [point.step for point in client.get_metric_history(run, name)]
        assert steps == sorted(set(steps)) and steps[-1] == STEPS
    kept = {item.path for item in client.list_artifacts(run, "checkpoint")}
    assert "checkpoint/ema.safetensors" in kept


def test_a_killed_stage_is_tried_again(whole, tmp_path):
    store = prepared(whole, tmp_path)
    process = start(store)
    hit = training_of(store)
    (stage,) = children(process, "ray::call")
    stage.kill()
    out = ends_well(process)
    same(store, whole)
    assert any(line.startswith("train: resumes from step") for line in out), out
    assert [run for run in runs(store) if run[0] == "train"] == [
        ("train", "KILLED"),
        ("train", "FINISHED"),
    ]
    noted(2, store, hit)


def test_a_killed_driver_goes_on(whole, killed, tmp_path):
    store, since = killed[0].copy(tmp_path), time.time()
    ends_well(start(store))
    same(store, whole)
    ended = runs(store)
    assert ended[0] == ("digits", "KILLED")
    assert ("train", "KILLED") in ended and ("train", "FINISHED") in ended
    assert [name for name, _ in ended].count("prepare") == 1
    assert not [status for _, status in ended if status == "RUNNING"]
    noted(4, store, killed[1], since)


def interrupted(store, interrupt):
    """Interrupts a training; checks what is told; returns when that was."""
    process = start(store)
    hit = training_of(store)
    interrupt(process)
    code, _, err = end(process)
    command = f"cd {store.root} && {store.named} {shlex.join(['run', 'density', *map(str, LONG)])}"
    assert code == 130
    assert err == [f"ebflow: interrupted; resume with: {command}"]
    assert dict(runs(store)) == {"digits": "KILLED", "train": "KILLED"}
    return hit


def test_sigterm_ends_well_and_the_run_goes_on(whole, tmp_path):
    store = prepared(whole, tmp_path)
    hit, since = interrupted(store, lambda process: process.terminate()), time.time()
    ends_well(start(store))
    same(store, whole)
    noted(5, store, hit, since)


def test_timeout_ends_well(whole, tmp_path):
    def interrupt(process):
        """As ``timeout`` does it: the command, and all of its group."""
        process.terminate()
        os.killpg(process.pid, signal.SIGTERM)

    interrupted(prepared(whole, tmp_path), interrupt)


def test_ctrl_c_ends_well(whole, tmp_path):
    interrupted(prepared(whole, tmp_path), lambda process: os.killpg(process.pid, signal.SIGINT))


def test_two_equal_commands_at_once_do_the_work_once(whole, killed, tmp_path):
    store = killed[0].copy(tmp_path)
    processes = [start(store), start(store)]
    outputs = [ends_well(process) for process in processes]
    assert sorted("train cached" in "\n".join(out) for out in outputs) == [False, True]
    assert [run for run in runs(store) if run[0] == "train"] == [
        ("train", "KILLED"),
        ("train", "FINISHED"),
    ]
    same(store, whole)
    intact(12)
