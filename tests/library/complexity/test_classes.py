"""Empirical risk minimization over finite classes, against direct sums and closed forms."""

import pytest
import torch

from ebflow.complexity import errors
from ebflow.complexity.instances import (
    BULKS,
    HALF,
    PLACES,
    cumulative_losses,
    erm,
    far_class,
    far_mode,
    stratified,
    worst_eta,
)
from ebflow.randomness import generator

from .cases import gaussian, noisy

SIZES = (1, 3, 8)


def test_nested_losses_are_direct_sums():
    truth = far_mode(4.0, 0.3, size=2)
    x, y = noisy(truth, 8)
    hypotheses = [truth.smoothed(HALF).score, gaussian(2).smoothed(HALF).score]
    found = cumulative_losses(hypotheses, x, y, SIZES)
    direct = [
        [(hypothesis(x[:m]) - y[:m]).square().sum() for hypothesis in hypotheses] for m in SIZES
    ]
    torch.testing.assert_close(found, torch.tensor(direct))


def test_equal_losses_are_chosen_from_at_random():
    """Two of three are least in 10,000 rows; five binomial deviations are let pass."""
    losses = torch.tensor([[1.0, 0.0, 0.0]]).expand(10_000, 3)
    found = torch.bincount(erm(losses, generator=generator(0)), minlength=3)
    assert found[0] == 0 and abs(int(found[1]) - 5000) < 5 * 50
    assert erm(torch.tensor([[2.0, 1.0]]), generator=generator(0)).tolist() == [1]


@pytest.mark.parametrize("ratio", [8.0, 32.0])
def test_two_points_err_as_often_as_they_should(ratio):
    """Within 3 standard errors of ½ (1 − η)ᵐ at each of 3 sizes; false alarms: 1.6 %."""
    eta, trials = worst_eta(ratio, 0.5), 500
    sizes = [max(1, round(share / eta)) for share in (0.25, 1, 3)]
    truth, wrong = far_mode(ratio, eta), far_mode(-ratio, eta)
    scores, chance = [truth.smoothed(HALF).score, wrong.smoothed(HALF).score], generator(8)
    rates = torch.stack([
        erm(cumulative_losses(scores, *noisy(truth, sizes[-1], seed), sizes), generator=chance)
        for seed in range(trials)
    ]).double().mean(0)  # fmt: skip
    expected = 0.5 * (1 - eta) ** torch.tensor(sizes)
    se = (expected * (1 - expected) / trials).sqrt()
    assert ((rates - expected).abs() < 3 * se).all()


@pytest.mark.parametrize("ratio", [16.0, 64.0])
def test_all_wrong_places_of_a_far_mode_look_alike_and_cost_two_epsilon(ratio):
    """So that nothing but a far sample decides, and it decides between 0 and 2 ε.

    With a mode at 2 R a few points between it and the bulk are less than R off.
    """
    truth = far_mode(ratio, worst_eta(ratio, 0.35))
    middle = len(PLACES) * BULKS.index(0.0)
    hypotheses = far_class(truth.smoothed(HALF))[middle : middle + len(PLACES)]
    test = stratified(truth, 2000, generator=generator(1))
    exact = truth.smoothed(HALF).score(test.noisy)
    gaps = torch.stack([one.score(test.noisy) - exact for one in hypotheses])
    l2 = HALF * errors.l2(gaps.norm(dim=-1), test.weights)
    assert l2.tolist() == pytest.approx([0.7, 0.7, 0.7, 0.0, 0.7], abs=0.03)
    losses = cumulative_losses(
        [one.score for one in hypotheses], *noisy(gaussian(), 1000, 13), [1000]
    )
    torch.testing.assert_close(losses, losses[..., :1].expand_as(losses))


def test_the_class_has_45_distributions_and_one_is_the_truth():
    truth = far_mode(8.0, 0.03)
    hypotheses = far_class(truth.smoothed(HALF))
    assert len(hypotheses) == 45
    x = torch.linspace(-9, 9, 50, dtype=torch.float64)[:, None]
    exact = truth.smoothed(HALF).score(x)
    assert [torch.allclose(one.score(x), exact) for one in hypotheses].count(True) == 1
