"""Empirical risk minimization over finite classes, against direct sums and closed forms."""

import math

import pytest
import torch

from ebflow.bases import GaussianMixture
from ebflow.complexity import errors
from ebflow.complexity.classes import (
    cumulative_losses,
    erm,
    far_class,
    shift_losses,
    shifts,
)
from ebflow.complexity.closed_forms import (
    chance_of_error,
    shift_crossing,
    step_height,
    worst_eta,
)
from ebflow.complexity.instances import far_mode, gaussian, step_score
from ebflow.randomness import generator

SIZES = (1, 3, 8)


def drawn(instance, trials, n, seed=0):
    clean, z, _ = instance.sample(trials * n, generator=generator(seed))
    return [t.view(trials, n, -1) for t in instance.noisy(clean, z)]


def test_nested_losses_are_direct_sums():
    truth = far_mode(4.0, 0.3, size=2)
    x, y = drawn(truth, 5, 8)
    hypotheses = [truth.smoothed.score, gaussian(2).smoothed.score]
    found = cumulative_losses(hypotheses, x, y, SIZES)
    pairs = list(zip(x, y, strict=True))
    for column, hypothesis in enumerate(hypotheses):
        for row, m in enumerate(SIZES):
            direct = [(hypothesis(a[:m]) - b[:m]).square().sum() for a, b in pairs]
            torch.testing.assert_close(found[:, row, column], torch.stack(direct))


def test_losses_of_shifts_are_those_of_their_scores():
    truth = gaussian(3)
    x, y = drawn(truth, 4, 8)
    moved = shifts(6, 3, 0.7, generator=generator(1), like=x)
    laws = [GaussianMixture(torch.ones(1), mu[None], torch.ones(1)) for mu in moved]
    scores = [law.score for law in (*laws, truth.smoothed)]
    direct = cumulative_losses(scores, x, y, SIZES)
    found = shift_losses(moved, x, y, SIZES)
    torch.testing.assert_close(found, direct[..., :-1] - direct[..., -1:])
    torch.testing.assert_close(moved.norm(dim=1), torch.full((6,), 0.7))


def test_equal_losses_are_chosen_from_at_random():
    """Two of three are least in 10,000 rows; five binomial deviations are let pass."""
    losses = torch.tensor([[1.0, 0.0, 0.0]]).expand(10_000, 3)
    found = torch.bincount(erm(losses, generator=generator(0)), minlength=3)
    assert found[0] == 0 and abs(int(found[1]) - 5000) < 5 * 50
    assert erm(torch.tensor([[2.0, 1.0]]), generator=generator(0)).tolist() == [1]


@pytest.mark.parametrize("ratio", [8.0, 16.0, 32.0, 64.0])
def test_two_points_err_as_often_as_they_should(ratio):
    """Within 3 standard errors of ½ (1 − η)ᵐ at each of 5 sizes; false alarms: 1.3 %."""
    eta, trials = worst_eta(ratio, 0.5), 1000
    sizes = [max(1, round(share / eta)) for share in (0.25, 0.5, 1, 2, 3)]
    truth, wrong = far_mode(ratio, eta), far_mode(-ratio, eta)
    x, y = drawn(truth, trials, sizes[-1], seed=7)
    losses = cumulative_losses([truth.smoothed.score, wrong.smoothed.score], x, y, sizes)
    rates = erm(losses, generator=generator(8)).double().mean(0)
    expected = chance_of_error(torch.tensor(sizes), eta)
    se = (expected * (1 - expected) / trials).sqrt()
    assert ((rates - expected).abs() < 3 * se).all()


@pytest.mark.parametrize("at", [1.5, 2.0, 2.5])
def test_a_step_wins_no_more_often_than_its_stretch_is_unseen(at):
    """Pr[wrong] ≤ ½ (1 − Φ̄(t))ᵐ about, and not far below; 3 standard errors are let pass."""
    step = step_score(step_height(at, 1.0), at)
    tail, trials = 0.5 * math.erfc(at / math.sqrt(2)), 1000
    sizes = [round(share / tail) for share in (0.25, 1, 3)]
    truth = gaussian()
    x, y = drawn(truth, trials, sizes[-1], seed=9)
    losses = cumulative_losses([truth.smoothed.score, step], x, y, sizes)
    rates = erm(losses, generator=generator(10)).double().mean(0)
    bound = chance_of_error(torch.tensor(sizes), tail)
    assert (rates < bound + 3 * (bound * (1 - bound) / trials).sqrt()).all()
    assert rates[0] > 0.8 * bound[0]


def test_a_class_of_shifts_is_told_apart_where_its_closed_form_says():
    """Of 1000 sets a quarter chooses a wrong one of 49; 4 deviations of 0.014 are let pass."""
    rivals, epsilon, truth = 49, 0.35, gaussian(32)
    m = shift_crossing(rivals, epsilon, 0.75)
    radius = 2 * epsilon / truth.sigma
    x, y = drawn(truth, 1000, round(m), seed=11)
    moved = shifts(rivals, 32, radius, generator=generator(12), like=x)
    losses = shift_losses(moved, x, y, [round(m)])
    assert float((losses.amin(-1) < 0).double().mean()) == pytest.approx(0.25, abs=0.055)


@pytest.mark.parametrize("ratio", [16.0, 64.0])
def test_all_wrong_places_of_a_far_mode_look_alike_and_cost_two_epsilon(ratio):
    """So that nothing but a far sample decides, and it decides between 0 and 2 ε.

    With a mode at 2 R a few points between it and the bulk are less than R off.
    """
    truth = far_mode(ratio, worst_eta(ratio, 0.35))
    laws = far_class(truth, generator=generator(0))[20:25]
    test = truth.stratified(2000, generator=generator(1))
    gaps = torch.stack([law.score(test.noisy) - truth.smoothed.score(test.noisy) for law in laws])
    l2 = truth.sigma * errors.l2(gaps.norm(dim=-1), test.weights)
    assert l2.tolist() == pytest.approx([0.7, 0.7, 0.7, 0.0, 0.7], abs=0.03)
    x, y = drawn(gaussian(), 1, 1000, seed=13)
    losses = cumulative_losses([law.score for law in laws], x, y, [1000])
    torch.testing.assert_close(losses, losses[..., :1].expand_as(losses))


@pytest.mark.parametrize("size", [1, 4])
def test_the_class_has_45_laws_and_the_truth(size):
    truth = far_mode(8.0, 0.03, size=size)
    laws = far_class(truth, generator=generator(0))
    assert len(laws) == 45
    x = torch.randn(9, size)
    same = [law for law in laws if torch.allclose(law.score(x), truth.smoothed.score(x))]
    exact = [law for law in same if law.means.shape == (2, size) and 5 < law.means[1, 0] < 6]
    assert len(exact) == 1
    if size == 1:
        bulks = sorted({float(law.means[0, 0]) for law in laws})
        assert bulks == pytest.approx([-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1])
