"""The report of a tiny study, and real runs."""

import json
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from pipelines.sample_complexity import conclude
from pipelines.sample_complexity.config import ComplexityConfig, cells
from pipelines.sample_complexity.learn import learn

from ..conftest import NO_RAY, Store
from ..untracked import Untracked

SMOKE = ComplexityConfig(scale="smoke")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The output of a study of tiny cells, whose stages run in this process."""
    root = tmp_path_factory.mktemp("study")
    small = [
        c.model_copy(update={"steps": 3}) if hasattr(c, "width") and hasattr(c, "steps") else c
        for c in cells(SMOKE)
    ]
    folders = []
    for index, cell in enumerate(small):
        folders.append(root / str(index))
        folders[-1].mkdir()
        learn(cell, run=Untracked(folders[-1]))
    output = root / "concluded"
    output.mkdir()
    conclude.conclude(SMOKE, folders, run=Untracked(output))
    return output


@pytest.mark.system
def test_the_results_have_one_row_for_each_network(study):
    rows = pd.read_parquet(study / "results.parquet")
    keys = ["panel", "learner", "ratio", "size", "eta", "distribution", "m", "step", "seed",
            "width", "depth", "sampler", "delta", "epsilon", "against", "value",
            "place", "level", "steps"]  # fmt: skip
    assert not rows.duplicated(keys).any()
    untrained = {"finite", "two points", "classes", "minimizer", "sampling", "steps"}
    assert set(rows["panel"]) == untrained | {
        "networks",
        "truths",
        "flows",
        "images",
        "pictures",
        "learned",
    }


@pytest.mark.system
def test_the_numbers_have_exponents_claims_and_cost(study):
    numbers = json.loads((study / "summary.json").read_text())
    assert len(numbers["exponents"]) == 21
    against = {one["against"] for one in numbers["exponents"]}
    drawn = {against for panels in conclude.SERIES.values() for against, _ in panels}
    assert against == drawn | {"S"}
    quantities = {claim["quantity"] for claim in numbers["claims"]}
    assert {f"exponent of m*_D in {what}" for what in ("R/σ", "1/δ", "d")} <= quantities
    assert len(numbers["findings"]) == 2
    for claim in numbers["claims"]:
        assert set(claim) >= {"claim", "verdict", "value", "low", "high", "expected", "units"}
        assert claim["value"] is not None or claim["verdict"] == "not decided at this size"
        assert claim["expected"] not in ("more than 0", "less than 0"), "effects have a margin"
    assert numbers["study/cells"] == len(cells(SMOKE))


@pytest.mark.system
def test_every_item_is_judged_and_trainings_of_scale_smoke_are_not(study):
    """The random classes of G3 are; its networks are not."""
    numbers = json.loads((study / "summary.json").read_text())
    judged = {claim["item"] for claim in numbers["claims"] if claim["value"] is not None}
    open_ = {claim["item"] for claim in numbers["claims"] if claim["value"] is None}
    assert judged == {"G1", "G3", "G5", "G6"} and open_ == {"G2", "G3", "G4", "G7", "G8"}
    assert {check["item"]: check["passed"] for check in numbers["checks"]} == {
        "G1": True, "G2": True, "G6": True,
    }  # fmt: skip


@pytest.mark.system
def test_every_figure_is_on_the_page(study):
    page = (study / "report.html").read_text()
    drawn = {path.stem: path for path in (study / "figures").iterdir()}
    for name, path in drawn.items():
        assert path.stat().st_size > 5_000 and f'<figure id="{name}">' in page
    for claim in json.loads((study / "summary.json").read_text())["claims"]:
        assert claim["figure"] is None or claim["figure"] in drawn


def test_means_have_a_line_for_each_group_and_no_missing_values():
    columns = dict.fromkeys((*conclude.ERRORS, "n_far"), 0.0)
    rows = pd.DataFrame({
        **columns, "size": 4, "learner": "residual networks", "step": pd.array([9] * 3, "Int64"),
        "eta": [0.0, 0.0, 0.05], "sigma_l2": [1.0, 2.0, np.nan], "levels_l2": [2.0, 4.0, 0.0],
        "m": pd.array([1000, 1000, None], "Int64"),
    })  # fmt: skip
    found = conclude.images(rows)
    first, second = (dict(zip(found.headings, row, strict=True)) for row in found.rows)
    assert (first["η"], first["m"], first["σ L2"]) == ("0", "1,000", "0.75")
    assert first["σ L2, levels"] == "1.5", "over √D"
    assert (second["η"], second["m"], second["σ L2"]) == ("0.05", "", "")


def finished(store):
    return len(list((store.home / "artefacts" / "learn").glob("*.json")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_resumes_with_identical_tables(tmp_path):
    """The driver and all its processes are killed in the middle."""
    words = ("run", "sample-complexity", "--scale", "smoke")
    killed = Store(tmp_path / "killed")
    killed.root.mkdir()
    process = killed.start(*words)
    while finished(killed) < 5:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished(killed)
    printed = killed.run(*words)
    total = len(cells(SMOKE))
    assert f"learn {total - before} ran, {before} cached" in printed
    whole = Store(tmp_path / "whole")
    whole.root.mkdir()
    whole.run(*words)
    results = [
        (store.root / "runs/sample-complexity/study/results.parquet").read_bytes()
        for store in (killed, whole)
    ]
    assert results[0] == results[1]
    again = whole.run(*words, **NO_RAY)
    assert "learn cached" in again or "conclude cached" in again


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cells_that_fail_stop_no_other(tmp_path):
    """At R/σ = 1e200 the weight of the far mode cannot be computed, which its cells find."""
    options = ("--scale", "smoke", "--grid.radii", "8", "12", "1e200")
    config = SMOKE.changed(grid={"radii": (8.0, 12.0, 1e200)})
    failing = [getattr(cell, "ratio", 0) for cell in cells(config)].count(1e200)
    total = len(cells(config))
    store = Store(tmp_path)
    process = store.start("run", "sample-complexity", *options)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and f"{failing} of {total} cells failed" in error
    assert finished(store) == total - failing
