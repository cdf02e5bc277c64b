"""Mixtures on the line, fitted to few samples by the library's objectives."""

from functools import partial

import pytest
import torch
from scipy.integrate import quad

from ebflow import objectives
from ebflow.complexity.efficiency import pair_truth
from ebflow.randomness import generator
from pipelines.sample_complexity.pair_fits import Pairs, fit, line_divergence
from tests.library.conftest import double_precision  # noqa: F401

LAW = pair_truth(1.5, 0.3)


def at_truth(count=1):
    pairs = Pairs((1.5, -1.5), count)
    pairs.logit.data.fill_(float(torch.tensor(0.3).logit()))
    return pairs


def test_the_density_is_the_mixtures():
    x = torch.linspace(-4, 4, 10)[:, None]
    torch.testing.assert_close(at_truth(2).log_prob(x), LAW.log_prob(x))
    torch.testing.assert_close(at_truth(2).score(x), LAW.score(x))


def test_the_divergence_is_the_integral():
    pairs = Pairs((1.5, -1.5), 2)
    pairs.log_scales.data[0, 1] = 0.4

    def term(x, e):
        point = torch.tensor([[x]])
        log_p = LAW.log_prob(point)
        gap = log_p - pairs.log_prob(point.repeat(2, 1))[e].detach()
        return float(log_p.exp() * gap)

    expected = [quad(term, -12, 12, args=(e,), limit=200)[0] for e in (0, 1)]
    assert line_divergence(LAW, pairs, 2).tolist() == pytest.approx(expected, abs=1e-8)
    assert line_divergence(LAW, at_truth()).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["ml", "exact_sm", "ssm"])
def test_objectives_see_every_mixture_alone(name):
    """Two at once are what each is alone; on the line slices by signs are the whole trace."""
    x = LAW.sample(2 * 64, generator=generator(0)).view(2, 64, 1)
    objective = objectives.OBJECTIVES[name]
    both = Pairs((1.5, -1.5), 2)
    fit(both, lambda: x, objective, generator=generator(1), steps=20)
    for e in (0, 1):
        alone = Pairs((1.5, -1.5), 1)
        fit(alone, lambda e=e: x[e : e + 1], objective, generator=generator(1), steps=20)
        torch.testing.assert_close(both.means[:, e], alone.means[:, 0])


def test_likelihood_has_half_a_nat_over_m_a_parameter():
    """m KL of 200 fits to 400 samples: 5/2 by a χ² law of 5 degrees; 4 deviations are let pass."""
    law = pair_truth(2.5, 0.3)
    x = law.sample(200 * 400, generator=generator(2)).view(200, 400, 1)
    pairs = Pairs((2.5, -2.5), 200)
    fit(pairs, lambda: x, objectives.ml, generator=generator(3), steps=250)
    found = 400 * line_divergence(law, pairs, 200)
    assert abs(float(found.mean()) - 2.5) < 4 * (10 / 4 / 200) ** 0.5 + 0.1


def test_denoising_learns_the_smoothed_law():
    x = LAW.sample(4000, generator=generator(4)).view(1, 4000, 1)
    pairs = Pairs((1.5, -1.5), 1)
    fit(pairs, lambda: x, partial(objectives.dsm, sigma=1.0), generator=generator(5), steps=200)
    own = float(line_divergence(LAW.smoothed(1.0), pairs))
    assert own < 0.01 < 0.03 < float(line_divergence(LAW, pairs))
