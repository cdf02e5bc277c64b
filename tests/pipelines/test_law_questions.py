"""What is asked of denoisers of laws that look like data, on rows whose answers are known."""

from functools import cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.reporting.claims import decide
from pipelines.sample_complexity import law_questions
from pipelines.sample_complexity.columns import table
from pipelines.sample_complexity.config import at_scale

CONFIG = at_scale("cpu")
SIZES = CONFIG.laws.sizes
SETS, LEVELS = 16, 5
ETA = 0.005


def rows(drift=0.0, decade=10.0, blind=True, rise=0.5):
    """Networks whose errors fall as √m.

    Arguments:
        drift: The exponent in m of the quantile error less that of mean square.
        decade: By how much −log q is larger with ten times the training samples, nats.
        blind: Whether the quantile does not see the implanted mode, by which mean square and W2
            go, and TV by the rest.
        rise: By how much the mode raises mean square, as a logarithm.
    """
    return pa.concat_tables([networks(eta, drift, decade, blind, rise) for eta in (0.0, ETA)])


def networks(eta, drift, decade, blind, rise):
    rng = np.random.default_rng(int(1e4 * eta))
    m = np.tile(np.array(SIZES, float), SETS)
    noise, seen = (rng.normal(0, 0.02, len(m)) for _ in range(2))
    tail = m ** (-0.5 + drift) * np.exp(noise)
    mean = 0.8 * m**-0.5 * np.exp(noise)
    if eta:
        mean = mean * np.exp(rise + 5 * seen)
        tail = tail if blind else tail * np.exp(rise + 5 * seen)
    far = np.exp(5 * seen) if eta else np.full(len(m), np.nan)
    return table(
        len(m), panel="truths", learner="residual networks", law="digits", size=64, eta=eta,
        m=m.astype(int), seed=np.repeat(np.arange(SETS), len(SIZES)),
        n_far=(eta * m * np.exp(seen)).astype(int), sigma_l2=mean, sigma_truncated=mean,
        levels_l2=mean, levels_d=tail, levels_truncated=mean,
        copied=np.where(m == m.min(), 0.6, 0.0) + abs(noise),
        excess=90 + decade * np.log10(m) + noise,
        tv=0.1 + noise, w2=far if eta else m**-0.5, far_error=far,
        by_level_l2=np.repeat(mean[:, None], LEVELS, 1),
        by_level_d=np.repeat(tail[:, None], LEVELS, 1), **{"sigma_d_0.1": tail},
    )  # fmt: skip


@cache
def claims(**options):
    return decide(list(chain(*law_questions.questions(CONFIG, rows(**options)))))


def verdicts(part, **options):
    found = [claim.verdict for claim in claims(**options) if part in claim.claim]
    assert found
    return set(found)


def test_errors_that_fall_alike_are_told_to():
    for part in ("both errors fall alike", "ratio of both errors is the same"):
        assert verdicts(part) == {"holds"}
        assert verdicts(part, drift=0.2) == {"does not hold"}


def test_errors_that_the_rows_are_too_few_for_are_not_decided():
    few = rows(drift=0.05).filter(pc.less(rows()["seed"], 2))
    groups = law_questions.questions(CONFIG, few)
    part = [c for c in decide(list(chain(*groups))) if "both errors fall alike" in c.claim]
    assert {claim.verdict for claim in part} == {"not decided at this size"}


def test_memorising_networks_have_likelier_samples_or_not():
    assert verdicts("a network memorises") == {"holds"}
    assert verdicts("likelier by more than 3 nats") == {"holds"}
    assert verdicts("likelier by more than 3 nats", decade=-10.0) == {"does not hold"}
    assert verdicts("the less −log q") == {"does not hold"}
    assert verdicts("the less −log q", decade=-10.0) == {"holds"}


def test_an_effect_less_than_what_matters_does_not_hold():
    assert verdicts("likelier by more than 3 nats", decade=0.5) == {"does not hold"}, "1.5 nats"
    assert verdicts("raises mean square", rise=0.06) == {"does not hold"}
    assert not {c.expected for c in claims()} & {"more than 0", "less than 0"}


def test_mean_square_sees_an_implanted_mode_and_the_quantile_does_not():
    assert verdicts("raises mean square") == {"holds"}
    assert verdicts("raises mean square", blind=False) == {"does not hold"}
    assert verdicts("sliced W2 follows") == {"holds"}
    assert verdicts("sliced W2 follows", blind=False) == {"does not hold"}


def test_correlations_are_at_equal_m():
    """An error that only m decides says nothing of networks of equal m."""
    m = np.tile([1.0, 0.1, 0.01], (9, 1))
    error = m * np.random.default_rng(0).uniform(1, 1.1, m.shape)
    assert abs(law_questions.at_equal_m(m + 0 * error, error)) < 1e-9
    assert law_questions.at_equal_m(error, error) == pytest.approx(1)
