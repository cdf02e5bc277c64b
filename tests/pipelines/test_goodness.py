"""The transform of latents, which is uniform of a true flow, and the rows that are compared."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from ebflow.randomness import generator
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import prepare
from pipelines.density.fit import Pit, _frame
from tests.library.conftest import double_precision  # noqa: F401


def test_latents_of_a_true_flow_have_a_uniform_transform():
    u = torch.randn(500, 2, 3, generator=generator(0, "u"), dtype=torch.float64)
    found = Pit.of(u)
    expected = stats.chi2(6).cdf(u.flatten(1).square().sum(1).numpy())
    torch.testing.assert_close(found.values, torch.from_numpy(expected))
    assert found.p_value > 0.01 and found.distance < found.bound
    assert Pit.of(1.2 * u).p_value < 1e-6


def test_rows_with_text_and_times_are_compared_in_their_types(tmp_path):
    table = pa.table({
        "city": pa.array(["Bern", "Rome"] * 50, pa.string()),
        "day": pa.array([datetime.date(2024, 1, 1 + k % 28) for k in range(100)]),
        "size": np.random.default_rng(0).normal(size=100),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    manifest = prepare(tmp_path / "rows.parquet", tmp_path / "data", test=20)
    found = _frame(manifest, next(Dataset(tmp_path / "data").split("test").batches(20)))
    assert found.schema.types == table.schema.types and found.num_rows == 20
