"""Formulas of perturbation, density ratios, pictures and robustness, against closed forms."""

import math

import pytest
import torch

from ebflow.errors import NonFinite
from ebflow.randomness import generator as derive
from pipelines.gradient_alignment.explanations import (
    density_ratio,
    maximize,
    perturbed_accuracies,
)
from tests.library.bijections.cases import seeded


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


def test_the_ratio_of_a_linear_logit_is_lognormal():
    """f = g·x: log ratio N(0, σ²‖g‖²), mean ratio exp(σ²‖g‖²/2), with V = exp(σ²‖g‖²) − 1."""
    g = torch.tensor([[0.5, -1.0, 0.25], [0.0, 0.0, 0.0]])
    x, labels = torch.zeros(100_000, 3), torch.zeros(100_000, dtype=torch.long)
    mean, log = density_ratio(lambda x: x @ g.mT, x, labels, 0.5, derive(0))
    power = 0.25 * float(g[0].square().sum())
    assert abs(log.value) < 4.5 * log.se
    assert log.se == pytest.approx((power / 100_000) ** 0.5, rel=0.02)
    assert abs(mean - power / 2) < 4.5 * (math.expm1(power) / 100_000) ** 0.5


def test_a_huge_ratio_has_a_logarithm_and_an_infinite_logit_is_an_error():
    x, labels = torch.zeros(10, 1), torch.zeros(10, dtype=torch.long)
    mean, log = density_ratio(lambda x: 1e4 * x, x, labels, 1.0, derive(0))
    assert mean > 800 and math.isfinite(mean) and mean >= log.value
    with pytest.raises(NonFinite, match="log density ratio: found nan"):
        density_ratio(lambda x: x / 0, x, labels, 1.0, derive(0))


def test_ascent_finds_the_mode_in_the_box():
    """f_0 = −2‖x − m‖² with weight decay: the mode (4 m + λ/2) / (4 + λ), clipped."""
    mode = torch.tensor([0.3, 0.8, 1.7])

    def network(x):
        return -2 * (x - mode).square().sum(1, keepdim=True)

    labels = torch.zeros(4, dtype=torch.long)
    pictures = maximize(network, labels, width=3, generator=derive(0), decay=1.0)
    torch.testing.assert_close(pictures, ((4 * mode + 0.5) / 5).clamp(0, 1).expand(4, 3))
