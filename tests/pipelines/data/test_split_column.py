"""A column of the source that names the split of each row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from pipelines.data import reader as rows_of
from pipelines.data.dataset import Dataset
from pipelines.data.sources import find_source
from pipelines.data.splits import Counts
from tests.prepared import prepare

from .parquet import images, lists, table, tree, write
from .test_prepare import stored

MIXED = ["test", "train", "valid", "train", "train"] * 12
ORDER = ["train"] * 50 + ["test"] * 10


def named(path, names, name="split", data=None, **options):
    """Writes 60 rows and the names of their splits."""
    data = table() if data is None else data
    column = names if isinstance(names, pa.Array) else pa.array(names)
    return write(path / "in.parquet", data.append_column(name, column), **options)


def rows(folder, manifest):
    return {split: stored(folder, manifest, split)[1].tolist() for split in manifest.counts}


@pytest.mark.parametrize("encode", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_those_of_the_column_in_order(encode, seed, tmp_path):
    names = pa.array(MIXED)
    file = named(tmp_path, names.dictionary_encode() if encode else names, row_group_size=7)
    manifest = prepare(file, tmp_path / "out", seed=seed)
    where = {split: [k for k in range(60) if MIXED[k] in called] for split, called in (
        ("train", ["train"]), ("validation", ["valid"]), ("test", ["test"])
    )}  # fmt: skip
    assert rows(tmp_path / "out", manifest) == where
    assert manifest.columns.names == ["a", "b", "c"]
    assert manifest.assignment == "column split names 36 train, 12 validation, 12 test rows"


def test_integers_called_split_are_told_to_decide_nothing(tmp_path):
    manifest = prepare(named(tmp_path, [0, 1, 2] * 20), tmp_path / "out")
    assert manifest.columns.names == ["a", "b", "c", "split"]
    (line,) = (line for line in manifest.warnings if line.startswith("column split holds int64"))
    assert "was not used for the splits" in line and "train, validation, test" in line


def test_a_folder_may_name_a_split_a_file(tmp_path):
    (tmp_path / "in").mkdir()
    for split in ("test", "train", "val", "selection"):
        data = table().append_column("split", pa.array([split] * 60))
        write(tmp_path / "in" / f"{split}.parquet", data)
    manifest = prepare(tmp_path / "in", tmp_path / "out")
    assert manifest.counts == dict.fromkeys(("train", "validation", "test", "selection"), 60)
    assert rows(tmp_path / "out", manifest)["selection"] == list(range(60))


def test_the_column_may_have_another_name_and_stand_beside_images(tmp_path):
    data = pa.table({"image": lists(images()), "label": np.arange(60) % 2})
    file = named(tmp_path, MIXED, "part", data)
    manifest = prepare(file, tmp_path / "out", split_column="part", label="label")
    assert manifest.counts == {"train": 36, "validation": 12, "test": 12}
    assert Dataset(tmp_path / "out").split("test").labels().tolist() == [0, 1] * 6


def test_a_split_that_it_does_not_name_is_drawn_from_its_training_rows(tmp_path):
    file = named(tmp_path, ORDER)
    found = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(found)}"
        manifest = prepare(file, out, seed=seed, validation=20)
        found.append(rows(out, manifest))
        assert found[-1]["test"] == list(range(50, 60)) and len(found[-1]["validation"]) == 20
        assert sorted(found[-1]["train"] + found[-1]["validation"]) == list(range(50))
    assert found[0] == found[1] != found[2]
    assert manifest.assignment == (
        "column split names 50 train, 10 test rows; validation rows are random (PCG64, seed 1) of "
        "the training rows"
    )


def test_the_last_training_rows_may_be_held_out(tmp_path):
    """As published numbers on MNIST have it: the last 10,000 training images."""
    manifest = prepare(named(tmp_path, ORDER), tmp_path / "out", validation=20, held_out="last")
    assert rows(tmp_path / "out", manifest) == {
        "train": list(range(30)), "validation": list(range(30, 50)), "test": list(range(50, 60)),
    }  # fmt: skip
    assert manifest.assignment.endswith("; validation rows are the last of the training rows")


def test_without_a_column_the_last_rows_may_be_held_out_too(tmp_path):
    file = write(tmp_path / "in.parquet", table())
    manifest = prepare(file, tmp_path / "out", validation=6, test=4, held_out="last")
    assert rows(tmp_path / "out", manifest) == {
        "train": list(range(50)), "validation": list(range(50, 56)), "test": list(range(56, 60)),
    }  # fmt: skip


def test_splits_may_be_drawn_and_fewer_rows_used_and_a_share_is_of_all_rows(tmp_path):
    reader = find_source(named(tmp_path, ["train"] * 60)).reader()
    assert reader.counts() == Counts(48, 6, 6)
    assert reader.counts(rows=40) == Counts(32, 4, 4)
    reader = find_source(named(tmp_path, ORDER)).reader()
    assert reader.counts(test=4, validation=6) == Counts(44, 6, 4)
    assert reader.counts(rows=40, validation=10) == Counts(20, 10, 10)


def test_a_column_of_numbers_called_split_is_a_feature(tmp_path):
    file = named(tmp_path, np.linspace(0, 1, 60))
    assert find_source(file).reader().layout.columns == ("a", "b", "c", "split")


def bad(row, value):
    return [*ORDER[:row], value, *ORDER[row + 1 :]]


CASES = {
    "unknown": (bad(7, "trian"), {},
        r"in.parquet, column 'split', row 7: found 'trian', expected"),
    "null": (bad(53, None), {},
        r"column 'split', row 53: found null, expected one of train, valid"),
    "no training rows": (["test"] * 60, {},
        r"column 'split': found no training row, expected some"),
    "too many": (ORDER, {"validation": 49}, r"found 60 rows, expected at least 61: 49 for valid"),
    "no such column": (ORDER, {"split_column": "part"},
        r"column 'part': no such column, expected one with names of splits of a, b, c, split. "
        r"Choose others by --data.split-column"),
    "numbers": (ORDER, {"split_column": "a"},
        r"column 'a': found double, expected names of splits"),
    "a feature": (ORDER, {"columns": ["a", "split"]},
        r"columns: found split, names of splits \(split_column\), expected features"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_contradictions_are_one_line_before_anything_is_written(case, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_of, "BATCH_BYTES", 128)
    names, options, message = case
    file = named(tmp_path, names, row_group_size=20)
    before = tree(tmp_path)
    with pytest.raises(BadInput, match=message) as caught:
        prepare(file, tmp_path / "out", **options)
    assert len(str(caught.value).splitlines()) == 1 and tree(tmp_path) == before


def test_files_that_do_not_both_have_the_column_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "one.parquet", table().append_column("split", pa.array(ORDER)))
    write(tmp_path / "in" / "two.parquet", table())
    with pytest.raises(BadInput, match=r"two.parquet, column 'split': found no such column, exp"):
        find_source(tmp_path / "in").reader()


def test_units_of_columns_are_kept(tmp_path):
    fields = [pa.field("a", pa.float32(), metadata={"unit": "µm"}), pa.field("b", pa.float64())]
    data = pa.table(
        {"a": np.sqrt(np.arange(60, dtype="f4")), "b": np.cos(np.arange(60.0))}, pa.schema(fields)
    )
    manifest = prepare(write(tmp_path / "in.parquet", data), tmp_path / "out")
    assert Dataset(tmp_path / "out").manifest.columns == manifest.columns
    assert [(c.name, c.dtype, c.unit) for c in manifest.columns] == [
        ("a", "float", "µm"), ("b", "double", None),
    ]  # fmt: skip
    assert [column.label for column in manifest.columns] == ["a [µm]", "b"]


@pytest.mark.parametrize("unit", [b"", b"a\nb", b"x" * 61])
def test_a_unit_that_cannot_be_shown_is_one_line(unit, tmp_path):
    fields = [pa.field("a", pa.float64(), metadata={b"unit": unit})]
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"a": np.arange(60.0)}, pa.schema(fields)), file)
    with pytest.raises(BadInput, match=r"in.parquet, key 'unit', column 'a': found .*") as caught:
        find_source(file).reader()
    assert str(caught.value).isprintable()
