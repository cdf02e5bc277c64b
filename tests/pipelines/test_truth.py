"""Divergences from the exact density of a named toy distribution, in the density pipeline."""

from types import SimpleNamespace

import pytest
import torch

from ebflow.bases import GaussianMixture
from ebflow.bijections import Affine, Dense, SmoothLeakyReLU
from ebflow.flow import Flow
from ebflow.preprocessing import fit
from ebflow.randomness import generator as derive
from ebflow.tables.rows import Rows
from ebflow.toy import swirl
from ebflow.toy_densities import smoothed_swirl
from pipelines.config import DensityConfig, Dsm
from pipelines.density import truth
from pipelines.density.truth import divergences

WHITEN = torch.tensor([[0.5, 0.0], [-0.3, 0.8]], dtype=torch.float64)


def manifest(name="swirl", file=None, width=2, context=None):
    """Returns the parts of a manifest that name its data."""
    names = [f"x{k + 1}" for k in range(width)]
    return SimpleNamespace(
        name=name,
        source={"files": [{"file": file or name}]},
        columns=SimpleNamespace(features=names),
        context=context,
    )


def exact(covariance):
    """Returns a flow of no layer whose density is that of a swirl with noise."""
    mixture = truth.smoothed("swirl", covariance)
    return Flow((2,), [], base=mixture)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    monkeypatch.setattr(truth, "POINTS", 400)


def test_the_truth_has_no_divergence_from_itself():
    covariance = 0.36 * torch.eye(2, dtype=torch.float64)
    found = divergences(exact(covariance), manifest(), (0.6, 0.0), 0)
    assert set(found) == {"test/kl", "test/kl_se", "test/fisher", "test/fisher_se"}
    assert abs(found["test/kl"]) < 1e-12 and found["test/fisher"] < 1e-12


def test_noise_behind_the_preprocessing_is_that_of_raw_rows():
    """σ on preprocessed rows W x + b has the covariance σ² (WᵀW)⁻¹ in raw units."""
    covariance = 0.25 * torch.linalg.inv(WHITEN.mT @ WHITEN) + 0.3**2 * torch.eye(2)
    mixture = truth.smoothed("swirl", covariance)
    offset = torch.tensor([1.0, -2.0], dtype=torch.float64)
    behind = GaussianMixture(
        mixture.weights,
        mixture.means @ WHITEN.mT + offset,
        WHITEN @ mixture.covariances @ WHITEN.mT,
    )
    layers = [Dense(WHITEN, offset, trainable=False)]
    flow = Flow((2,), layers, base=behind, n_preprocessing=1).double()
    found = divergences(flow, manifest(), (0.3, 0.5), 0)
    assert abs(found["test/kl"]) < 1e-9 and found["test/fisher"] < 1e-9
    other = divergences(flow, manifest(), (0.3, 1.5), 0)
    assert other["test/kl"] > 5 * other["test/kl_se"] and other["test/fisher"] > 1e-3


def test_a_gaussian_has_the_divergence_of_its_moments():
    """KL of a Gaussian is the entropy of the truth less its own; by ten times the points."""
    flow = Flow((2,), [Affine(0.0, 0.2, (2,))]).double()
    found = divergences(flow, manifest(), (0.6, 0.0), 0)
    mixture = smoothed_swirl(0.6)
    x = mixture.sample(4_000, generator=torch.Generator().manual_seed(3))
    expected = mixture.log_prob(x) - flow.log_prob(x)
    error = (expected.var() / 4_000).sqrt()
    gap = found["test/kl"] - float(expected.mean())
    assert abs(gap) < 4 * (found["test/kl_se"] ** 2 + float(error) ** 2) ** 0.5


def test_modes_in_ten_dimensions_have_a_divergence_without_noise():
    flow = Flow((10,), [Affine(0.0, 0.01, (10,))]).double()
    found = divergences(flow, manifest("multimodal10", width=10), (0.0, 0.0), 0)
    assert set(found) == {"test/kl", "test/kl_se"} and found["test/kl"] > 1
    assert divergences(flow, manifest("multimodal10", width=10), (0.1, 0.0), 0) == {}


@pytest.mark.parametrize("name", ["sine", "swirl", "checkerboard"])
def test_without_noise_there_is_no_fisher_divergence(name):
    flow = Flow((2,), [Affine(0.0, 0.2, (2,))]).double()
    found = divergences(flow, manifest(name), (0.0, 0.0), 0)
    assert set(found) == {"test/kl", "test/kl_se"} and 0.1 < found["test/kl"] < 3


UNKNOWN = {
    "little noise": ({}, (0.09, 0.0)),
    "several targets": ({}, None),
    "another name": ({"name": "digits"}, (0.5, 0.0)),
    "a file of that name": ({"file": "swirl.csv"}, (0.5, 0.0)),
    "one column": ({"width": 1}, (0.5, 0.0)),
    "a context": ({"context": object()}, (0.5, 0.0)),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_there_are_no_metrics_of_an_unknown_truth(case):
    options, smoothing = UNKNOWN[case]
    flow = Flow((2,), [Affine(0.0, 0.2, (2,))])
    assert divergences(flow, manifest(**options), smoothing, 0) == {}


def test_noise_behind_a_preprocessing_that_is_not_linear_has_no_truth():
    flow = Flow((2,), [SmoothLeakyReLU()], n_preprocessing=1).double()
    flow.layers.append(Affine(0.0, 0.2, (2,)).double())
    assert divergences(flow, manifest(), (0.5, 0.3), 0) == {}
    assert divergences(flow, manifest(), (0.5, 0.0), 0)["test/kl"] > 0


def test_the_preprocessing_of_a_table_without_tails_is_linear():
    """It has a layer of cells, which leaves columns of real numbers as they are."""
    x = swirl(2_000, generator=derive(0))
    steps = fit(Rows(x), normalize="whiten", tails=False)
    flow = Flow((2,), [Affine(0.0, 1.0, (2,))]).preprocessed(steps)
    found = divergences(flow, manifest(), (0.0, 0.3), 0)
    assert found["test/kl"] > 0 and not flow.layers[0].constant_jacobian


def test_the_noise_of_a_training():
    dsm = Dsm(sigma=0.3, sigma_end=0.1)
    plain = DensityConfig(objective=dsm)
    noised = {"noise": 0.2}
    assert plain.training.smoothing == (0.0, 0.1)
    assert plain.changed(objective=Dsm(sigma=0.4), train=noised).smoothing == (0.2, 0.4)
    assert plain.changed(objective=Dsm(every=2)).smoothing is None
    assert plain.changed(stabilise={"finish": 0.1}).smoothing is None
    assert plain.changed(objective=Dsm(weight=0.0)).smoothing == (0.0, 0.0)
