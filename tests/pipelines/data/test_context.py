"""Columns of context: kept row by row beside the data, one-hot where they are categories."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from ebflow.errors import BadInput
from pipelines.data.arrays import array_table
from pipelines.data.dataset import Dataset
from tests.prepared import prepare

from .parquet import table, write
from .test_labels import labelled

SPLITS = ("train", "validation", "test")
REGIONS = ("east", "north", "south")


def given(rows=60):
    """A table whose column a says what the context of its row is."""
    found = table(rows)
    region = np.arange(rows) % 3
    age = 1000.0 + np.arange(rows) % 7
    found = found.set_column(0, "a", pa.array(10 * age + region))
    return found.append_column("age", [age.astype("int32")]).append_column(
        "region", [np.array(REGIONS)[region]]
    )


def expected(x):
    """The context of rows of that table, by their column a."""
    region = (x[:, :1] % 10).long()
    one_hot = (region == torch.arange(3)).double()
    return torch.cat([(x[:, :1] - region) / 10, one_hot], 1)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string())])
def test_every_row_keeps_its_context(tmp_path, kind):
    columns = given()
    region = columns["region"].cast(kind)
    file = write(tmp_path / "in.parquet", columns.set_column(4, "region", region))
    manifest = prepare(file, tmp_path / "out", context=["age", "region"], shard_rows=7)
    assert manifest.columns.names == ["a", "b", "c"]
    assert manifest.context.columns.names == ["age", "region"]
    assert [column.levels for column in manifest.context.columns] == [(), REGIONS]
    dataset = Dataset(tmp_path / "out")
    assert dataset.manifest == manifest
    for name in SPLITS:
        split = dataset.split(name)
        x, context = split.resident
        assert torch.equal(context, expected(x)) and split.context_width == 4
        streamed = Dataset(tmp_path / "out").split(name)
        for batch in streamed.batches(5):
            assert torch.equal(batch.context, expected(batch.x))
        small = streamed.shuffled(2, seed=1, budget_bytes=8 * (streamed.row_bytes + 8))
        for _ in range(9):
            batch = next(small)
            assert torch.equal(batch.context, expected(batch.x))


def test_its_statistics_are_those_of_training_rows(tmp_path):
    prepare(write(tmp_path / "in.parquet", given()), tmp_path / "out", context=["age", "region"])
    dataset = Dataset(tmp_path / "out")
    context = dataset.split("train").resident.context
    known = dataset.manifest.context
    torch.testing.assert_close(torch.tensor(known.mean).double(), context.mean(0))
    torch.testing.assert_close(torch.tensor(known.std).double(), context.std(0, correction=0))


@pytest.mark.parametrize(("name", "label", "labels", "levels"), [
    ("label", "label", np.arange(60) % 3, (0, 1, 2)),
    ("label", None, np.arange(60) % 3, (0, 1, 2)),
    ("kind", "kind", 9 + np.arange(60) % 3, (9, 10, 11)),
    ("kind", "kind", np.array(REGIONS)[np.arange(60) % 3], REGIONS),
])  # fmt: skip
def test_the_classes_are_a_category(tmp_path, name, label, labels, levels):
    file = labelled(tmp_path, labels, name)
    manifest = prepare(file, tmp_path / "out", label=label, context=["label"])
    assert manifest.classes == 3 and manifest.context.columns[0].levels == levels
    for split in map(Dataset(tmp_path / "out").split, SPLITS):
        x, context = split.resident
        assert torch.equal(split.labels(), x[:, 0].long())
        assert torch.equal(context.argmax(1), x[:, 0].long())


def test_images_that_lack_a_context_are_dropped(tmp_path):
    images = array_table(np.zeros((60, 2, 2), np.uint8), 256, c=[None, *map(float, range(59))])
    manifest = prepare(
        write(tmp_path / "in.parquet", images), tmp_path / "out", context=["c"], missing="drop"
    )
    assert sum(manifest.counts.values()) == 59


def test_rows_that_lack_a_context_are_dropped_if_so_told(tmp_path):
    columns = given()
    region = columns["region"].to_pylist()
    region[3] = region[8] = None
    columns = columns.set_column(4, "region", pa.array(region))
    file = write(tmp_path / "in.parquet", columns)
    with pytest.raises(BadInput, match="column 'region', row 3: found null"):
        prepare(file, tmp_path / "out", context=["region"])
    manifest = prepare(file, tmp_path / "out", context=["region"], missing="drop")
    assert sum(manifest.counts.values()) == 58
    for split in map(Dataset(tmp_path / "out").split, SPLITS):
        x, context = split.resident
        assert torch.equal(context, expected(x)[:, 1:])
