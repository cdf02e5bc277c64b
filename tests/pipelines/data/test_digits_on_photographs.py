"""Digits on photographs: how they are composed, and what the splits share."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines.data import digits_on_photographs as composed
from pipelines.data.named import SOURCES
from tests.prepared import prepare


@pytest.fixture(scope="module")
def table():
    return composed.table()


@pytest.fixture(scope="module")
def images(table):
    pixels = table["image"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(len(table), 3, 32, 32)


def test_it_is_labelled_colour_images_with_splits(table, images):
    source = SOURCES["digits-on-photographs"]
    assert len(table) == source.rows and images.shape[1:] == source.shape
    assert np.bincount(table["label"]).min() > 1000
    counts = {split: table["split"].to_pylist().count(split) for split in composed.IMAGES}
    assert counts == composed.IMAGES


def test_it_is_always_the_same(table):
    assert composed.table().equals(table)


def test_images_are_photographs_but_for_a_square(images):
    *_, patches = composed.backgrounds()
    changed = (images[11_000:] != np.rint(composed.darkened(patches))).any(1)
    places = np.argwhere(changed.any(2)), np.argwhere(changed.any(1))
    for rows in places:
        for k in range(0, 1000, 97):
            own = rows[rows[:, 0] == k, 1]
            assert own.max() - own.min() < composed.ENLARGED


def test_splits_share_no_digit(table):
    """As many digits as there are: each split has its own."""
    assert sum(composed.DIGITS.values()) == len(load_digits().target)
    train, test = (
        np.bincount(np.array(table["label"])[start : start + count])
        for start, count in ((0, 1_297), (11_000, 250))
    )
    validation = np.bincount(np.array(table["label"])[10_000:10_250])
    assert (train + validation + test == np.bincount(load_digits().target)).all()


def test_enlarging_interpolates_linearly():
    ramp = np.broadcast_to(np.arange(8.0), (2, 8, 8))
    found = composed.enlarged(ramp)
    assert found.shape == (2, 24, 24)
    inner = found[:, :, 1:-1]
    np.testing.assert_allclose(np.diff(inner, axis=2), 1 / 3, atol=1e-12)
    np.testing.assert_allclose(composed.enlarged(np.ones((1, 8, 8))), 1)


def test_paint_is_lighter_than_a_patch():
    """Full paint shows the colour alone; none leaves the darkened patch."""
    patches = np.full((50, 3, 32, 32), 100, dtype=np.uint8)
    rng = np.random.Generator(np.random.PCG64(1))
    full = composed.painted(patches, np.ones((50, 24, 24)), rng)
    assert full[:, :, 16, 16].min() >= composed.PAINT > composed.DARK
    none = composed.painted(patches, np.zeros((50, 24, 24)), rng)
    assert np.unique(none).tolist() == [50]


def test_it_is_prepared_with_its_splits_and_classes(tmp_path):
    manifest = prepare("digits-on-photographs", tmp_path / "out", label="label")
    assert manifest.counts == composed.IMAGES
    assert (manifest.classes, manifest.shape) == (10, (3, 32, 32))
