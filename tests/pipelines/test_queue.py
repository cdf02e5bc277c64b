"""Ray's own queue on this machine: who runs beside whom, by what stages declare."""

import json
import os
import subprocess
import sys

import pytest

from pipelines.cluster.environment import cpus

CORES = cpus()
PINNED = "import os; os.sched_setaffinity(0, {0}); from pipelines.cluster.environment import cpus"


def test_a_process_that_is_pinned_has_the_cpus_that_it_may_use():
    done = subprocess.run([sys.executable, "-c", f"{PINNED}; print(cpus())"], capture_output=True)
    assert done.stdout == b"1\n"


@pytest.mark.system
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
