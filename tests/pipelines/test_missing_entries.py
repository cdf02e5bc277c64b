"""Rows that lack entries, from the file to the trained flow."""

import numpy as np
import pandas as pd
import pytest

from ebflow.errors import BadInput
from pipelines.config import DensityConfig
from pipelines.data.dataset import Dataset
from pipelines.density.graph import check
from tests.prepared import prepare

from .conftest import Store
from .trainers import build

OPTIONS = {"train": {"steps": 6, "batch_size": 64, "validate_every": 3, "log_every": 3}}


@pytest.fixture
def file(tmp_path):
    """300 rows of three columns, a tenth of whose entries is missing."""
    noise = np.random.default_rng(0)
    x = noise.normal(size=(300, 3)) @ [[1, 0.8, 0.2], [0, 0.6, 0.4], [0, 0, 1]]
    rows = pd.DataFrame(x, columns=list("abc")).mask(noise.random(x.shape) < 0.1)
    rows.to_parquet(tmp_path / "holes.parquet", index=False)
    return tmp_path / "holes.parquet"


def test_a_training_draws_what_rows_lack(file, tmp_path, monkeypatch):
    monkeypatch.setattr("ebflow.imputation.RESAMPLE_EVERY", 2)
    prepare(file, tmp_path / "data", missing="impute")
    dataset = Dataset(tmp_path / "data")
    split = dataset.split("train")
    before = split.tensor().clone()
    trainer = build(DensityConfig(**OPTIONS), dataset)
    events = list(trainer.run())
    assert np.isfinite(events[-1].metrics["val/nll"])
    changed = split.tensor() != before
    assert changed.any() and not (changed & ~split.missing).any()


def test_rows_that_memory_does_not_hold_are_not_imputed(file, monkeypatch):
    monkeypatch.setattr("pipelines.density.graph.BUDGET", 1_000)
    data = {"source": str(file), "missing": "impute"}
    check(DensityConfig(data={**data, "missing": "drop"}, **OPTIONS))
    with pytest.raises(BadInput, match="data.missing: found impute with 5760 bytes of training"):
        check(DensityConfig(data=data, **OPTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["drop", "impute"])
def test_a_run_reports_complete_test_rows(file, tmp_path, policy):
    store = Store(tmp_path)
    store.run(
        "run", "density", "--data.source", file, "--data.missing", policy, "--train.steps", 40,
        "--train.batch-size", 32, "--train.validate-every", 20, "--name", policy,
    )  # fmt: skip
    summary = store.summary(policy)
    assert np.isfinite(summary["test/nll"])
    text = "values and are dropped" if policy == "drop" else "values, which are imputed"
    assert any(text in line for line in summary["warnings"]), summary["warnings"]
