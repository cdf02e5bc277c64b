"""Ray's own queue on this machine: who runs beside whom, by what stages declare."""

import json
import os
import subprocess
import sys

CORES = os.cpu_count()


def test_nobody_waits_for_what_another_lacks_and_few_drivers_wait(home, tmp_path):
    """Trainings that are ready hold no core; a process for each of them would fill the memory."""
    command = [sys.executable, "-m", "tests.pipelines.queued", str(tmp_path)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    place = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env={**kept, **place}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "greedy": [7] * 3,
        "beside drivers": [7] * CORES,
        "drivers": CORES,
        "gpu": 0,
    }
