"""Flips and shifts of images against padding and slicing."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive
from pipelines.training.augment import augmentation, flip_and_shift

from ..library.bijections.cases import seeded

SHAPE = (3, 8, 6)


def image(shape=SHAPE):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())


def moved(pixels, flip, down, right):
    """Returns an image mirrored, then shifted by whole pixels, edges repeated."""
    pixels = pixels.flip(-1).numpy() if flip else pixels.numpy()
    room = max(abs(down), abs(right))
    wide = np.pad(pixels, ((0, 0), (room, room), (room, room)), mode="edge")
    top, left = room - down, room - right
    _, height, width = pixels.shape
    return torch.as_tensor(wide[:, top : top + height, left : left + width].copy()).flatten()


def test_cifar10_is_a_flip_and_whole_shifts():
    """Every one of the 18 outcomes, as often as the official chain; false alarms: 1e-4."""
    pixels, n = image(), 5_000
    found = augmentation("cifar10", 0.0, SHAPE)(pixels.flatten().expand(n, -1), derive(0))
    none, one = 1 / 2.88, 0.94 / 2.88
    statistic = total = 0
    for flip in (False, True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                count = int((found == moved(pixels, flip, down, right)).all(1).sum())
                chance = 0.5 * (one if down else none) * (one if right else none)
                statistic += (count - n * chance) ** 2 / (n * chance)
                total += count
    assert total == n
    assert statistic < chi2(17).isf(1e-4)


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (3, 5, 4)])
def test_flip_alone(shape):
    x = torch.stack([image(shape).flatten()] * 100)
    found = flip_and_shift(shape)(x, derive(0))
    mirrored = x.view(100, *shape).flip(-1).flatten(1)
    flipped = (found == mirrored).all(1)
    assert ((found == x).all(1) != flipped).all()
    assert 20 < int(flipped.sum()) < 80


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_are_kept(levels):
    x = torch.randint(0, levels, (50, 64), dtype=torch.uint8, generator=seeded())
    found = augmentation("cifar10", 0.0, (8, 8))(x, derive(0))
    assert found.dtype == torch.uint8 and found.shape == x.shape
    assert int(found.max()) <= levels - 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_same_generator_same_rows_and_input_is_left_alone(dtype):
    x = torch.stack([image().flatten()] * 20).to(dtype)
    before, augment = x.clone(), augmentation("cifar10", 0.0, SHAPE)
    one, other, third = (augment(x, derive(s)) for s in (0, 0, 1))
    assert torch.equal(one, other) and not torch.equal(one, third)
    assert torch.equal(x, before) and one.dtype == dtype


@pytest.mark.parametrize(("name", "noise"), [("cifar10", 0.0), ("none", 1.0)])
def test_shards_change_rows_as_one_worker_does(name, noise):
    x = torch.randint(0, 256, (24, 144), dtype=torch.uint8, generator=seeded())
    x, augment = x.float() if noise else x, augmentation(name, noise, SHAPE)
    parts = [augment(x[k : k + 8], RowGenerator(0, first=k)) for k in (0, 8, 16)]
    assert torch.equal(torch.cat(parts), augment(x, RowGenerator(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_normal_and_fresh(dtype):
    """Kolmogorov-Smirnov over 20,000 numbers; false alarms: 1e-4."""
    x = torch.linspace(-3, 900, 20_000, dtype=dtype).view(200, 100)
    before, found = x.clone(), augmentation("none", 0.5, SHAPE)(x, derive(0))
    assert torch.equal(x, before) and found.dtype == dtype
    assert kstest(((found - x) / 0.5).flatten().double().numpy(), "norm").pvalue > 1e-4
    assert torch.equal(found, augmentation("none", 0.5, SHAPE)(x, derive(0)))
    assert not torch.equal(found, augmentation("none", 0.5, SHAPE)(x, derive(1)))


def test_images_are_moved_and_then_noised():
    x, generator = torch.rand(9, 144, generator=seeded()), derive(3)
    moves, noise = augmentation("cifar10", 0.0, SHAPE), augmentation("none", 0.1, SHAPE)
    expected = noise(moves(x, generator), generator)
    assert torch.equal(augmentation("cifar10", 0.1, SHAPE)(x, derive(3)), expected)
    assert augmentation("none", 0.0, SHAPE) is None
