"""Timestamps and dates as numbers, and back."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from pipelines.data.dataset import Dataset
from pipelines.inference import tables
from tests.prepared import prepare

from .parquet import write

DAY = 86_400
FIRST = 1_700_000_000
KINDS = {
    "at": pa.timestamp("ms"),
    "zoned": pa.timestamp("us", tz="Europe/Berlin"),
    "day": pa.date32(),
}


def times():
    """Sixty rows of each kind, at times of which none is another's."""
    draw = np.random.default_rng(0)
    seconds = [FIRST + draw.permutation(60) * 90_061 for _ in KINDS]
    columns = {
        "at": pa.array(seconds[0] * 1_000, KINDS["at"]),
        "zoned": pa.array(seconds[1] * 1_000_000).cast(KINDS["zoned"]),
        "day": pa.array((seconds[2] // DAY).astype(np.int32), KINDS["day"]),
    }
    return pa.table(columns), np.stack([*seconds[:2], seconds[2] // DAY], 1)


def test_times_are_numbers_and_samples_are_times(tmp_path):
    table, numbers = times()
    manifest = prepare(write(tmp_path / "in.parquet", table), tmp_path / "out")
    assert [column.scale for column in manifest.columns] == ["seconds", "seconds", "days"]
    x = torch.cat([Dataset(tmp_path / "out").split(s).tensor() for s in manifest.counts])
    np.testing.assert_allclose(np.sort(x.numpy(), 0), np.sort(numbers, 0), rtol=1e-15)
    model = SimpleNamespace(columns=manifest.columns, context=None, label="model")
    back = tables.table(model, x)
    assert back.schema.types == list(KINDS.values())
    known = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert set(zip(*(column.to_pylist() for column in back.columns), strict=True)) == known
    shown = tables.examples(model, x, None)
    np.testing.assert_array_equal(manifest.columns.encode(shown), x.numpy())
