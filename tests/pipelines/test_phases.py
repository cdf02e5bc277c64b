"""The script that maps where training by scores alone loses mass, in a real run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Store

SCRIPT = Path(__file__).parents[2] / "docs" / "measurements" / "phases.py"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_script_runs_its_own_experiment_and_judges_its_claims(tmp_path):
    words = [sys.executable, SCRIPT, "--scale", "smoke", "--seeds", "2"]
    environment = Store(tmp_path).environment(PYTHONPATH=str(SCRIPT.parents[2]))
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr + run.stdout
    folder = tmp_path / "runs" / "paper" / "phases"
    summary = json.loads((folder / "summary.json").read_text())
    claims = {claim["claim"]: claim for claim in summary["claims"]}
    assert len(claims) == 9 and all(c["value"] is not None for c in claims.values())
    assert summary["command"] == f"python {SCRIPT} --scale smoke --seeds 2"
    assert (folder / "figures" / "map.png").stat().st_size > 5_000
    lines = {(*row["labels"].values(), row["seed"]): row for row in summary["rows"]}
    assert lines["map", "learned", "ssm", 1]["study/networks"] == 4
