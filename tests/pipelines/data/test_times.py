"""Timestamps and dates as numbers, and back."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.answers import tables
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import prepare

from .parquet import write

DAY = 86_400
FIRST = 1_700_000_000
KINDS = {
    "at": pa.timestamp("ms"),
    "zoned": pa.timestamp("us", tz="Europe/Berlin"),
    "day": pa.date32(),
}


@pytest.fixture
def times():
    """Sixty rows of each kind, at times of which none is another's."""
    seconds = FIRST + np.random.default_rng(0).permutation(60) * 90_061
    columns = {
        "at": pa.array(seconds * 1_000, KINDS["at"]),
        "zoned": pa.array(seconds * 1_000_000).cast(KINDS["zoned"]),
        "day": pa.array((seconds // DAY).astype(np.int32), KINDS["day"]),
    }
    return pa.table(columns), seconds


@pytest.mark.parametrize(("unit", "length"), [("seconds", 1), ("days", DAY)])
def test_times_are_numbers_and_samples_are_times(times, tmp_path, unit, length):
    table, seconds = times
    found = prepare(write(tmp_path / "in.parquet", table), tmp_path / "out", timestamps=unit)
    assert found.columns.timestamps == unit
    assert f"columns at, zoned, day hold times, read as {unit} since 1970" in found.warnings
    split = Dataset(tmp_path / "out").split("train")
    whole = torch.cat([Dataset(tmp_path / "out").split(s).tensor() for s in found.counts])
    expected = np.stack([seconds, seconds, seconds // DAY * DAY], 1) / length
    np.testing.assert_allclose(np.sort(whole.numpy(), 0), np.sort(expected, 0), rtol=1e-15)
    model = SimpleNamespace(
        categories=[None] * 3,
        columns=found.columns.model_dump(), names=found.columns.names, label="model", given={},
        flow=SimpleNamespace(event_shape=(3,), like=torch.zeros((), dtype=torch.float64)),
    )  # fmt: skip
    back = tables.table(model, split.tensor())
    assert back.schema.types == list(KINDS.values())
    known = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert set(zip(*(column.to_pylist() for column in back.columns), strict=True)) <= known
    shown = tables.examples(model, split.tensor(), None)
    np.testing.assert_array_equal(shown.to_numpy(), split.tensor().numpy())
