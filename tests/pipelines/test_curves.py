"""Curves of likelihood against training time: what is trained, and what is read off."""

import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from pipelines.benchmark.curve_report import PANELS, draw, table
from pipelines.benchmark.curves import curves, entries
from pipelines.cli.options import Curves


def cell(label, nll, seconds=(0.0, 1.0, 2.0, 4.0), seed=0):
    steps = [100 * k for k in range(len(nll))]
    return {
        "label": label, "seed": seed, "seconds": list(seconds), "steps": steps, "nll": list(nll),
        "test_nll": nll[-1] + 1,
    }  # fmt: skip


CELLS = [
    cell("ml", (100.0, 90.0, 80.0, 70.0)),
    cell("ml", (100.0, 90.0, 80.0, 72.0), seed=1),
    cell("lazy_ml", (100.0, 80.0, 70.0, 60.0)),
    cell("lazy_ml", (100.0, 80.0, 70.0, 62.0), seed=1),
    cell("dsm", (100.0, 95.0, 85.0, 71.0)),
    cell("dsm", (100.0, 95.0, 85.0, 71.0), seed=1),
    cell("ssm", (100.0, np.nan), seconds=(0.0, 1.0)),
]


def printed(cells, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(table(cells, {"validation": 110.0, "test": 111.0}, seconds=4.0))
    lines = console.file.getvalue().splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip()}


def test_the_table_reads_the_curves():
    rows = printed(CELLS)
    assert rows["Gaussian"] == ["110.0", "111.0"]
    assert rows["ml"][-5:] == ["71.0", "72.0", "1.0", "100%", "4"]
    assert rows["lazy_ml"][-5:] == ["61.0", "62.0", "1.0", "100%", "2"]
    assert rows["dsm"][-2:] == ["38%", "never"]
    assert rows["ml"][0] == "13.3"


def test_a_training_that_failed_is_told():
    assert printed(CELLS)["ssm"][1:7] == ["NaN"] * 6


def test_the_figure_has_every_curve():
    figure = draw(CELLS, 110.0)
    assert isinstance(figure, Figure)
    names = {text.get_text() for axis in figure.axes for text in axis.get_legend().get_texts()}
    assert {"ml", "lazy_ml", "dsm", "ssm", "Gaussian"} <= names


def test_entries_differ_in_what_their_label_says():
    found = entries(Curves(source="any"))
    for name in ("dsm", "ssm", "ssm_vr", "fd_ssm"):
        plain, anchored = found[name], found[f"{name} + anchor"]
        assert plain.objective.name == anchored.objective.name == name
        assert plain.anchor.weight == 0 and anchored.anchor.weight == 1
        assert plain.train == anchored.train == found["lazy_ml"].train
    assert found["paper dsm"].train.optimizer == "rmsprop"
    assert found["paper dsm"].objective.sigma == 1.0


@pytest.mark.parametrize("architecture", ["dense", "convolutional"])
def test_the_anchor_is_varied_one_option_at_a_time(architecture):
    found = entries(Curves(source="any", study="anchor", architecture=architecture))
    assert ("relative_ml" in found) == (architecture == "dense")
    rules = {name: (e.anchor.interval, e.anchor.tolerance) for name, e in found.items()}
    assert rules["dsm K = 500"] == rules["lazy_ml K = 500"] == (500, None)
    assert rules["dsm"] == rules["dsm σ = 0.3"] == (100, 0.2)
    weights = {name: (e.objective.sigma, e.objective_weight) for name, e in found.items()}
    assert weights["dsm"] == (0.1, pytest.approx(0.01))
    assert weights["dsm σ = 0.3"] == (0.3, pytest.approx(0.09))
    assert weights["dsm w = 10 σ²"] == (0.1, pytest.approx(0.1))
    assert {name for panel in PANELS["anchor"].values() for name in panel} | {"ml"} >= set(found)


@pytest.mark.parametrize("only", [("lazy_ml",), ("dsm + anchor",)])
def test_a_finished_cell_is_not_trained_again(home, image_file, tmp_path, only):
    options = Curves(
        source=str(image_file), seconds=0.3, seeds=1, threads=1, only=only,
        validation=200, test=200, output=tmp_path / "curves",
    )  # fmt: skip
    first, told = curves(options, Console(quiet=True)), Console(record=True, quiet=False)
    assert curves(options, told) == first
    assert f"{only[0]}, seed 0" not in told.export_text()
    assert json.loads((options.output / "curves.json").read_text())["cells"] == first
    assert (options.output / "curves.png").stat().st_size > 10_000
