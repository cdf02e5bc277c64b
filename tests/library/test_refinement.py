"""Refinement of flows by boosted trees."""

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

import ebflow
from ebflow.architectures import dense
from ebflow.bijections import Dense
from ebflow.randomness import generator


def ring(count, seed):
    """Returns points of a ring with shape (count, 2), of which a Gaussian is a poor model."""
    noise = generator(seed, "ring")
    angle = 2 * math.pi * torch.rand(count, generator=noise, dtype=torch.float64)
    radius = 2 + 0.2 * torch.randn(count, generator=noise, dtype=torch.float64)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


@pytest.fixture(scope="module")
def gaussian():
    """The Gaussian with the variance of the ring."""
    weight = torch.eye(2, dtype=torch.float64) / math.sqrt(2.02)
    return ebflow.Flow((2,), [Dense(weight, None)]).requires_grad_(False)


@pytest.fixture(scope="module")
def refined(gaussian):
    return ebflow.refine(gaussian, ring(3000, 0))


def test_the_likelihood_of_other_rows_is_near_the_truth(gaussian, refined):
    """The truth is −1.81 nats: log p of the radius, less log 2πr."""
    x = ring(2000, 1)
    truth = -0.5 * math.log(2 * math.pi * 0.04 * math.e) - math.log(2 * math.pi * 2)
    before, after = (float(model.log_prob(x).mean()) for model in (gaussian, refined))
    assert after > truth - 0.3
    assert after - before > 0.7 * (truth - before)


def test_the_density_is_normalized(refined):
    line = torch.linspace(-5, 5, 201)
    log_p = refined.log_prob(torch.cartesian_prod(line, line))
    assert float(log_p.exp().sum()) * 0.05**2 == pytest.approx(1, abs=0.03)
    assert 0 < refined.error < 0.01


def test_samples_are_on_the_ring(gaussian, refined):
    x = refined.sample(2000, generator=generator(2, "samples"))
    radii = x.norm(dim=1)
    assert x.shape == (2000, 2)
    assert float(radii.mean()) == pytest.approx(2, abs=0.05) and float(radii.std()) < 0.35
    again = refined.sample(2000, generator=generator(2, "samples"))
    assert torch.equal(x, again)
    plain = gaussian.sample(2000, generator=generator(2, "samples"))
    assert ebflow.check(ring(2000, 3), plain)["C2ST (HistGradientBoosting)"] < 0.4
    assert ebflow.check(ring(2000, 3), x)["C2ST (HistGradientBoosting)"] > 0.7


def test_a_refinement_depends_on_its_seed_alone(gaussian, refined):
    same, other = (ebflow.refine(gaussian, ring(3000, 0), seed=seed) for seed in (0, 1))
    assert same.log_normalizer == refined.log_normalizer != other.log_normalizer


def test_trees_learn_from_a_bounded_number_of_rows(gaussian, monkeypatch):
    seen, fit = [], HistGradientBoostingClassifier.fit
    monkeypatch.setattr("ebflow.refinement.ROWS", 500)

    def counted(self, x, y):
        seen.append((len(x), sum(y)))
        return fit(self, x, y)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", counted)
    ebflow.refine(gaussian, ring(3000, 0))
    assert seen == [(11 * 500, 500)]


def test_a_flow_that_is_right_stays_as_it_is():
    flow = dense((2,))
    x = flow.sample(2000, generator=generator(0, "samples"))
    refined = ebflow.refine(flow, x)
    assert abs(refined.log_normalizer) < 0.05
    fresh = flow.sample(2000, generator=generator(1, "samples"))
    gain = refined.log_prob(fresh) - flow.log_prob(fresh)
    assert float(gain.mean()) == pytest.approx(0, abs=0.05)


def test_frames_have_their_columns_and_relations_of_columns():
    pd = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    width, height = random.normal(size=(2, 1500))
    table = pd.DataFrame({
        "width": width, "height": height, "area": width * height,
        "large": np.where(width * height > 1, "yes", "no"),
    })  # fmt: skip
    table.loc[:20, "height"] = np.nan
    flow = ebflow.fit(table, steps=150, progress=False)
    refined = ebflow.refine(flow, table)
    samples = refined.sample(600, generator=generator(0, "samples"))
    assert list(samples) == list(table) and (samples.dtypes == table.dtypes).all()

    def error(frame):
        return float(abs(frame["area"] - frame["width"] * frame["height"]).mean())

    plain = flow.sample(600, generator=generator(0, "samples"))
    assert error(samples) < 0.8 * error(plain)


def test_missing_values_that_depend_on_others_leave_their_distribution(monkeypatch):
    monkeypatch.setattr("ebflow.refinement.INCOMPLETE", 400)
    pd = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    strong, force = random.random(1200) < 0.3, random.normal(size=1200)
    table = pd.DataFrame({"strong": strong, "force": np.where(strong, force + 3, np.nan)})
    flow = ebflow.fit(table, steps=150, progress=False)
    samples = ebflow.refine(flow, table).sample(1000, generator=generator(0, "samples"))
    assert samples["strong"].mean() == pytest.approx(strong.mean(), abs=0.08)


@pytest.mark.parametrize(("change", "words"), [
    (lambda: (dense((1, 4, 4)), torch.zeros(60, 1, 4, 4)), "expected the rows of a table"),
    (lambda: (dense((2,), context=1), torch.zeros(60, 2)), "elements of a context, expected none"),
    (lambda: (dense((2,)), torch.zeros(49, 2)), "found 49 rows, expected 50 or more"),
])  # fmt: skip
def test_what_cannot_be_refined(change, words):
    with pytest.raises(ValueError, match=words):
        ebflow.refine(*change())


def test_incomplete_rows_have_no_ratio(refined):
    with pytest.raises(ValueError, match="found a missing value"):
        refined.log_ratio(torch.tensor([[0.0, torch.nan]]))
