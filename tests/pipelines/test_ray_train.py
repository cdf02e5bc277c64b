"""A user's own loop under Ray Train, tracked in a real MLflow server."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pytest
from mlflow import MlflowClient

from pipelines.tracking.ray_train import by_rank

from .nodes import ROOT
from .processes import wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LOOP = """
import os, signal, sys, tempfile, time
from pathlib import Path
import ray.train, torch
from ray.train.torch import TorchTrainer, prepare_model
from pipelines.tracking.ray_train import Meter, MLflowCallback

def loop(config):
    model, meter = prepare_model(torch.nn.Linear(2, 1)), Meter()
    rank, first = ray.train.get_context().get_world_rank(), 0
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            first = int(Path(folder, "epoch").read_text())
    for epoch in range(first + 1, config["epochs"] + 1):
        with meter:
            time.sleep(0.1 * rank)
            loss = model(torch.ones(3, 2)).square().mean()
        loss.backward()
        if epoch == config["faults"]["death"] and rank and not os.path.exists("died"):
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == config["faults"]["error"]:
            raise ValueError("no more data")
        value = float("nan") if epoch == config["faults"]["nan"] else abs(epoch - 3.0)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "epoch").write_text(str(epoch))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"loss": value, **meter.read()}, checkpoint if epoch % 2 else None)
        time.sleep(config["pause"])

os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
faults = {name: int(sys.argv[i + 1]) for i, name in enumerate(("death", "nan", "error"))}
config = {"epochs": 7, "faults": faults, "pause": float(sys.argv[4])}
failure = ray.train.FailureConfig(max_failures=1 if faults["death"] else 0)
TorchTrainer(
    loop, train_loop_config=config, scaling_config=ray.train.ScalingConfig(num_workers=2),
    run_config=ray.train.RunConfig(
        "mine", os.getcwd(), failure_config=failure, callbacks=[MLflowCallback(metric="loss")]
    ),
).fit()
"""


class User:
    """Starts scripts of a user in a folder, with an MLflow server."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.ray = tempfile.TemporaryDirectory(prefix="eb-", dir="/tmp")
        self.client = MlflowClient(server.uri)

    def start(self, *words, code=LOOP):
        (self.folder / "mine.py").write_text(code)
        settings = {"MLFLOW_TRACKING_URI": self.server.uri, "PYTHONPATH": str(ROOT)}
        settings |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "HOME": str(self.folder)}
        settings |= {"RAY_TMPDIR": self.ray.name}
        command = [sys.executable, "mine.py", *map(str, words)]
        environment = {**os.environ, **settings}
        with open(self.folder / "log", "w") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def run(self, *words, **more):
        code = self.start(*words, **more).wait(timeout=300)
        return code, (self.folder / "log").read_text()

    @property
    def tracked(self):
        """The only run, or None."""
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        runs = self.client.search_runs(experiments)
        assert len(runs) < 2
        return runs[0] if runs else None

    def curve(self, name):
        history = self.client.get_metric_history(self.tracked.info.run_id, name)
        return [(point.step, point.value) for point in history]


@pytest.fixture
def user(tmp_path, server):
    (tmp_path / "user").mkdir()
    made = User(tmp_path / "user", server)
    yield made
    made.ray.cleanup()


def test_one_run_survives_a_killed_worker_a_nan_a_failure_and_a_resume(user):
    code, log = user.run(4, 2, 6, 0)
    run = user.tracked
    assert (code, run.info.status) == (1, "FAILED"), log
    notes = run.data.tags["mlflow.note.content"]
    assert "step 2: loss is nan" in notes and "ValueError: no more data" in notes
    assert "worker 1: " in notes and run.data.tags["mlflow.source.name"] == "mine.py"
    assert [step for step, _ in user.curve("loss")] == [1, 3, 4, 5]
    code, log = user.run(0, 0, 0, 0)
    run = user.tracked
    assert (code, run.info.status) == (0, "FINISHED"), log
    assert user.curve("loss") == [(step, abs(step - 3.0)) for step in (1, 3, 4, 5, 6, 7)]
    steps = [[step for step, _ in user.curve(f"rank_{i}/time/step_ms")] for i in (0, 1)]
    assert steps == [[1, 2, 3, 4, 5, 6, 7]] * 2
    times = [[ms for _, ms in user.curve(f"rank_{i}/time/step_ms")] for i in (0, 1)]
    assert median(times[0]) < 100 < median(times[1])  # DDP waits in its second forward pass
    assert user.curve("rank_1/memory/peak_mib")[-1][1] > 50
    assert run.data.params["faults.death"] == "4" and run.data.params["epochs"] == "7"
    notes = run.data.tags["mlflow.note.content"]
    assert "no more data" in notes
    for name, epoch in (("last", "7"), ("best", "3")):
        folder = f"checkpoints/{name}/epoch"
        path = user.client.download_artifacts(run.info.run_id, folder)
        assert Path(path).read_text() == epoch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_interrupted_or_killed_leaves_a_killed_run(user, number):
    process = user.start(0, 0, 0, 30)
    while user.tracked is None or not user.curve("loss"):
        assert process.poll() is None, (user.folder / "log").read_text()
        time.sleep(0.2)
    process.send_signal(number)
    process.wait(timeout=120)
    wait("the end of the run", lambda: user.tracked.info.status == "KILLED", seconds=60)


def test_a_server_that_is_away_delays_no_training_and_gets_all_at_the_next(user):
    user.server.kill()
    code, log = user.run(0, 0, 0, 0)
    assert code == 0 and "Connection refused" in log, log
    user.server.start()
    code, log = user.run(0, 0, 0, 0)
    assert (code, user.tracked.info.status) == (0, "FINISHED"), log
    assert [step for step, _ in user.curve("loss")] == [1, 2, 3, 4, 5, 6, 7]


def test_the_script_of_the_guide_runs_as_written(user):
    page = (ROOT / "docs" / "howto" / "track-your-own-training.md").read_text()
    (script,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    code, log = user.run(code=script)
    assert (code, user.tracked.info.status) == (0, "FINISHED"), log
    assert len(user.curve("loss")) == 4 and user.tracked.data.params["optimizer.lr"] == "0.01"


def test_metrics_are_numbers_of_rank_0_and_of_each_rank():
    one = {"loss": 1, "a": {"b": 2.0}, "text": "no", "time/x": 3.0, "odd=name": 4.0}
    found = by_rank([one, {"loss": 5.0, "time/x": 6.0}])
    expected = {"loss": 1.0, "a.b": 2.0, "odd_name": 4.0}
    assert found == {**expected, "rank_0/time/x": 3.0, "rank_1/time/x": 6.0}
