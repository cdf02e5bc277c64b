"""A trained flow by its names: a run's folder, its checkpoint, a registered model."""

import shutil

import mlflow
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from pipelines.inference.models import load
from pipelines.tracking.backend import default_store
from pipelines.tracking.models import log_model
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect

from .conftest import examples_of


@pytest.fixture
def registered(tracking_home, model):
    """The flow of people as version 1 of a model with an alias."""
    tracker = connect("tests", "key")
    run = StageRun(tracker.client, tracker.start("people / 1", {}))
    log_model(run, model / "checkpoint", examples_of(load(str(model))))
    with default_store(tracker.client.tracking_uri):
        mlflow.register_model(f"runs:/{run.id}/people - 1", "people")
    tracker.client.set_registered_model_alias("people", "champion", "1")
    return "models:/people@champion"


def test_all_names_mean_one_flow(registered, model, people_file, ebflow, tmp_path):
    tables = []
    for name in (model, model / "checkpoint", registered, "models:/people/1"):
        output = tmp_path / f"s{len(tables)}.parquet"
        ebflow("score", name, people_file, "--output", output).quiet()
        tables.append(pq.read_table(output))
    assert all(table.equals(tables[0]) for table in tables)


@pytest.mark.parametrize("name", ["models:/people@nobody", "models:/people/7", "models:/none@x"])
def test_a_name_that_is_not_registered_is_one_line(registered, name, ebflow):
    result = ebflow("score", name, "digits", "--output", "s.parquet")
    assert f"MODEL: found {name}, expected a registered model" in result.refusal


def test_a_damaged_checkpoint_is_one_line(model, tmp_path):
    shutil.copytree(model, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadInput, match=": corrupt"):
        load(str(tmp_path / "run"))
