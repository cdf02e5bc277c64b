"""Flows and U-Nets: their claims on rows with known answers."""

import numpy as np
import pandas as pd
import pytest

from pipelines.reporting.claims import decide
from pipelines.sample_complexity.config import ComplexityConfig, FlowCell, ImageCell, cells
from pipelines.sample_complexity.flows import FLOWS, FREE, about_flows, gains
from pipelines.sample_complexity.images import PICTURES, about_images_by_size
from pipelines.sample_complexity.learn import measured
from pipelines.sample_complexity.rows import where

CONFIG = ComplexityConfig(scale="smoke")


def of_flows(gain, seeds=12):
    """Rows of which flows err by a factor e^gain more than networks of the same set."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for level in (1.0, 4.0):
            for m in (16, 64):
                error = np.exp(rng.normal())
                for learner, factor in ((FLOWS, np.exp(gain + 0.01 * rng.normal())), (FREE, 1.0)):
                    rows.append((learner, seed, level, m, error * factor, error * factor))
    columns = ["learner", "seed", "level", "m", "sigma_d_0.1", "sigma_l2_bulk"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("gain, verdict", [(-0.3, "holds"), (0.0, "does not hold")])
def test_flows_are_compared_with_networks_of_the_same_set(gain, verdict):
    """Sets differ far more than learners do."""
    found = decide(list(about_flows(of_flows(gain))))
    assert {claim.verdict for claim in found} == {verdict} and len(found) == 3
    assert gains(of_flows(gain), "sigma_d_0.1").mean() == pytest.approx(gain, abs=0.02)


def test_errors_of_u_nets_are_compared_by_size():
    shape = np.meshgrid(np.arange(8), CONFIG.images.sizes, indexing="ij")
    seed, m = (part.ravel() for part in shape)
    noise = np.random.default_rng(0).normal(0, 0.02, len(m))
    rows = pd.DataFrame({
        "seed": seed, "m": m, "step": 9, "distribution": "digits",
        "levels_l2": m**-0.5 * np.exp(noise), "levels_q": np.exp(noise),
    })  # fmt: skip
    mean, tail = decide(list(about_images_by_size(CONFIG, rows)))
    assert (mean.verdict, tail.verdict) == ("holds", "does not hold") and mean.item == "G8"


def test_flows_and_networks_learn_the_same_training_sets():
    cell = next(cell for cell in cells(CONFIG) if isinstance(cell, FlowCell))
    rows = measured(cell.model_copy(update={"steps": 2}))
    first, second = (where(rows, learner=learner) for learner in (FLOWS, FREE))
    assert first["n_far"].tolist() == second["n_far"].tolist()
    assert first["m"].tolist() == second["m"].tolist() == [16, 64] * 2


@pytest.mark.system
def test_a_cell_of_images_has_errors_and_pictures():
    cell = next(cell for cell in cells(CONFIG) if isinstance(cell, ImageCell))
    rows = measured(cell.model_copy(update={"steps": 2, "levels": 2}))
    errors, pictures = (where(rows, panel=name) for name in ("images", "pictures"))
    assert errors["m"].tolist() == [30, 100] * 2 and (errors["levels_l2"] > 0).all()
    assert len(pictures) == 4 and pictures["m"].isna().sum() == 2
    assert {len(pixels) for pixels in pictures["pixels"]} == {PICTURES * 64}
