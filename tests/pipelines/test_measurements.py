"""The scripts of pages of measurements, in short real runs."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import Store

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def printed(folder, name, *words):
    """Runs a script of ``docs/measurements``; returns what it prints."""
    environment = Store(folder).environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, str(ROOT / "docs" / "measurements" / f"{name}.py"), *words]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr + run.stdout
    return run.stdout


@pytest.mark.parametrize(("name", "source", "labels"), [
    pytest.param(
        "conditional", "diabetes", {"ebflow", "NGBoost"},
        marks=pytest.mark.skipif(not find_spec("ngboost"), reason="ngboost is not installed"),
    ),
    ("synthesis", "diabetes", {"ebflow", "gmm"}),
])  # fmt: skip
def test_a_script_runs_its_own_experiment_and_finds_it_in_the_store(
    tmp_path, name, source, labels
):
    words = ("--scale", "smoke", "--seeds", "2", "--sources", source)
    assert f"{name} ran" in printed(tmp_path, name, *words)
    folder = tmp_path / "runs" / "paper" / name
    summary = json.loads((folder / "summary.json").read_text())
    assert labels <= {label for row in summary["rows"] for label in row["labels"].values()}
    assert {row["seed"] for row in summary["rows"]} == {0}
    assert summary["command"].endswith(f"{name}.py {' '.join(words)}")
    assert f"{name} cached" in printed(tmp_path, name, *words)


def test_step_times_are_printed_by_objective(tmp_path):
    text = printed(tmp_path, "runtime", "--smoke")
    names = ("FC, grey", "CNN, grey", "CNN, colour", "FC spline, grey", "faster from D", "lazy_ml")
    assert all(name in text for name in names)
