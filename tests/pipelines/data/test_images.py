"""Folders of images as a source."""

import numpy as np
import pytest
import torch
from PIL import Image

from ebflow.errors import BadInput
from pipelines.data import images
from pipelines.data.dataset import Dataset
from pipelines.data.sources import find_source
from tests.prepared import prepare

from .parquet import fingerprint, table, write
from .pictures import folder, pixels, save


def rows(source):
    return np.concatenate([x for x, *_ in find_source(source).reader().batches()])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_read_as_it_was_written(channels, tmp_path):
    raw = folder(tmp_path / "raw", channels=channels)
    reader = find_source(raw).reader()
    assert (reader.shape, reader.levels, reader.dtype) == ((channels, 6, 4), 256, "uint8")
    for k, row in enumerate(rows(raw)):
        written = pixels(k, channels=channels).reshape(6, 4, channels)
        np.testing.assert_array_equal(row.reshape(channels, 6, 4), written.transpose(2, 0, 1))


def test_jpeg_is_read_as_pillow_does(tmp_path):
    raw = folder(tmp_path / "raw", suffix="jpg")
    for file, row in zip(sorted(raw.iterdir()), rows(raw), strict=True):
        expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
        np.testing.assert_array_equal(row.reshape(3, 6, 4), expected)


def test_rows_are_sorted_by_name_and_other_files_are_left_out(tmp_path):
    raw = folder(tmp_path / "raw", count=5)
    save(raw / "b.PNG", pixels(20))
    save(raw / "a.jpeg", pixels(21))
    save(raw / "_draft.png", pixels(22, height=9))
    save(raw / ".hidden.png", pixels(23, height=9))
    (raw / "notes.txt").write_text("kept")
    found = rows(raw)
    assert len(found) == 7
    last = pixels(20).transpose(2, 0, 1).reshape(-1)
    np.testing.assert_array_equal(found[-1], last)


def test_few_at_a_time_are_the_same_rows(tmp_path, monkeypatch):
    raw = folder(tmp_path / "raw")
    whole = rows(raw)
    monkeypatch.setattr(images, "BATCH_BYTES", 3 * 72)
    assert [len(x) for x, *_ in find_source(raw).reader().batches()] == [3, 3, 2]
    np.testing.assert_array_equal(rows(raw), whole)


def test_large_images_are_all_read(tmp_path):
    """More of them than a batch of a reader has."""
    assert len(rows(folder(tmp_path / "raw", count=9, height=500, width=300))) == 9


def test_prepared_folder(tmp_path):
    manifest = prepare(folder(tmp_path / "cats", count=40), tmp_path / "out")
    assert (manifest.name, manifest.shape, manifest.levels) == ("cats", (3, 6, 4), 256)
    assert manifest.counts == {"train": 32, "validation": 4, "test": 4}
    assert manifest.source["files"][0]["rows"] == 40
    assert Dataset(tmp_path / "out").split("train").tensor().shape == (32, 72)


def test_fingerprint_follows_the_pixels_and_not_the_place(tmp_path):
    one, two = (folder(tmp_path / name / "raw") for name in ("a", "b"))
    before = fingerprint(one)
    assert fingerprint(two) == before
    save(two / "03.png", pixels(99))
    assert fingerprint(two) != before


def test_parquet_in_a_folder_goes_before_images(tmp_path):
    raw = folder(tmp_path / "raw")
    write(raw / "part.parquet", table())
    assert find_source(raw).reader().layout.columns == ("a", "b", "c")


@pytest.mark.system
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_any_corrupt_byte_is_refused_or_harmless(suffix, tmp_path):
    raw = folder(tmp_path / "raw", suffix=suffix, height=3, width=3)
    file = raw / f"05.{suffix}"
    content = file.read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        file.write_bytes(changed)
        try:
            assert rows(raw).shape == (8, 27)
        except BadInput as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > len(content) / 10


def test_sub_folders_are_classes(tmp_path):
    for name in ("cat", "dog"):
        for k in range(6):
            save(tmp_path / "raw" / name / f"{k}.png", pixels(k, channels=3))
    found = prepare(tmp_path / "raw", tmp_path / "out", label="label", validation=2, test=2)
    assert found.classes == 2 and "classes 0, 1, … are the folders cat, dog" in found.warnings
    splits = [Dataset(tmp_path / "out").split(name) for name in ("train", "validation", "test")]
    assert sorted(torch.cat([split.labels() for split in splits]).tolist()) == [0] * 6 + [1] * 6
    without = prepare(tmp_path / "raw", tmp_path / "unlabelled", validation=2, test=2)
    assert without.classes is None and without.counts == found.counts
    before = fingerprint(tmp_path / "raw", label="label")
    (tmp_path / "raw" / "dog").rename(tmp_path / "raw" / "wolf")
    assert fingerprint(tmp_path / "raw", label="label") != before  # a report names the classes
