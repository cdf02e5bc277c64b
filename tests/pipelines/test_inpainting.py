"""Masked images: masks, conditional means against closed forms, errors and verdicts."""

import json

import numpy as np
import pytest
import torch

from ebflow.bijections import Affine, Dense
from ebflow.flow import Flow
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.glow import GLOW, gains_over_gaussian
from pipelines.paper.experiments.glow import conclude as glow_conclude
from pipelines.paper.experiments.inpainting import INPAINTING, conclude, excesses
from pipelines.paper.inpaint import conditional_mean, masks, squared_errors_of_means


def test_masks_are_digits_in_all_colours_alike_for_every_number_of_them():
    few, many = (masks((3, 16, 16), count, seed=0) for count in (4, 50))
    assert torch.equal(few, many[:4]) and few.shape == (4, 3, 16, 16)
    assert torch.equal(many[:, 0], many[:, 2])
    assert 0.05 < float(many.double().mean()) < 0.5
    assert not torch.equal(few, masks((3, 16, 16), 4, seed=1))


def test_the_gaussian_fills_by_its_conditional_mean():
    generator = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(4, 4, dtype=torch.float64, generator=generator) + 2 * torch.eye(4).double()
    )
    shift, scale = torch.tensor([1.0, -2.0, 0.5, 3.0]).double(), torch.tensor([1.0, 2.0, 3.0, 0.5])
    layers = [
        Affine(shift, scale.double(), (4,), dtype=torch.float64),
        Dense(weight, None, trainable=False),
    ]
    flow = Flow((4,), layers).double()
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    missing = torch.rand(5, 4, generator=generator) < 0.5
    found = conditional_mean(flow, x, missing, seed=0)
    root = weight * flow.layers[0].log_scale.exp()
    covariance = torch.linalg.inv(root.mT @ root)
    for row, filled, free in zip(x, found, missing, strict=True):
        seen = ~free
        known = torch.linalg.solve(covariance[seen][:, seen], (row - shift)[seen])
        expected = shift[free] + covariance[free][:, seen] @ known
        torch.testing.assert_close(filled[free], expected)
        torch.testing.assert_close(filled[seen], row[seen])


def test_the_error_of_a_mean_does_not_depend_on_the_number_of_samples():
    """Samples N(1, 4) of a truth 0: the error of the mean is 1 for each of 3 elements."""
    generator = torch.Generator().manual_seed(0)
    truth, missing = torch.zeros(4_000, 5), torch.tensor([True, True, False, True, False])
    missing = missing.expand(4_000, 5)
    for copies in (2, 6):
        samples = 1 + 2 * torch.randn(4_000, copies, 5, generator=generator)
        found = squared_errors_of_means(truth, missing, samples)
        assert found.mean() == pytest.approx(3, abs=4.5 * found.std() / 4_000**0.5)


def filled(folder, ratio, seeds=1, steps=1000):
    """Cells whose flows err by ``ratio`` of the Gaussian's error."""
    found = []
    config = PaperConfig(experiment="inpainting", scale="smoke", seeds=seeds)
    for number, cell in enumerate(INPAINTING.all_cells(config)):
        place = folder / f"{number}"
        place.mkdir()
        rng = np.random.default_rng(number)
        theirs = 100 * (1 + 0.1 * rng.random(200))
        ours = theirs * ratio**2 * (1 + 0.01 * rng.normal(size=200))
        np.savez(place / "arrays.npz", squares_momentum=ours, squares_gaussian=theirs)
        (place / "evaluation.json").write_text("{}")
        (place / "training.json").write_text(json.dumps({"metrics": {"train/steps": steps}}))
        found.append(Finished(cell, {"trained": place, "measured": place}))
    return found


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.9, "holds"), (1.0, "holds"), (1.1, "does not hold")]
)
def test_a_flow_has_to_fill_as_well_as_a_gaussian(tmp_path, ratio, verdict, seeds):
    cells = filled(tmp_path, ratio, seeds)
    for excess in excesses(cells).values():
        assert excess.value == pytest.approx(ratio - 1, abs=0.005)
    assert [claim.verdict for claim in conclude(cells).claims] == [verdict] * 3


def test_a_training_of_few_steps_decides_nothing(tmp_path):
    cells = filled(tmp_path, 1.5, steps=60)
    assert [claim.verdict for claim in conclude(cells).claims] == ["not decided at this size"] * 3


@pytest.mark.parametrize(("seeds", "units"), [(1, 50), (2, 2)])
def test_glow_is_judged_by_its_better_setting_beside_the_gaussian(tmp_path, seeds, units):
    found = []
    for cell in GLOW.all_cells(PaperConfig(experiment="glow", scale="smoke", seeds=seeds)):
        place = tmp_path / str(len(found))
        place.mkdir()
        np.savez(place / "log_probs.npz", test=np.zeros(50))
        gain = {"recipe": 5.0, "paper": -100.0}[cell.labels["settings"]] + 0.01 * cell.seed
        metrics = {"test/gain": gain, "test/gain_se": 0.1, "train/steps": 1000}
        (place / "evaluation.json").write_text(json.dumps(metrics))
        found.append(Finished(cell, {"likelihood": place}))
    assert gains_over_gaussian(found)["paper", "dsm"].df == units - 1
    assert [claim.verdict for claim in glow_conclude(found).claims] == ["holds", "holds"]
