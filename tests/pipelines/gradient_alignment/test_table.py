"""Lines of models over seeds: intervals, the tables and planes of the page, JSON."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.gradient_alignment import comparisons, figures
from pipelines.gradient_alignment.over_seeds import entry, lines
from pipelines.gradient_alignment.tables import tables
from pipelines.store.files import write_json

from .cases import measured, study


def test_a1_is_told_over_that_of_class_blind_densities_of_the_same_seed():
    found = study(**{"blind-gaussian": {"A1": 0.85}, "blind-flow": {"A1": 0.87},
                     "score": {"A1": 0.88}, "baseline": {"A2": 0.1}})  # fmt: skip
    assert found["score"].values("A1/over gaussian") == pytest.approx([0.03] * 3)
    assert found["score"].values("A1/over flow") == pytest.approx([0.01] * 3)
    assert found["blind-gaussian"].values("A1/over gaussian") == pytest.approx([0] * 3)
    assert np.isnan(found["baseline"].values("A1/over gaussian")).all()


def test_intervals_allow_for_the_overlap_of_splits():
    rows = [measured(name, seed, {"A3": k + seed**2})
            for seed in range(3) for k, name in enumerate(("baseline", "score"))]  # fmt: skip
    apart, alike = lines(rows), lines(rows, overlap=0.2)
    wider = math.sqrt(1 + 3 * 0.2)
    (value, _, high), found = apart["score"].interval("A3"), alike["score"].interval("A3")
    assert found.value == value and found.high - value == pytest.approx(wider * (high - value))
    number = comparisons.of("A3", "score", "A3")
    assert number.found(alike).se == pytest.approx(wider * number.found(apart).se)


def test_the_page_has_density_ratios_and_no_column_that_nobody_was_measured_of():
    found = study(
        **{name: {"A1": 0.5, "mean log ratio/0.3": -1.5} for name in ("baseline", "score")}
    )
    whole = {table.title: table for table in tables(found, {}, {})}
    assert whole["Models"].headings == ("model", "A1")
    ratios = whole["Density ratios of noisy and clean test images"]
    assert ratios.headings == ("model", "mean log ratio, 0.3")
    assert ratios.rows[0] == ("baseline", "-1.50 ± 0.00")


def test_planes_of_metrics_that_no_model_has_are_not_drawn():
    one = {"accuracy": 0.9, "gradient": 1.5, "PP/own/raw": 0.8}
    known = dict.fromkeys(("baseline", "blind-gaussian", "blind-flow"), one)
    assert not figures.figures(study(**known), (3,))
    both = study(**known | {"score": {"A3": 0.2, "gradient": 2.0}})
    assert list(figures.figures(both, (3,))) == ["trade-off"]
    assert len(figures.figures(both, (3,))["trade-off"][0].axes) == 1


def test_an_entry_is_json_without_nan(tmp_path):
    found = study(baseline={"A1": 0.1})["baseline"]
    found = replace(found, seeds=[*found.seeds, measured("baseline", 3, {})])
    write_json(tmp_path / "entry.json", entry(found))
    stored = json.loads((tmp_path / "entry.json").read_text())
    assert stored["metrics"]["A1"] == {"value": None, "low": None, "high": None}
    assert stored["seeds"] == 4 and stored["regularizer"] == "none"
