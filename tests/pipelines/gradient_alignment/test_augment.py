"""Random crops and flips of images."""

import pytest
import torch

from ebflow.errors import BadInput
from ebflow.randomness import generator as derive
from pipelines.gradient_alignment.augment import PADDING, augmentation
from pipelines.gradient_alignment.classify import train, untrained

from .cases import QUICK


def candidates(image, *, flip):
    """Returns all crops of a padded image (C, H, W), and their mirror images, one by one."""
    height, width = image.shape[1:]
    padded = torch.zeros(len(image), height + 2 * PADDING, width + 2 * PADDING)
    padded[:, PADDING:-PADDING, PADDING:-PADDING] = image
    found = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * PADDING + 1)
        for left in range(2 * PADDING + 1)
    ]
    return found + [crop.flip(2) for crop in found if flip]


@pytest.mark.parametrize("name", ["crop", "crop-flip"])
def test_every_image_becomes_one_of_its_crops(name):
    image = torch.arange(1.0, 1 + 3 * 5 * 6).view(3, 5, 6)
    x = image.flatten().expand(400, -1)
    found = augmentation(name, (3, 5, 6))(x, derive(0)).view(400, 3, 5, 6)
    possible = candidates(image, flip=name == "crop-flip")
    seen = [[one.equal(crop) for crop in possible].index(True) for one in found[:60]]
    assert len(set(seen)) > 30
    mirrored = sum(index >= (2 * PADDING + 1) ** 2 for index in seen)
    assert mirrored == 0 if name == "crop" else 15 < mirrored < 45


def test_images_without_colours_have_the_same_crops():
    x = torch.rand(8, 64)
    pair = [augmentation("crop", shape)(x, derive(0)) for shape in ((8, 8), (1, 8, 8))]
    assert pair[0].equal(pair[1]) and pair[0].shape == x.shape


def test_no_augmentation_and_rows_that_are_no_images():
    assert augmentation("none", (13,)) is None
    with pytest.raises(BadInput, match=r"--classifier.augment: found rows of shape \(13,\)"):
        augmentation("crop", (13,))


def test_training_sees_the_augmented_rows():
    x, labels = torch.rand(64, 64), torch.arange(64) % 2
    seen = []

    def blank(images, generator):
        seen.append(images.shape)
        return torch.zeros_like(images)

    config = QUICK.changed(epochs=1, batch_size=32, noise=0.0, regularizer={"name": "none"})
    network = untrained(config.network, (8, 8), 2, 0)
    rows = (x, labels)
    (metrics,) = train(config, network, rows, rows, augment=blank)
    assert seen == [(32, 64)] * 2
    assert metrics["train/cross_entropy"] == pytest.approx(0.693, abs=0.02)
