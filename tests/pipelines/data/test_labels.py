"""Classes beside the data: kept row by row in every split, checked, and otherwise left alone."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits

from ebflow.errors import BadInput
from pipelines.data.dataset import Dataset
from pipelines.data.sources import find_source
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.gradient_alignment.flow import Smoothed
from pipelines.gradient_alignment.reference import unit_rows
from tests.prepared import prepare

from .bad_folders import replace_shard
from .parquet import images, lists, table, write

SPLITS = ("train", "validation", "test")


def labelled(path, labels=None, name="label", **columns):
    """Writes images whose first pixel is their class, 0 … 2."""
    pixels = images()
    kinds = np.arange(60) % 3 if labels is None else labels
    pixels[:, 0] = np.arange(60) % 3
    return write(path / "in.parquet", {"image": lists(pixels), name: kinds, **columns})


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int16"])
def test_every_row_keeps_its_class(tmp_path, dtype):
    file = labelled(tmp_path, (np.arange(60) % 3).astype(dtype))
    manifest = prepare(file, tmp_path / "out", label="label", shard_rows=7)
    dataset = Dataset(tmp_path / "out")
    assert manifest.classes == dataset.manifest.classes == 3
    for name in SPLITS:
        split = dataset.split(name)
        assert split.labels().dtype == torch.int64
        torch.testing.assert_close(split.labels(), split.tensor()[:, 0].long())


def test_digits_have_the_classes_of_their_source(tmp_path):
    prepare("digits", tmp_path / "out", label="label")
    split = Dataset(tmp_path / "out").split("test")
    found = pq.read_table(tmp_path / "out" / split.shards[0].file)
    known = load_digits().target[found["row"].to_numpy()]
    np.testing.assert_array_equal(split.labels().numpy(), known)


def test_a_column_of_classes_is_no_feature(tmp_path):
    columns = {"a": np.arange(60) % 3, "b": np.linspace(0, 1, 60), "c": np.linspace(1, 0, 60)}
    file = write(tmp_path / "in.parquet", columns)
    assert find_source(file).reader().layout.columns == ("a", "b", "c")
    assert find_source(file).reader(label="a").layout.columns == ("b", "c")
    prepare(file, tmp_path / "out", label="a")
    assert Dataset(tmp_path / "out").manifest.columns.names == ["b", "c"]


def test_data_without_classes_are_as_before(tmp_path):
    prepare(labelled(tmp_path), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.manifest.classes is None
    assert pq.read_schema(tmp_path / "out" / dataset.manifest.shards[0].file).names == ["x", "row"]
    with pytest.raises(BadInput, match=r"out: found data without classes, expected some"):
        dataset.split("train").labels()


def kinds(**changed):
    found = (np.arange(60) % 3).astype(object)
    for row, value in changed.items():
        found[int(row[1:])] = value
    return pa.array(list(found))


@pytest.mark.parametrize(("labels", "message"), [
    (kinds(r4=None), r"in.parquet, column 'label', row 4: found null, expected a class"),
    (kinds(r5=-1), r"column 'label', row 5: found -1, expected a class 0 … 9999"),
    (kinds(r6=10**6), r"column 'label', row 6: found 1000000, expected a class"),
    (pa.array([0.5] * 60), r"column 'label': found double, expected integer classes"),
    (pa.array([0] * 60), r"column 'label': found one class in all .*, expected two"),
    (pa.array([0, 2] * 30), r"found no row of class 1 in all .*, expected all"),
])  # fmt: skip
def test_bad_classes_are_told_and_nothing_is_written(tmp_path, labels, message):
    file = labelled(tmp_path, labels)
    with pytest.raises(BadInput, match=message):
        prepare(file, tmp_path / "out", label="label")
    assert not (tmp_path / "out").exists()


def test_a_missing_column_of_classes_is_told(tmp_path):
    message = r"column 'kind': no such column, expected one with integer cl.* of image, label"
    with pytest.raises(BadInput, match=message):
        find_source(labelled(tmp_path)).reader(label="kind")
    with pytest.raises(BadInput, match="column 'label': no such column, expected one with int"):
        find_source("sine").reader(label="label")


def test_classes_are_no_chosen_feature(tmp_path):
    file = write(tmp_path / "in.parquet", table())
    with pytest.raises(BadInput, match=r"columns: found a, the classes \(label\)"):
        find_source(write(file, table().set_column(0, "a", kinds()))).reader(["a", "b"], "a")


def test_levels_and_real_rows_are_mapped_from_their_range(tmp_path):
    prepare("digits", tmp_path / "digits")
    split = Dataset(tmp_path / "digits").split("test")
    torch.testing.assert_close(unit_rows(split), split.tensor() / 16)
    prepare(write(tmp_path / "in.parquet", table()), tmp_path / "out")
    found = unit_rows(Dataset(tmp_path / "out").split("train"))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.amin(0), torch.zeros(3))
    torch.testing.assert_close(found.amax(0), torch.ones(3))


def test_smoothed_rows_are_those_of_the_class_and_noise(tmp_path):
    prepare("digits", tmp_path / "in", label="label")
    dataset = Dataset(tmp_path / "in")
    found = Smoothed(FlowConfig(copies=5, label=3), dataset)
    for name in SPLITS:
        source = dataset.split(name)
        clean = unit_rows(source)[source.labels() == 3]
        noisy = found.split(name).tensor().view(5, *clean.shape)
        noise = (noisy - clean) / 0.1
        # 5 · 64 rows of the smallest split: 6,000 numbers and more, 4.5 standard errors.
        assert abs(noise.mean()) < 4.5 / noise.numel() ** 0.5
        assert abs(noise.var() - 1) < 4.5 * (2 / noise.numel()) ** 0.5
        assert not torch.equal(noise[0], noise[1])


def test_a_class_that_a_split_lacks_is_told(tmp_path):
    file = labelled(tmp_path, np.arange(60) // 30)
    prepare(file, tmp_path / "in", label="label", validation=1, test=1)
    with pytest.raises(BadInput, match="split .*: found no row of class ., expected"):
        for label in (0, 1):
            Smoothed(FlowConfig(copies=1, label=label), Dataset(tmp_path / "in"))


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.drop_columns("label"),
        r"found 58 rows of x .*, row int64, expected 58 rows of .*, label int64 \(m"),
    (lambda t: t.set_column(2, "label", pa.array(["a"] * 58)),
        r"found 58 rows of .*, label string, expected 58 rows of .*, label int64"),
    (lambda t: t.set_column(2, t.field("label"), pa.array([-1] * 58)),
        "found class -1, expected one of the"),
    (lambda t: t.set_column(2, t.field("label"), pa.array([3] * 58)),
        "found class 3, expected one of the"),
])  # fmt: skip
def test_classes_of_a_changed_shard_get_one_line(change, message, tmp_path):
    prepare(labelled(tmp_path), tmp_path / "out", label="label", validation=1, test=1)
    table = pq.read_table(tmp_path / "out" / "train-00000.parquet")
    replace_shard(tmp_path / "out", change(table))
    with pytest.raises(BadInput, match=message):
        Dataset(tmp_path / "out").split("train").labels()
