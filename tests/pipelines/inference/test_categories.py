"""Categories among the data of a flow: scores, samples and imputations in the source's types."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ebflow as library
from pipelines.config import DensityConfig
from pipelines.data.dataset import Dataset
from pipelines.inference.reference import Reference
from tests.prepared import prepare

from ..trainers import build
from .conftest import grouped, save_mlflow

OPTIONS = {"train": {"steps": 300, "batch_size": 128, "validate_every": 100, "lr": 0.01},
           "model": {"architecture": "dense"}}  # fmt: skip


def wards(rows, seed=0):
    """People with a group, which is text, and a ward, a dictionary."""
    table = grouped(rows, seed).select(["height", "weight", "group"])
    ward = np.random.default_rng(seed).choice(["12", "3"], rows, p=[0.8, 0.2])
    return table.append_column("ward", pa.array(ward).dictionary_encode())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder like a run's."""
    folder = tmp_path_factory.mktemp("wards")
    pq.write_table(wards(1_000), folder / "wards.parquet")
    prepare(folder / "wards.parquet", folder / "data", test=200)
    dataset = Dataset(folder / "data")
    trainer = build(DensityConfig(**OPTIONS), dataset)
    list(trainer.run())
    flow = trainer.flow.eval().requires_grad_(False)
    place = folder / "run" / "checkpoint"
    library.save(flow, place)
    splits = dataset.split("train"), dataset.split("test")
    Reference.of(flow, *splits).save(place, place)
    return folder / "run"


@pytest.fixture
def new(tmp_path):
    pq.write_table(wards(300, seed=1), tmp_path / "new.parquet")
    return tmp_path / "new.parquet"


def done(ebflow, *words):
    """Runs a command that ends well; returns the table that it wrote."""
    ebflow(*words).quiet()
    return pq.read_table(words[words.index("--output") + 1])


def test_samples_have_the_sources_types_and_levels(ebflow, trained, tmp_path):
    found = done(ebflow, "sample", trained, "-n", 4_000, "--output", tmp_path / "s.parquet")
    assert found.schema.equals(pq.read_schema(trained.parent / "wards.parquet"))
    assert set(found["group"].to_pylist()) == {"light", "middle", "heavy"}
    ward = np.array(found["ward"].to_pylist())
    assert set(ward) == {"3", "12"}
    assert np.mean(ward == "3") == pytest.approx(0.2, abs=0.1)


def test_scores_find_columns_and_levels_by_name(ebflow, trained, new, tmp_path):
    one = done(ebflow, "score", trained, new, "--output", tmp_path / "one.parquet")
    table = pq.read_table(new).select(["ward", "group", "weight", "height"])
    plain = table.set_column(0, "ward", table["ward"].cast(pa.string()))
    pq.write_table(plain, tmp_path / "turned.parquet")
    two = done(ebflow, "score", trained, tmp_path / "turned.parquet", "--output",
               tmp_path / "two.parquet")  # fmt: skip
    assert one.equals(two)
    assert np.isfinite(one["log_prob"].to_numpy()).all()


def test_a_new_level_is_impossible_and_stays_when_others_are_imputed(ebflow, trained, tmp_path):
    table = wards(20, seed=2)
    other = pa.array([*table["group"].to_pylist()[:19], "giant"])
    pq.write_table(table.set_column(2, "group", other), tmp_path / "new.parquet")
    words = (trained, tmp_path / "new.parquet", "--output", tmp_path / "s.parquet")
    assert done(ebflow, "impute", *words)["group"].to_pylist()[-1] == "giant"
    assert ebflow("score", *words).code == 0
    nats = pq.read_table(tmp_path / "s.parquet")["log_prob"].to_numpy()
    assert nats[19] == -np.inf and np.isfinite(nats[:19]).all()


def test_missing_levels_are_drawn(ebflow, trained, tmp_path):
    """The group of the 24 heaviest of 300 is heavy, of the lightest light: mostly, so early."""
    table = wards(300, seed=1).sort_by("weight")
    known = table["group"].to_pylist()
    gone = pa.array([None] * 24 + known[24:-24] + [None] * 24)
    pq.write_table(table.set_column(2, "group", gone), tmp_path / "new.parquet")
    found = done(ebflow, "impute", trained, tmp_path / "new.parquet", "--samples", 4,
                 "--sweeps", 1, "--output", tmp_path / "whole.parquet")  # fmt: skip
    assert found.schema.field("group").type == pa.string()
    drawn = np.array(found["group"].to_pylist()).reshape(300, 4)
    assert (drawn[24:-24] == np.array(known[24:-24])[:, None]).all()
    assert np.mean(drawn[-24:] == "heavy") > 0.5 and np.mean(drawn[:24] == "light") > 0.5
    assert found["ward"].to_pylist() == np.repeat(table["ward"].to_pylist(), 4).tolist()


def test_mlflow_knows_them(ebflow, trained, new, tmp_path):
    loaded = save_mlflow(trained, tmp_path / "model")
    kinds = {one.name: one.type.name for one in loaded.metadata.get_input_schema().inputs}
    assert kinds == {"height": "double", "weight": "double", "group": "string", "ward": "string"}
    frame = pq.read_table(new).to_pandas().astype({"ward": str})
    scores = done(ebflow, "score", trained, new, "--output", tmp_path / "s.parquet")
    found = loaded.predict(frame[["ward", "height", "group", "weight"]])
    assert found.shape == (300,) and np.isfinite(found).all()
    assert np.median(np.abs(found - scores["log_prob"].to_numpy())) < 2
