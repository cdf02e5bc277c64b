"""Runs of the study from the command line: bad input, a dry run, a real one."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from ebflow.alignment import regularizers
from pipelines.gradient_alignment.models import SCALES

from ..conftest import Store


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Digits 0 and 1 as a file of the user's, with their classes."""
    found = load_digits(n_class=2)
    pixels = pa.array(found.images.astype(np.uint8).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(pixels, 64)
    metadata = {"shape": json.dumps([8, 8]), "levels": json.dumps(17)}
    path = tmp_path_factory.mktemp("two") / "zero-one.parquet"
    made = pa.table({"image": column, "kind": found.target}).replace_schema_metadata(metadata)
    pq.write_table(made, path)
    return path


@pytest.mark.parametrize(("options", "line"), [
    ((), r"zero-one.parquet, column 'label': no such column, .*--data.label"),
    (("--data.label", "image"), r"column 'image': found fixed_size_list.*integer classes"),
    (("--data.label", "kind", "--models", "x"), r"--models: found 'x', expected some of"),
    (("--data.label", "kind", "--data.rows", "50"), r"--data.rows: found 40 training rows"),
    (("--data.label", "kind", "--noise", "0"), r"--noise: found 0.0"),
    (("--data.label", "kind", "--classifier.lr", "-1"), r"--classifier.lr: found -1"),
    (("--data.label", "kind", "--classifier.network", "resnet9", "--classifier.hidden", "12"),
     r"network resnet9, hidden: found 12, expected a multiple of 8"),
    (("--data.label", "kind", "--custom.name", "score"), r"--custom.weight: found 0"),
    (("--data.label", "kind", "--custom.slices", "0"), r"--custom.slices: found 0"),
])  # fmt: skip
def test_bad_input_is_told_in_one_line(home, ebflow, two_classes, options, line):
    found = ebflow("run", "gradient-alignment", "--data.source", two_classes, *options)
    assert not home.exists()
    assert re.search(line, found.refusal)


def test_a_configuration_of_another_pipeline_is_refused(home, ebflow, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("objective: {name: dsm}")
    result = ebflow("run", "gradient-alignment", "--config", path)
    assert result.refusal.startswith(f"ebflow: {path}, objective: ")
    path.write_text("scale: nope")
    result = ebflow("run", "gradient-alignment", "--config", path)
    assert result.refusal.startswith(f"ebflow: {path}, scale: found 'nope'")


@pytest.mark.system
def test_a_dry_run_lists_the_stages(home, ebflow):
    found = ebflow("run", "gradient-alignment", "--dry-run")
    assert found.code == 0 and not home.exists()
    lines = ([word for word in line.split() if not word.isdigit()] for line in found.out[-4:])
    stages = [line[:2] for line in lines]
    assert stages == [["prepare", "run"], ["flow", "run"], ["classify", "run"],
                      ["others", "depend"]]  # fmt: skip


@pytest.mark.system
def test_a_real_run_and_the_same_again(home, ebflow, without_ray, two_classes):
    words = ("run", "gradient-alignment", "--scale", "smoke", "--seeds", "2",
             "--data.source", two_classes, "--data.label", "kind")  # fmt: skip
    printed, folder = ebflow(*words).quiet().text, Path("runs/gradient-alignment/alignment")
    summary = json.loads((folder / "summary.json").read_text())
    names = [model["model"] for model in summary["models"] if "search" not in model["model"]]
    assert set(names) == set(SCALES["smoke"].models)
    for model in summary["models"]:
        for name in ("accuracy", "gradient", "trace", "A1", "A1/over flow", "A3", "relF/centred"):
            found = model["metrics"][name]
            assert found["low"] <= found["value"] <= found["high"]
    assert summary["reference"]["reference/accuracy"]["value"] > 0.9
    checks = {check["check"]: check["passed"] for check in summary["checks"]}
    assert checks["A class-blind density on every logit leaves A3 and every prediction."]
    share = summary["claims"][0]
    assert share["verdict"] in printed
    assert share["low"] <= share["value"] <= share["high"]
    html = (folder / "report.html").read_text()
    assert share["claim"] in html and html.count("data:image/png") >= 5
    assert 1 <= len(summary["findings"]) <= 3
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"gradients", "samples"}
    assert re.search(r"classify (\d+ )?cached", ebflow(*words).text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_targets_on_digits(tmp_path):
    """Seed 0 and 1 of the recipe, its control, the fooled baseline and the collapse."""
    store = Store(tmp_path)
    names = ("score", "score-free", "score-control", "fool-shift", "collapse")
    process = store.start("run", "gradient-alignment", "--seeds", 2, "--models", *names)
    out, err = process.communicate()
    assert process.returncode == 0, err + out
    folder = tmp_path / "runs" / "gradient-alignment" / "alignment"
    summary = json.loads((folder / "summary.json").read_text())
    found = {model["model"]: model["metrics"] for model in summary["models"]}
    diagnoses = {model["model"]: model["diagnosis"] for model in summary["models"]}
    value = lambda model, name: found[model][name]["value"]  # noqa: E731
    assert value("score", "accuracy") >= 0.95 and value("score", "A1") >= 0.7
    assert value("baseline", "A1") <= 0.1
    law = 1 / (1 - 2e-3 * value("score-free", "trace"))
    assert value("score", "gradient") / value("score-free", "gradient") == pytest.approx(
        law, rel=0.05
    )
    assert abs(value("fool-shift", "A3") - value("baseline", "A3")) <= 1e-3
    assert value("fool-shift", "change/same") == 1 and abs(value("fool-shift", "A1")) < 0.05
    assert diagnoses["collapse"].startswith("collapse: mean trace")
    assert summary["reference"]["reference/accuracy"]["value"] >= 0.9
    assert regularizers.smallest_trace(64, 0.1) < value("score", "trace") < 0
