"""Whatever a Parquet file or a prepared folder holds, it is finite data or one line."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import reject

from pipelines.data.dataset import Dataset
from tests.pipelines.data.parquet import images, lists
from tests.prepared import prepare

from .campaign import cases, hunt, refused
from .parquets import folders, seeds, spoilt, tables

pytestmark = pytest.mark.timeout(1800)


def use(folder):
    """Reads all that a training and an evaluation read."""
    dataset = Dataset(folder)
    for name in dataset.manifest.counts:
        rows = dataset.split(name).tensor()
        assert torch.isfinite(rows.double()).all() and len(rows) == len(dataset.split(name))
        if dataset.manifest.classes is not None:
            assert len(dataset.split(name).labels()) == len(rows)


def prepared(path, **options):
    """Prepares a file; returns the line where it is refused, else None."""
    out, messages = path.with_name("out"), []
    with refused(str(path), messages):
        prepare(path, out, **options)
        use(out)
    assert out.exists() != bool(messages)
    shutil.rmtree(out, ignore_errors=True)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return messages or None


@cases(750)
def test_damaged_files(count, tmp_path):
    path = tmp_path / "bad.parquet"

    def damaged_parquet(data):
        path.write_bytes(data)
        return prepared(path)

    hunt(damaged_parquet, spoilt(seeds()), count)


@cases(500)
def test_whole_files_of_any_columns(count, tmp_path):
    path = tmp_path / "bad.parquet"

    def generated_parquet(data):
        try:
            pq.write_table(data, path)
        except (pa.ArrowException, ValueError):
            reject()  # Arrow itself does not write it
        return prepared(path)

    hunt(generated_parquet, tables(), count)


def make_folder(root):
    """Returns the files of a small prepared folder with classes."""
    labels = pa.array(np.arange(40) % 3)
    pq.write_table(pa.table({"image": lists(images(40)), "label": labels}), root / "raw.parquet")
    prepare(root / "raw.parquet", root / "data", label="label")
    return {path.name: path.read_bytes() for path in (root / "data").iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("folder"))


@cases(500)
def test_prepared_folders(count, folder, tmp_path):
    def prepared_folders(files):
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        messages = []
        with refused(str(tmp_path), messages):
            use(tmp_path)
        return messages or None

    hunt(prepared_folders, folders(folder), count)
