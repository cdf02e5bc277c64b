"""Rows in memory: the law of a prepared folder of the same rows, and contexts beside them."""

import itertools
import subprocess
import sys

import pytest
import torch

from ebflow import preprocessing
from ebflow.errors import BadInput
from ebflow.tables.batches import Batch
from ebflow.tables.rows import Arrays, Rows
from pipelines.data.dataset import Dataset
from tests.prepared import prepare

from .parquet import table, write

NAN = float("nan")


def take(stream, n):
    return list(itertools.islice(stream, n))


def rows(n=50, width=3, **options):
    """Rows whose first feature is their number, and so is their context's."""
    x = torch.arange(n * width, dtype=torch.float32).view(n, width)
    x[:, 0] = torch.arange(n)
    return Rows(x, torch.stack([x[:, 0], -x[:, 0]], 1), **options)


def same(one, other):
    return torch.equal(one.x, other.x)


@pytest.fixture(scope="module", params=["digits", "table"])
def pair(request, tmp_path_factory):
    """A prepared split in several shards, and its rows in memory."""
    folder = tmp_path_factory.mktemp(request.param)
    source = "digits"
    if request.param == "table":
        source = write(folder / "in.parquet", table(500))
    prepare(source, folder / "out", shard_rows=100)
    stored = Dataset(folder / "out").split("train")
    x = stored.tensor().view(-1, *stored.shape).clone()
    return stored, Rows(x, levels=stored.levels)


def test_rows_describe_themselves_as_a_prepared_split(pair):
    stored, held = pair
    for key in ("name", "shape", "width", "dtype", "levels", "row_bytes"):
        assert getattr(stored, key) == getattr(held, key)
    assert len(stored) == len(held) and torch.equal(stored.tensor(), held.tensor())


@pytest.mark.parametrize("size", [1, 64, 5000])
def test_batches_are_those_of_a_prepared_folder(size, pair):
    stored, held = (list(split.batches(size)) for split in pair)
    assert len(stored) == len(held) and all(map(same, stored, held))


@pytest.mark.parametrize("options", [{}, {"start": 9}, {"share": slice(32, 64)}])
def test_shuffled_batches_are_those_of_a_prepared_folder(options, pair):
    """Over more than two epochs."""
    stored, held = (take(split.shuffled(64, seed=3, **options), 50) for split in pair)
    assert all(map(same, stored, held))
    assert all(batch.context is None for batch in (*stored, *held))


def test_statistics_are_those_of_a_prepared_folder(pair):
    fitted = [preprocessing.fit(split, normalize="standardize") for split in pair]
    stored, held = ([t for x in chain.layers for t in x.state_dict().values()] for chain in fitted)
    assert all(map(torch.equal, stored, held))


def test_a_context_travels_with_its_row():
    split = rows()
    for batch in (*split.batches(7), *take(split.shuffled(7, seed=0), 20)):
        assert isinstance(batch, Batch)
        assert torch.equal(batch.context, torch.stack([batch.x[:, 0], -batch.x[:, 0]], 1))


def test_workers_share_contexts_too():
    split = rows()
    (whole,) = take(split.shuffled(8, seed=1), 1)
    parts = [next(split.shuffled(8, seed=1, share=slice(k, k + 4))) for k in (0, 4)]
    assert torch.equal(torch.cat([part.context for part in parts]), whole.context)


def test_rows_are_neither_copied_nor_bounded():
    x = torch.rand(20, 3)
    split = Rows(x)
    assert split.tensor(budget_bytes=1).data_ptr() == x.data_ptr()
    one, other = (take(split.shuffled(6, seed=0, **o), 9) for o in ({}, {"budget_bytes": 1}))
    assert all(map(same, one, other))


def test_uint8_has_256_levels_unless_told():
    x = torch.randint(0, 17, (9, 1, 4, 4), dtype=torch.uint8)
    assert (Rows(x).levels, Rows(x, levels=17).levels) == (256, 17)
    assert Rows(x).shape == (1, 4, 4)


BAD = {
    "no rows": (dict(x=torch.empty(0, 3)), r"x: found shape \(0, 3\), expected \(N, D\)"),
    "a vector": (dict(x=torch.ones(3)), r"x: found shape \(3,\)"),
    "nan": (dict(x=torch.tensor([[0.0, 1.0], [2.0, NAN]])),
        r"x, feature 1, row 1: found nan, expected a finite number"),
    "no level": (dict(x=torch.tensor([[0, 17]], dtype=torch.uint8), levels=17),
        r"x, feature 1, row 0: found 17, expected 0 … 16"),
    "levels of reals": (dict(x=torch.ones(2, 2), levels=4), r"levels: found 4, expected None"),
    "one level": (dict(x=torch.zeros(2, 2, dtype=torch.uint8), levels=1),
        r"levels: found 1, expected a whole number 2 … 256"),
    "few contexts": (dict(x=torch.ones(3, 2), context=torch.ones(2, 1)),
        r"context: found \(2, 1\), expected \(3, C\)"),
    "flat contexts": (dict(x=torch.ones(3, 2), context=torch.ones(3)), r"found \(3,\)"),
    "infinite context": (dict(x=torch.ones(1, 2), context=torch.tensor([[1.0, -torch.inf]])),
        r"context, feature 1, row 0: found -inf"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_bad_rows_get_one_line(case):
    arguments, message = case
    with pytest.raises(BadInput, match=message):
        Rows(**arguments)


@pytest.mark.parametrize("name", ["x", "context"])
def test_other_dtypes_are_refused(name):
    arguments = {"x": torch.ones(2, 2), "context": torch.ones(2, 1)}
    with pytest.raises(TypeError, match=f"{name}: found torch.int64, expected"):
        Rows(**arguments | {name: torch.ones(2, 2).long()})


def test_fewer_rows_than_a_batch_are_refused():
    with pytest.raises(BadInput, match=r"batch_size: found 64, expected 1 … 50 \(the rows of spl"):
        rows().shuffled(64, seed=0)


def test_a_data_set_has_its_splits_by_name():
    data = Arrays(rows(), rows(20, name="validation"))
    assert len(data.split("train")) == 50 and len(data.split("validation")) == 20
    with pytest.raises(BadInput, match="found no split 'test', expected one of .*train"):
        data.split("test")


@pytest.mark.parametrize(("other", "message"), [
    (rows(), r"splits: found \['train', 'train'\], expected one or more of other names"),
    (rows(width=4, name="test"), r"splits, shape: found \[\(3,\), \(4,\)\]"),
    (Rows(torch.ones(9, 3), name="test"), "splits, context_width: found"),
    (Rows(torch.ones(9, 3).double(), name="test"), "splits, dtype: found"),
    (rows(name="test", categories=(0, 3, 0)), r"splits, categories: found"),
])  # fmt: skip
def test_splits_that_do_not_agree_are_refused(other, message):
    with pytest.raises(BadInput, match=message):
        Arrays(rows(), other)


@pytest.mark.system
def test_data_in_memory_need_no_pyarrow():
    modules = "ebflow.tables.batches, ebflow.tables, ebflow.preprocessing, ebflow.toy"
    code = f"import sys; sys.modules['pyarrow'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
