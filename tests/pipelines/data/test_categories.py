"""Columns of categories as data: the codes of their levels, from the source to the shards."""

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from ebflow.errors import BadInput
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import prepare
from pipelines.data.sources import find_source, open_source

from .parquet import write

REGIONS = ("east", "north", "south")


def people(rows=200, seed=0):
    """Numbers, text and a dictionary of integers."""
    draws = np.random.default_rng(seed)
    floors = pa.array(draws.choice([2, 10, 1], rows)).dictionary_encode()
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
    write_feather(people(), tmp_path / "people.feather")
    return prepare(tmp_path / "people.feather", tmp_path / "data"), tmp_path


def test_the_manifest_has_columns_and_levels(prepared):
    manifest, folder = prepared
    assert manifest.columns.names == ("age", "region", "floor")
    assert manifest.columns.categories == (None, REGIONS, ("1", "2", "10"))
    assert manifest.shape == (3,)
    remarks = [line for line in manifest.warnings if "holds categories" in line]
    assert len(remarks) == len(manifest.warnings) == 2
    assert "column region holds categories and is read as the codes 0 … 2" in remarks[0]
    assert Dataset(folder / "data").split("train").categories == (0, 3, 3)


def test_rows_hold_codes(prepared):
    _, folder = prepared
    table = people()
    for shard in Dataset(folder / "data").manifest.shards:
        found = pq.read_table(folder / "data" / shard.file)
        x = np.stack(found["x"].to_numpy())
        for number, row in zip(found["row"].to_pylist(), x, strict=True):
            region, floor = (table[name][number].as_py() for name in ("region", "floor"))
            assert row[1:].tolist() == [REGIONS.index(region), (1, 2, 10).index(floor)]


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
        columns = {"x": np.arange(20.0) + k, "kind": [name] * 20}
        write(tmp_path / "raw" / f"{name}.parquet", columns)
    layout = open_source(tmp_path / "raw").layout
    assert layout.data.levels == (None, ("u", "v")) and layout.width == 2


def test_known_levels_are_not_read_again(tmp_path):
    path = write(tmp_path / "new.parquet", {"x": [0.5, 0.1], "kind": ["v", "w"]})
    reader = find_source(path).reader(columns=["x", "kind"], categories=[None, ("u", "v")])
    assert reader.layout.width == 2
    with pytest.raises(BadInput, match=r"row 1, column kind: found 'w', expected a level .*u, v"):
        reader.window(0, 2)
    assert reader.window(0, 1).tolist() == [[0.5, 1.0]]


def test_text_in_place_of_numbers_is_refused(tmp_path):
    path = write(tmp_path / "new.parquet", {"x": ["a", "b"]})
    with pytest.raises(BadInput, match=r"column x: found string, expected a number"):
        find_source(path).reader(columns=["x"], categories=[None])


def test_levels_are_those_of_training_rows(tmp_path):
    """A level of rows that are not used is none; one of test rows alone is refused by its row."""
    kinds = [*"uv" * 30]
    kinds[41] = "w"
    columns = {"x": np.arange(60.0), "kind": kinds, "split": [*["train"] * 40, *["test"] * 20]}
    path = write(tmp_path / "in.parquet", columns)
    with pytest.raises(BadInput, match=r"row 41, column kind: found 'w', expected .*: u, v"):
        prepare(path, tmp_path / "out")
    del columns["split"]
    path, levels = write(tmp_path / "undivided.parquet", columns), set()
    for seed in range(8):
        options = {"rows": 30, "validation": 2, "test": 2, "seed": seed}
        with contextlib.suppress(BadInput):  # of the seeds that test or validate on it
            levels.add(prepare(path, tmp_path / str(seed), **options).columns.categories[1])
    assert levels == {("u", "v"), ("u", "v", "w")}
