"""The claims about distributions fitted to images, on rows with known answers."""

from functools import cache
from itertools import chain

import numpy as np
import pandas as pd

from pipelines.reporting.claims import decide
from pipelines.sample_complexity.claims import about_images, learned, parting
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.rows import family

CONFIG = ComplexityConfig(scale="cpu")
SIZES, LENGTHS = CONFIG.distribution.sizes, CONFIG.distribution.lengths
SETS, LEVELS = 16, CONFIG.distribution.levels + 1
ETAS = CONFIG.distribution.etas[0], CONFIG.distribution.etas[-1]
DEFAULTS = {"drift": 0.0, "blind": True, "rise": 0.5, "wrong": 0.5}


def rows(**options):
    """Networks whose errors fall as √m and with training, but for the fewest samples.

    Arguments:
        drift: The exponent in m of the quantile error less that of mean square.
        blind: Whether the quantile does not see the heaviest mode, by which mean square goes.
        rise: By how much that raises mean square at the noise where it does most, as a logarithm.
        wrong: By how much errors of networks of the fewest samples grow in training, as one.
    """
    return pd.concat(networks(eta, **{**DEFAULTS, **options}) for eta in (0.0, *ETAS))


def networks(eta, drift, blind, rise, wrong):
    rng = np.random.default_rng(int(1e4 * eta))
    shape = np.meshgrid(np.arange(SETS), SIZES, LENGTHS, indexing="ij")
    seed, m, step = (part.ravel() for part in shape)
    few, end = m == min(SIZES), np.log(step / LENGTHS[0]) / np.log(LENGTHS[-1] / LENGTHS[0])
    noise, seen = (rng.normal(0, 0.02, len(m)) for _ in range(2))
    usual = m**-0.5 * np.exp(noise + np.where(few, wrong, -0.2) * end)
    mean, tail = 0.8 * usual, usual * m**drift
    mode = (rise if eta == ETAS[1] else 0.05) + np.where(end < 1, 100, 5) * seen
    mode = np.exp(mode) if eta else np.ones(len(m))
    both = mode if not blind else np.ones(len(m))
    by_level = np.ones(LEVELS) * (np.arange(LEVELS) == parting(CONFIG))
    return pd.DataFrame({
        "panel": "truths", "learner": "residual networks", "distribution": "digits", "size": 64,
        "eta": eta, "m": m, "seed": seed, "step": step, "sigma_l2": mean, "sigma_d_0.1": tail,
        "levels_l2": mean * mode, "levels_q": tail * both, "levels_d": tail * both,
        "by_level_l2": list(mean[:, None] * mode[:, None] ** by_level),
        "by_level_d": list(tail[:, None] * both[:, None] ** by_level),
    })  # fmt: skip


@cache
def claims(**options):
    return decide(list(chain(*about_images(CONFIG, rows(**options)))))


def verdicts(part, **options):
    found = [claim.verdict for claim in claims(**options) if part in claim.claim]
    assert found
    return set(found)


def test_errors_that_fall_alike_do_so_by_the_claim():
    assert verdicts("ratio of both errors is the same") == {"holds"}
    assert verdicts("ratio of both errors is the same", drift=0.2) == {"does not hold"}


def test_errors_that_the_rows_are_too_few_for_are_not_decided():
    few = rows(rise=0.2).query("seed < 2")
    groups = about_images(CONFIG, few)
    part = [c for c in decide(list(chain(*groups))) if "raises mean square more" in c.claim]
    assert {claim.verdict for claim in part} == {"not decided at this size"}


def test_mean_square_sees_a_heavy_mode_and_the_quantile_does_not():
    place = "raises mean square more than the quantile"
    assert verdicts(place) == {"holds"}
    assert verdicts(place, drift=0.2) == {"holds"}, "against networks without the mode"
    assert verdicts(place, blind=False) == {"does not hold"}
    assert verdicts(place, rise=0.06) == {"does not hold"}, "an effect less than what matters"
    assert verdicts("does not, even at") == {"holds"}
    assert verdicts("Over all levels it does so") == {"holds"}


def test_orders_of_both_errors_are_compared_within_a_training_set():
    """By a mode that mean square alone sees, and that is drawn anew in short trainings."""
    assert verdicts("order networks alike", blind=False) == {"holds"}
    assert verdicts("order networks alike") == {"does not hold"}


def test_every_effect_has_a_margin():
    assert not {c.expected for c in claims()} & {"more than 0", "less than 0"}


def test_a_family_has_every_m_and_length():
    found = family(learned(rows(), 0.0), "levels_l2")
    assert found.shape == (SETS, len(SIZES) * len(LENGTHS))
