"""A small trained flow of a table, as a run leaves one."""

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ebflow
from pipelines.data.dataset import Dataset
from pipelines.inference.models import load
from pipelines.inference.reference import Reference
from pipelines.inference.sampling import samples
from pipelines.inference.tables import examples
from pipelines.tracking.models import _parts
from pipelines.training.flow_training import _columns
from tests.prepared import prepare

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


CONTEXT = ("group", "smoker")


def grouped(rows, seed=0):
    """The same with a category of the weight."""
    found = people(rows, seed)
    heavy = (found["weight"].to_numpy() > 70) + 1 * (found["weight"].to_numpy() > 80)
    return found.append_column("group", [np.array(["light", "middle", "heavy"])[heavy]])


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder like a run's, of a flow that was trained for a moment."""
    return trained(tmp_path_factory.mktemp("model"), people(1_000))


@pytest.fixture(scope="session")
def conditional(tmp_path_factory):
    """The same of a flow of height, weight and count given the others."""
    return trained(tmp_path_factory.mktemp("conditional"), grouped(1_000), context=CONTEXT)


def trained(folder, table, bounds=None, **options):
    pq.write_table(table, folder / "people.parquet")
    manifest = prepare(folder / "people.parquet", folder / "data", test=400, **options)
    train, test = (Dataset(folder / "data").split(name) for name in ("train", "test"))
    net = {"architecture": "autoregressive", "options": {"depth": 1}}
    short = {"steps": 60, "progress": False, "bounds": bounds, **net}
    flow = ebflow.fit(*train.resident, **short)
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


@pytest.fixture
def grouped_file(tmp_path):
    """New rows with their contexts."""
    pq.write_table(grouped(1_000, seed=1), tmp_path / "grouped.parquet", row_group_size=300)
    return tmp_path / "grouped.parquet"


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """A folder like a run's, of an untrained flow of digits."""
    return untrained(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def class_model(tmp_path_factory):
    """The same of a flow of each class."""
    return untrained(tmp_path_factory.mktemp("classes"), context=["label"])


def untrained(folder, **options):
    manifest = prepare("digits", folder / "data", **options)
    train = Dataset(folder / "data").split("train")
    short = {"levels": 17, "steps": 2, "architecture": "dense", "progress": False}
    flow = ebflow.fit(*train.resident, **short)
    flow.columns = _columns(manifest)
    ebflow.save(flow, folder / "checkpoint")
    return folder


def examples_of(model):
    """Four samples in the form of an example of an MLflow model, given the mean context if any."""
    flow = model.flow
    context = flow.context_mean.expand(4, -1).double() if flow.context else None
    return examples(model, *next(samples(model, 4, 0, context)))


def save_mlflow(model, folder):
    """Writes the MLflow model of a checkpoint's folder; loads it."""
    parts = _parts(model, examples_of(load(str(model))))
    mlflow.pyfunc.save_model(folder, **parts)
    return mlflow.pyfunc.load_model(str(folder))
