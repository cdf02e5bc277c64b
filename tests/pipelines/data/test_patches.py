"""Patches of photographs: what they are, and that splits share no pixel."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from pipelines.data.named import PATCHES, natural_patches, places
from pipelines.data.splits import SPLITS
from tests.prepared import prepare

from .test_prepare import stored

SHAPE = (2, 427, 640)


@pytest.fixture(scope="module")
def pictures():
    return np.stack(load_sample_images().images)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_splits_share_no_pixel(size):
    covered = []
    for picture, y, x in places(SHAPE, size):
        mask = np.zeros(SHAPE, dtype=bool)
        for dy in range(size):
            for dx in range(size):
                mask[picture, y + dy, x + dx] = True
        covered.append(mask)
    assert np.sum(covered, axis=0).max() == 1
    assert [mask.any(axis=(0, 1)).nonzero()[0][[0, -1]].tolist() for mask in covered] == [
        [0, 511],
        [512, 575],
        [576, 639],
    ]


def test_large_patches_are_as_many_as_have_places(pictures):
    x = natural_patches(64)
    assert x.shape == (5_600, 3, 64, 64)
    assert len(np.unique(x, axis=0)) == len(x)


@pytest.mark.parametrize("size", [8, 32])
def test_places_are_distinct_and_in_both_pictures(size):
    for split, (picture, y, x) in zip(SPLITS, places(SHAPE, size), strict=True):
        assert len({*zip(picture.tolist(), y.tolist(), x.tolist(), strict=True)}) == len(x)
        assert len(x) == PATCHES.of(split)
        assert abs(picture.mean() - 0.5) < 0.05
        assert y.min() < 10 and y.max() > 427 - size - 10


def test_patches_are_cut_from_the_pictures(pictures):
    patches = natural_patches(32)
    assert patches.shape == (24_000, 3, 32, 32)
    spots = np.concatenate([np.stack(p, axis=1) for p in places(SHAPE, 32)])
    for k in (0, 1234, 19_999, 20_000, 23_999):
        picture, y, x = spots[k]
        expected = pictures[picture, y : y + 32, x : x + 32].transpose(2, 0, 1)
        np.testing.assert_array_equal(patches[k], expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_prepared_splits_are_the_places(seed, tmp_path):
    manifest = prepare("natural-patches-16", tmp_path / "out", seed=seed)
    assert manifest.counts == {"train": 20_000, "validation": 2_000, "test": 2_000}
    assert manifest.assignment == (
        "column split names 20000 train, 2000 validation, 2000 test rows"
    )
    for split, first in zip(SPLITS, (0, 20_000, 22_000), strict=True):
        _, rows = stored(tmp_path / "out", manifest, split)
        np.testing.assert_array_equal(rows, first + np.arange(manifest.counts[split]))
