"""Samples of spoiled and of learned scores: their claims on rows with known answers."""

import numpy as np
import pandas as pd
import pytest

from pipelines.reporting.claims import decide
from pipelines.sample_complexity.config import ComplexityConfig, LearnedCell, cells
from pipelines.sample_complexity.learn import measured
from pipelines.sample_complexity.learned import EXACT, LEARNED, about_learned
from pipelines.sample_complexity.rows import where
from pipelines.sample_complexity.sampling import SAMPLERS, about_steps

CONFIG = ComplexityConfig(scale="smoke")


def of_learned(rise, far=0, sets=10):
    """Rows of networks whose total variation is ``rise`` above that of the exact score."""
    noise = np.random.default_rng(0).normal(0, 0.01, sets)
    networks = pd.DataFrame({
        "learner": LEARNED, "seed": np.arange(sets), "m": 64, "n_far": far, "sigma_l2": 0.7,
        "tv": 0.02 + rise + noise, "bound": 0.5,
    })  # fmt: skip
    exact = pd.DataFrame({"learner": [EXACT], "seed": [0], "tv": [0.02]})
    return pd.concat([networks, exact], ignore_index=True)


@pytest.mark.parametrize("rise, bounded, near", [
    (0.01, "holds", "holds"), (0.3, "holds", "does not hold"),
    (0.9, "does not hold", "does not hold"),
])  # fmt: skip
def test_learned_scores_are_compared_with_their_bound(rise, bounded, near):
    first, second = decide(list(about_learned(of_learned(rise))))
    assert (first.verdict, second.verdict) == (bounded, near)


def test_nothing_is_missed_if_every_set_has_a_far_sample():
    _, second = decide(list(about_learned(of_learned(0.01, far=2))))
    assert second.value is None


def of_steps(rise, fall):
    """Rows of samplers; from 10 to 40 steps the rise over δ changes from 0.6 to ``rise``."""
    rng = np.random.default_rng(0)
    rows = [
        (SAMPLERS[0], seed, number, delta, 0.0, base + slope * delta + rng.normal(0, 1e-4))
        for seed in range(8)
        for number, base, slope in ((10, 0.1, 0.6), (40, 0.1 * np.exp(fall), rise))
        for delta in (0.0, 0.2)
    ]
    return pd.DataFrame(rows, columns=["sampler", "seed", "steps", "delta", "epsilon", "tv"])


def test_numbers_of_steps_are_compared():
    verdicts = [claim.verdict for claim in decide(list(about_steps(of_steps(0.65, -1.0))))]
    assert verdicts == ["holds", "holds"]
    verdicts = [claim.verdict for claim in decide(list(about_steps(of_steps(1.5, 0.0))))]
    assert verdicts == ["does not hold", "does not hold"]


@pytest.mark.system
def test_a_cell_of_learned_scores_has_errors_bounds_and_distances():
    cell = next(cell for cell in cells(CONFIG) if isinstance(cell, LearnedCell))
    rows = measured(cell.model_copy(update={"steps": 3, "samples": 200, "levels": 4, "count": 2}))
    networks, exact = (where(rows, learner=learner) for learner in (LEARNED, EXACT))
    assert networks["m"].tolist() == [64, 128] * 2 and len(exact) == 1
    assert (networks["bound"] > 0.1).all() and (rows["tv"] < 1).all()
