"""Trainings that diverge, and commands side by side on one store."""

import html
import math
import signal

import psutil
import pytest

from .conftest import Store
from .faults.harness import LONG, PATIENCE_S, runs, training_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_different_commands_at_once_share_what_they_have_in_common(tmp_path):
    store = Store(tmp_path)
    rates = ("0.001", "0.002")
    processes = [
        store.start(
            "run", "density", "--train.steps", "300", "--train.lr", rate, "--name", f"r{i}"
        )
        for i, rate in enumerate(rates)
    ]
    outputs = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    ended = [name for name, _ in runs(store)]
    assert (ended.count("prepare"), ended.count("train")) == (1, 2)
    assert store.summary("r0")["test/nll"] != store.summary("r1")["test/nll"]


WILD = ("--train.lr", "1e30", "--train.optimizer", "sgd", "--train.steps", "400")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_not_finite_delivers_the_best_with_a_warning(tmp_path, workers):
    store = Store(tmp_path)
    printed = store.run("run", "density", *WILD, "--workers", str(workers))
    summary = store.summary()
    first, second = [text for text in summary["warnings"] if "went back to step 0" in text]
    assert first.endswith("resumes with a quarter of the learning rate")
    assert second.endswith("ends") and "twice" in summary["verdict"]
    assert first in printed and second in printed
    page = (store.root / "runs" / "density" / "digits" / "report.html").read_text()
    assert html.unescape(page).index(first) < page.index("<table>")
    assert summary["train/best_step"] == 0 and math.isfinite(summary["test/nll"])


def test_a_loss_that_is_not_finite_stops_a_run_without_a_retry(tmp_path):
    store = Store(tmp_path)
    process = store.start("run", "density", *WILD, "--train.no-retry")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1 and out.count("train: started") == 1
    assert "step" in err and "train.lr" in err and str(store.home / "logs") in err
    assert ("train", "FAILED") in runs(store)
    assert list((store.home / "work" / "train").glob("*/checkpoints/step-*"))
    assert not (store.root / "runs").exists()


def test_ray_and_its_workers_listen_on_loopback_alone_at_no_fixed_port(tmp_path):
    """A fixed port of an embedded Ray would be missing to a ``ray start`` beside it."""
    store = Store(tmp_path)
    process = store.start("run", "density", *LONG, "--workers", "2")
    training_of(store)
    places = [
        connection.laddr
        for child in psutil.Process(process.pid).children(recursive=True)
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert {place.ip.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}
    fixed = {6379, 10001, 52365, *range(8265, 8300)}
    assert not fixed & {place.port for place in places}
