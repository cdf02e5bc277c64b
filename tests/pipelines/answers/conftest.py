"""A small trained flow of a table, as a run leaves one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ebflow
from ebflow.data.loader import Dataset
from ebflow.data.prepare import prepare
from ebflow.reference import Reference
from pipelines.training.loop import _columns

NAMES = ("height", "weight", "count", "smoker")


def people(rows, seed=0):
    """A table of reals, integers and booleans that depend on each other."""
    draws = np.random.default_rng(seed)
    height = draws.normal(170, 10, rows)
    weight = 0.9 * height - 80 + draws.normal(0, 6, rows)
    count = draws.poisson(np.exp((weight - 70) / 40 + 1))
    smoker = draws.random(rows) < 1 / (1 + np.exp(-(count - 3)))
    metres = pa.array(height / 100, pa.float32())
    return pa.table(dict(zip(NAMES, (metres, weight, count, smoker), strict=True)))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder like a run's, of a flow that was trained for a moment."""
    folder = tmp_path_factory.mktemp("model")
    pq.write_table(people(1_000), folder / "people.parquet")
    manifest = prepare(folder / "people.parquet", folder / "data", test=400)
    train, test = (Dataset(folder / "data").split(name) for name in ("train", "test"))
    flow = ebflow.fit(train.tensor(), steps=60, architecture="autoregressive", progress=False)
    flow.columns = _columns(manifest)
    ebflow.save(flow, folder / "run" / "checkpoint")
    place = folder / "run" / "checkpoint"
    Reference.of(flow, train, test).save(place, place)
    return folder / "run"


@pytest.fixture
def people_file(tmp_path):
    """New rows of that table."""
    pq.write_table(people(1_000, seed=1), tmp_path / "new.parquet", row_group_size=300)
    return tmp_path / "new.parquet"


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """A folder like a run's, of an untrained flow of digits."""
    folder = tmp_path_factory.mktemp("images")
    manifest = prepare("digits", folder / "data")
    train = Dataset(folder / "data").split("train")
    flow = ebflow.fit(train.tensor(), levels=17, steps=2, architecture="dense", progress=False)
    flow.columns = _columns(manifest)
    ebflow.save(flow, folder / "checkpoint")
    return folder


def told(model):
    """What the checkpoint of a model keeps of the columns."""
    return json.loads((model / "checkpoint" / "state.json").read_text())["columns"]
