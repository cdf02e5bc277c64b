"""Formulas of saliency and robustness, against closed forms."""

import pytest
import torch

from ebflow.alignment.explanations import (
    off_manifold,
    perturbed_accuracies,
    principal,
    saliency,
)
from ebflow.alignment.fooling import linear, shifted
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


@pytest.fixture
def plane():
    """Two of six directions, and the covariance that has nearly all variance in them."""
    basis = torch.linalg.qr(torch.randn(6, 6, generator=seeded(), dtype=torch.float64))[0]
    variances = torch.tensor([4.0, 2.0, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    return basis, basis @ variances.diag() @ basis.mT


def test_principal_directions_span_the_variance(plane):
    basis, covariance = plane
    directions = principal(covariance)
    assert directions.shape == (6, 2)
    torch.testing.assert_close(directions @ directions.mT, basis[:, :2] @ basis[:, :2].mT)
    assert principal(covariance, 0.6).shape == (6, 1) and principal(covariance, 1.0).shape[1] == 6


@pytest.mark.parametrize("leak", [1.0, 0.1])
def test_the_robustness_is_that_of_the_gradients_of_linear_logits(plane, leak):
    """Logits along one direction of the manifold, and ``leak`` times along one off it."""
    basis, _ = plane
    rows = torch.stack([basis[:, 0] + leak * basis[:, 3], -basis[:, 0] - leak * basis[:, 3]])
    x = torch.randn(20_000, 6, generator=seeded(), dtype=torch.float64)
    ratio = off_manifold(lambda x: x @ rows.mT, x, basis[:, :2], 0.3, seeded())
    # E|cos| of a direction in the plane and in the four dimensions off it: 2/π and 4/(3π)
    assert ratio == pytest.approx(2 / (4 / 3) / leak, rel=0.03)


def test_no_shift_of_the_logits_moves_the_robustness(plane):
    basis, _ = plane
    network = torch.nn.Linear(6, 3).double()
    x = torch.randn(50, 6, generator=seeded(), dtype=torch.float64)
    moved = shifted(network, linear(basis[:, 5], 100.0))
    pair = [off_manifold(f, x, basis[:, :2], 0.1, seeded()) for f in (network, moved)]
    assert pair[0] == pytest.approx(pair[1])
