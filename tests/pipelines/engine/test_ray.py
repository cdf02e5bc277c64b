"""A process starts Ray, and leaves it."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipelines.cluster import connection
from pipelines.engine import runner
from pipelines.engine.runner import Session

from .cases import Silent, run_of

LEFT = "left"


@pytest.fixture
def rays(monkeypatch):
    """Calls of Ray, and the threads that make them."""
    runner.RAY.submit(int).result()  # a run before this one may still start Ray, or leave it
    done = []

    def start(show):
        done.append(("start", threading.current_thread()))

    monkeypatch.setattr(runner, "start", start)
    monkeypatch.setattr(runner, "leave", lambda _: done.append((LEFT, threading.current_thread())))
    return done


class Opened(Session):
    """A session with Ray, and with a run in MLflow that takes no time but ``meanwhile``'s."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__(run_of(), "key", Silent())
        self.meanwhile, self.tracker = meanwhile, None
        assert self.context.tracker is None

    def _track(self):
        self.meanwhile()
        return SimpleNamespace(id="")


def test_one_thread_starts_ray_and_leaves_it(rays):
    """Its processes end with the thread that started them, and a stage's thread ends before."""
    with Opened():
        pass
    runner.RAY.submit(int).result()
    assert [what for what, _ in rays] == ["start", LEFT]
    assert len({thread for _, thread in rays}) == 1 and rays[0][1].is_alive()


def test_ray_is_left_where_a_second_ctrl_c_breaks_off_the_cancelling(rays, monkeypatch):
    """Else the thread that holds it keeps the process from ending."""

    def interrupted(running):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "cancel", interrupted)
    with pytest.raises(KeyboardInterrupt), Opened():
        pass
    runner.RAY.submit(int).result()
    assert rays[-1][0] == LEFT


def test_ray_starts_beside_what_the_driver_does_before_the_first_stage(monkeypatch):
    began = threading.Event()
    monkeypatch.setattr(runner, "start", lambda show: began.set())
    monkeypatch.setattr(runner, "leave", lambda _: None)
    with Opened(lambda: not began.wait(10)):
        pass


def test_a_process_leaves_ray_before_it_starts_it_again(monkeypatch):
    """Leaving goes on beside what is done after the last stage."""
    ends = threading.Event()
    monkeypatch.setattr(runner, "start", lambda show: "Ray")
    monkeypatch.setattr(runner, "leave", lambda _: ends.wait(10))
    with Opened():
        pass
    with Opened() as second:
        with pytest.raises(TimeoutError):
            second.connection.result(timeout=0.2)
        ends.set()
        assert second.connection.result(timeout=10) == "Ray"


LEAVING = """
import time
from pipelines.cluster import environment
environment.prepare()
import ray
from pipelines.engine import runner
executor = runner.Session(None, "key", None)
executor.connection = runner.RAY.submit(runner.start)
executor.connection.result()
executor.running += map(ray.put, range(1000))
kept = list(executor.running)
executor.leave()
del executor
left = runner.RAY.submit(int)
while not left.done():
    kept and kept.pop()
    time.sleep(0.001)
print("left")
"""


# Exceptions hold references in cycles, which the collector drops at any time
IN_CYCLES = (
    LEAVING.replace("kept = list(executor.running)", "kept = list(map(ray.put, range(1000)))")
    .replace(
        "kept and kept.pop()",
        "cycle = [kept.pop()] if kept else []; cycle.append(cycle); [[] for _ in range(20)]",
    )
    .replace("import time", "import gc, time; gc.set_threshold(10)")
)


@pytest.mark.system
@pytest.mark.parametrize("code", [LEAVING, IN_CYCLES], ids=["counted", "in cycles"])
def test_references_that_are_dropped_while_ray_is_left_end_no_process(tmp_path, code):
    """Ray's core is gone before its Python side knows: what asks it then is ended, with code 1."""
    place = {**os.environ, "EBFLOW_HOME": str(tmp_path / "store")}
    done = subprocess.run([sys.executable, "-c", code], env=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def connected(show, folder):
    listener = SimpleNamespace(join=lambda: None)
    return SimpleNamespace(stopped=threading.Event(), listener=listener, folder=folder)


def test_workers_find_the_store_below_the_current_folder(home, monkeypatch):
    """Ray's workers have folders of their own, from which a relative path leads elsewhere."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("EBFLOW_HOME", "")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(connection, "Connection", connected)
    connection.leave(connection.start())
    assert os.environ["EBFLOW_HOME"] == str(Path.cwd() / "runs" / ".store")


def test_folders_of_killed_processes_are_removed(home, monkeypatch):
    """A folder that is in use stays, and so does a new one, whose process may still lock it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(connection, "Connection", connected)
    monkeypatch.setattr(connection, "PREFIX", f"ebflow-test-{os.getpid()}-")
    used = connection.start()
    killed, new = (Path(tempfile.mkdtemp(prefix=connection.PREFIX, dir="/tmp")) for _ in range(2))
    for folder in (used.folder, killed):
        os.utime(folder, (0, 0))
    connection.leave(connection.start())
    assert [used.folder.exists(), killed.exists(), new.exists()] == [True, False, True]
    connection.leave(used)
    new.rmdir()


def test_stages_share_one_remote_function(monkeypatch):
    """Ray exports each remote function to all nodes, and warns at the hundredth."""
    made = []
    monkeypatch.setattr(ray, "remote", lambda function: made.append(function) or made)
    runner._remote_call.cache_clear()
    assert runner._remote_call() is runner._remote_call()
    runner._remote_call.cache_clear()
    assert len(made) == 1
