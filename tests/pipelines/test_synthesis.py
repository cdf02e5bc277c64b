"""The stage that checks synthetic rows, and the models that give them."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from docs.measurements import synthesize
from docs.measurements.synthesis import SYNTHESIS
from pipelines.data.dataset import Dataset
from pipelines.paper.config import RivalConfig
from tests.prepared import prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """400 rows of two numbers, and a category that says which sign they have."""
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("synthesis")
    side = noise.random(400) < 0.3
    x = np.where(side, 3.0, -3.0) + noise.normal(size=400)
    columns = {"x": x, "y": x + 0.1 * noise.normal(size=400), "sign": np.where(side, "+", "-")}
    pq.write_table(pa.table(columns), folder / "in.parquet")
    prepare(folder / "in.parquet", folder / "data", test=0.2, validation=0.1)
    return folder / "data"


def test_a_mixture_gives_levels_and_numbers_that_belong_together(data):
    manifest = Dataset(data).manifest
    train = manifest.columns.decode(Dataset(data).split("train").tensor().double().numpy())
    found = synthesize.SAMPLERS["gmm"](RivalConfig(rival="gmm"), train, manifest.columns)
    frame = found.to_pandas()
    assert found.schema == train.schema and len(frame) == len(train)
    assert ((frame["x"] > 0) == (frame["sign"] == "+")).mean() > 0.98
    assert 0.2 < (frame["sign"] == "+").mean() < 0.4


@pytest.mark.parametrize("name", [name for name in SYNTHESIS.rivals if name != "tvae"])
def test_a_model_is_checked(data, name):
    found = {}
    run = SimpleNamespace(open=lambda config, data: data, write_metrics=found.update)
    synthesize.synthesize(RivalConfig(rival=name, steps=20), data, run=run)
    assert json.dumps(found)
    shares = [f"study/{figure}" for figure in synthesize.FIGURES]
    assert all(0 <= found[share] <= 1 for share in shares)
    assert found["study/prediction_real"] > 0.95 and found["time/cpu_s"] > 0


def test_a_level_without_training_rows_is_no_error(data):
    manifest = Dataset(data).manifest
    train = manifest.columns.decode(Dataset(data).split("train").tensor().double().numpy())
    some = train.filter(pc.equal(train["sign"], "-"))
    found = synthesize.SAMPLERS["gmm"](RivalConfig(rival="gmm"), some, manifest.columns)
    assert {*found["sign"].to_pylist()} == {"-"}
