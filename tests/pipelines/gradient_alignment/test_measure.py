"""Measurements of a classifier whose scores are known exactly."""

import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ebflow.alignment.reference import Reference, pooled
from ebflow.alignment.robustness import principal
from ebflow.bases import GaussianMixture
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.measure import CHOSEN_BY, measured
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.reference import Points

from .cases import studied


@pytest.fixture(scope="module")
def measured_with():
    """Measures the Bayes classifier of two Gaussians, beside their exact scores, by its shift."""
    width, sigma = 16, 0.1
    draws = torch.Generator().manual_seed(0)
    means = torch.rand(2, width, generator=draws)
    labels = torch.arange(300) % 2
    noise = torch.randn(300, width, generator=draws)
    points = Points(means[labels] + 0.05 * torch.randn(300, width, generator=draws), noise, sigma,
                    labels)  # fmt: skip
    variance = torch.full((1,), 0.05**2 + sigma**2)
    exact = Reference([GaussianMixture(torch.ones(1), mean[None], variance) for mean in means])

    def bayes(x):
        return -(x.unsqueeze(1) - means).square().sum(2) / (2 * variance)

    blind = {"gaussian": pooled(points.clean, sigma), "flow": exact.densities[0]}
    options = {"points": 300, "samples": 20, "ascent": 50, "rate": 1e-3}

    @cache
    def measure(shift="none", reference=exact, brief=False):
        config = MeasureConfig(**options, shift=shift, brief=brief)
        density, manifold = blind.get(shift), principal(points.clean)
        return measured(config, [bayes] * 3, (4, 4), points, reference, density, manifold)

    return measure


def test_the_measurement_of_a_perfect_density(measured_with):
    numbers = measured_with()
    assert all(np.isfinite(value).all() for value in numbers.values())
    for name in ("A1", "A2", "A3", "accuracy"):
        assert numbers[name] == pytest.approx(1, abs=1e-4)
    assert numbers["relF"] < 1e-6 and abs(numbers["A1/shuffled"]) < 0.2
    assert numbers["trace"] == pytest.approx(-16 / 0.0125, rel=1e-4)
    assert numbers["GAN-test"] == 1 and numbers["PP/own/centred"] > 0.9
    assert numbers["change/posterior"] == 0 and numbers["change/same"] == 1
    assert numbers["gradients"].shape == (2, 16) and numbers["samples"].shape == (20, 16)


def test_the_measurement_without_a_reference(measured_with):
    whole, part = measured_with(), measured_with(reference=None)
    missing = {name.partition("/")[0] for name in whole.keys() - part.keys()}
    assert missing == {"A1", "A2", "A3", "relF", "relF-opt", "samples"}
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name])


def test_a_brief_measurement_is_a_part_of_the_whole(measured_with):
    whole, part = measured_with(), measured_with(brief=True)
    assert {"A3", "accuracy", "trace"} <= part.keys() < whole.keys()
    assert all(value == whole[name] for name, value in part.items())


def test_every_metric_is_documented(measured_with):
    values = {name: one for name, one in measured_with().items() if isinstance(one, float)}
    values["trace/training"] = 1.0  # of the training, not of the measurement
    values["PP/own/deviation"] = 1.0  # of several colours
    values |= {f"validation/{name}": 1.0 for name in CHOSEN_BY}
    metrics = studied(**dict.fromkeys((BASELINE, *BLIND.values()), values)).metrics(BASELINE)
    page = (Path(__file__).parents[3] / "docs" / "reference" / "study-results.md").read_text()
    table = page.partition("| metric |")[2].partition("| key of")[0]
    known = [name for row in table.splitlines()[2:] if row.startswith("|")
             for name in re.findall("`([^`]+)`", row.split("|")[1])]  # fmt: skip
    assert not [name for name in metrics if not any(fnmatch(name, k) for k in known)]
    assert not [k for k in known if not any(fnmatch(name, k) for name in metrics)]


def test_the_measurement_of_a_shifted_classifier(measured_with):
    numbers = measured_with("linear")
    assert numbers["A3"] == pytest.approx(1, abs=1e-3) and abs(numbers["A1"]) < 0.5
    assert numbers["change/same"] == 1 and numbers["change/logit_gradient"] > 2
    assert numbers["change/posterior"] < 1e-3 and numbers["pattern/logit"] > 0.9


def test_the_measurement_of_a_rippled_classifier(measured_with):
    numbers, plain = measured_with("ripple"), measured_with()
    assert numbers["change/loss"] <= 2.1e-3 and numbers["change/loss_gradient"] > 1
    assert plain["pattern/loss"] < 0.5 < numbers["pattern/loss"]


@pytest.mark.parametrize("shift", ["quadratic", "sine"])
def test_other_shifts_leave_the_predictions(measured_with, shift):
    numbers = measured_with(shift)
    assert numbers["change/same"] == 1 and numbers["change/logit_gradient"] > 0.1
    assert numbers["A3"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", BLIND)
def test_a_class_blind_density_moves_a1_and_nothing_that_predicts(measured_with, name):
    numbers = measured_with(name)
    assert numbers["A3"] == pytest.approx(1, abs=1e-4) and numbers["change/same"] == 1
    assert numbers["relF/centred"] < 1e-4 < 0.1 < numbers["relF"]
    assert numbers["A1"] < 0.999 and numbers["change/posterior"] < 1e-4
