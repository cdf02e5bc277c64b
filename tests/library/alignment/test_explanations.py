"""Formulas of saliency and robustness, against closed forms."""

import pytest
import torch

from ebflow.alignment.explanations import (
    perturbed_accuracies,
    saliency,
)
from tests.library.bijections.cases import seeded


def test_saliency_is_the_norm_over_colours():
    rows = torch.randn(5, 12, generator=seeded())
    expected = (rows[:, :4] ** 2 + rows[:, 4:8] ** 2 + rows[:, 8:] ** 2).sqrt()
    torch.testing.assert_close(saliency(rows, (3, 2, 2)), expected)
    torch.testing.assert_close(saliency(rows, (3, 4)), rows.abs())
    torch.testing.assert_close(saliency(rows, (12,)), rows.abs())


@pytest.mark.parametrize("colours", [1, 3])
def test_the_judge_sees_images_without_their_least_salient_pixels(colours):
    seen = []

    def judge(x):
        seen.append(x)
        return x[:, :2]

    x = torch.rand(6, 10 * colours, generator=seeded())
    salience = torch.randint(0, 4, (6, 10), generator=seeded(1)).double()
    fractions = (0.0, 0.25, 1.0)
    perturbed_accuracies(judge, x, torch.zeros(6, dtype=torch.long), salience, fractions)
    for fraction, images in zip(fractions, seen, strict=True):
        for row, levels, changed in zip(x, salience, images, strict=True):
            order = sorted(range(10), key=lambda k: (float(levels[k]), k))
            expected = row.clone().view(colours, 10)
            expected[:, order[: round(fraction * 10)]] = row.mean()
            torch.testing.assert_close(changed, expected.flatten())


def test_accuracies_fall_to_those_of_a_constant_image():
    x, labels = torch.rand(50, 4, generator=seeded()), torch.arange(50) % 2
    judge = lambda x: x[:, :2]  # noqa: E731
    first, last = perturbed_accuracies(judge, x, labels, x, (0.0, 1.0))
    assert first == float((judge(x).argmax(1) == labels).double().mean())
    assert last == 0.5
