"""The rows that are compared."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.dataset import Dataset
from pipelines.density.fit import _frame
from tests.library.conftest import double_precision  # noqa: F401
from tests.prepared import prepare


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
