"""Columns of categories as data: the codes of their levels, from the source to the shards."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator
from ebflow.tables import Column, Columns
from pipelines.config import DataConfig
from pipelines.config.recipes import for_source
from pipelines.data.dataset import Dataset
from pipelines.data.schema import Schemas
from pipelines.data.sources import find_source
from pipelines.training.flow_training import build_training
from pipelines.training.preprocessing import fit_preprocessing
from tests.prepared import prepare

from .parquet import write

REGIONS, FLOORS = ("east", "north", "south"), ("high", "low", "middle")


def people(rows=200, seed=0):
    """Numbers, text and a dictionary."""
    draws = np.random.default_rng(seed)
    floors = pa.array(draws.choice(FLOORS, rows)).dictionary_encode()
    region = pa.array(draws.choice(REGIONS, rows), pa.large_string())
    return pa.table({"age": draws.normal(size=rows), "region": region, "floor": floors})


def with_nulls(rows=200):
    """The same with a region missing in every ninth row."""
    table = people(rows)
    gone = pa.array(np.arange(rows) % 9 == 4)
    region = pc.if_else(gone, None, table["region"])
    return table.set_column(1, "region", region)


@pytest.fixture
def prepared(tmp_path):
    pq.write_table(people(), tmp_path / "people.parquet")
    return prepare(tmp_path / "people.parquet", tmp_path / "data"), tmp_path


def test_the_manifest_has_columns_and_levels(prepared):
    manifest, folder = prepared
    assert manifest.columns.names == ["age", "region", "floor"]
    _, region, floor = (column.levels for column in manifest.columns)
    assert region == REGIONS and sorted(floor) == sorted(FLOORS)
    assert manifest.shape == (3,) and manifest.warnings == ()
    dataset = Dataset(folder / "data")
    assert dataset.manifest == manifest and dataset.split("train").categories == (0, 3, 3)


def test_rows_hold_codes(prepared):
    manifest, folder = prepared
    table = people()
    for shard in Dataset(folder / "data").manifest.shards:
        found = pq.read_table(folder / "data" / shard.file)
        x = np.stack(found["x"].to_numpy())
        for number, row in zip(found["row"].to_pylist(), x, strict=True):
            region, floor = (table[name][number].as_py() for name in ("region", "floor"))
            assert row[1:].tolist() == [
                REGIONS.index(region),
                manifest.columns[2].levels.index(floor),
            ]


@pytest.mark.parametrize("policy", ["drop", "impute"])
def test_missing_categories_are_left_out_or_drawn(tmp_path, policy):
    write(tmp_path / "people.parquet", with_nulls())
    manifest = prepare(tmp_path / "people.parquet", tmp_path / "data", missing=policy)
    split = Dataset(tmp_path / "data").split("train")
    codes = split.tensor()[:, 1]
    assert set(codes.tolist()) == {0, 1, 2}
    assert bool(manifest.incomplete) == (policy == "impute")
    if policy == "impute":
        drawn = codes[split.missing.any(1)]
        assert len(drawn) > 5 and set(drawn.tolist()) == {0, 1, 2}


def test_levels_are_of_all_files(tmp_path):
    (tmp_path / "raw").mkdir()
    for k, name in enumerate(("u", "v")):
        columns = {"x": np.arange(20.0) * (k + 1), "kind": [name] * 20}
        write(tmp_path / "raw" / f"{name}.parquet", columns)
    reader = find_source(tmp_path / "raw").reader()
    assert reader.columns[1].levels == ("u", "v") and reader.width == 2


KNOWN = Columns(
    [Column("x", "number", "double"), Column("kind", "category", "string", ("u", "v"))], "arrow"
)


def test_known_levels_are_not_detected_again(tmp_path):
    path = write(tmp_path / "new.parquet", {"x": [0.5, 0.1], "kind": ["v", "w"]})
    reader = find_source(path).reader(flow_schemas=Schemas(KNOWN, None))
    assert reader.width == 2
    with pytest.raises(BadInput, match=r"'kind', row 1: found 'w', expected a known level: u, v"):
        next(reader.batches())
    path = write(tmp_path / "known.parquet", {"x": [0.5], "kind": ["v"]})
    reader = find_source(path).reader(flow_schemas=Schemas(KNOWN, None))
    assert next(reader.batches()).x.tolist() == [[0.5, 1.0]]


def test_text_in_place_of_numbers_is_refused(tmp_path):
    path = write(tmp_path / "new.parquet", {"x": ["0.5", "b"], "kind": ["u", "v"]})
    with pytest.raises(BadInput, match=r"column 'x', row 1: found 'b', expected a number"):
        next(find_source(path).reader(flow_schemas=Schemas(KNOWN, None)).batches())


def test_rare_levels_are_one_code(tmp_path):
    kinds = [*"uv" * 100, "w", "z"]
    manifest = prepare(write(tmp_path / "in.parquet", {"x": np.arange(202) ** 0.5, "kind": kinds}),
                       tmp_path / "out")  # fmt: skip
    assert manifest.columns[1].levels == ("u", "v") and [*manifest.columns[1].rare] == ["w", "z"]
    assert manifest.warnings == ("column kind: category, 3 levels (2 rare ones grouped)",)


def test_a_training_has_exact_probabilities_of_categories(prepared):
    _, folder = prepared
    dataset = Dataset(folder / "data")
    config, _ = for_source(DataConfig(source=str(folder / "people.parquet")))
    preprocessing = fit_preprocessing(config.training.preprocess_fit, dataset)
    flow = build_training(config.training, dataset, preprocessing).flow
    assert flow.spec["options"]["categories"] == [0, 3, 3]
    rows = dataset.split("test").tensor()
    one, two = (flow.log_prob(rows, generator=RowGenerator(k, "noise")) for k in range(2))
    assert one.allclose(two, atol=1e-5)
