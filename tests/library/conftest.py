"""Tests of the mathematics: in float64, on one thread, on real prepared data."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_diabetes

from pipelines.data.dataset import Dataset
from tests.prepared import prepare


@pytest.fixture(autouse=True)
def double_precision(reproducible):
    """Makes float64 the default type of a test."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def single_precision(double_precision):
    """Makes float32 the default type, as it is for a user."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Handwritten digits: 64 integer features of 17 levels, 1297 training rows."""
    folder = tmp_path_factory.mktemp("digits") / "out"
    prepare("digits", folder)
    return Dataset(folder)


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory):
    """Handwritten digits, 100 of them for training."""
    folder = tmp_path_factory.mktemp("few") / "out"
    prepare("digits", folder, rows=700, validation=500, test=100)
    return Dataset(folder)


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory):
    """Nine of the ten columns of the diabetes data (one is binary): continuous features."""
    folder = tmp_path_factory.mktemp("diabetes")
    frame = load_diabetes(as_frame=True, scaled=False).data.drop(columns="sex")
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "in.parquet")
    prepare(folder / "in.parquet", folder / "out", validation=50, test=50)
    return Dataset(folder / "out")


@pytest.fixture
def turn(monkeypatch):
    """Returns a function that lets seconds pass."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def pass_(seconds):
        now[0] += seconds

    return pass_
