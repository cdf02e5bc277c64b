"""Laws that look like data: their scores against autograd, and what is known of them."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ebflow.bases import GaussianMixture
from ebflow.complexity.errors import denoising_errors
from ebflow.complexity.factors import FactorMixture
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator

LAWS = ("digits", "mnist", "patches")
SIGMAS = (0.05, 0.2, 3.0)


def analysers(seed=0, K=3, D=7, Q=2, apart=3):
    g = generator(seed)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    return FactorMixture(draw(K).exp(), apart * draw(K, D), draw(K, D, Q), draw(K, D).exp())


@pytest.mark.parametrize("sigma", (0.0, 0.7))
def test_analysers_are_gaussians_of_their_covariances(sigma):
    plain = analysers()
    law = plain.smoothed(sigma)
    x = 4 * torch.randn(50, 7, generator=generator(1), dtype=torch.float64)
    expected = GaussianMixture(plain.weights, plain.means, plain.covariances).smoothed(sigma)
    torch.testing.assert_close(law.log_prob(x), expected.log_prob(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(law.score(x), expected.score(x), rtol=0, atol=1e-10)
    v = torch.randn(2, 50, 7, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(law.directional(x, v)[1], expected.directional(x, v)[1])


def test_samples_of_analysers_have_their_moments():
    """40,000 of a component: every entry of the covariance within 6 standard errors."""
    law, n = analysers(), 40_000
    x = law.sample_components(torch.ones(n, dtype=torch.long), generator=generator(3))
    sigma = law.covariances[1]
    spread = (sigma.diagonal().outer(sigma.diagonal()) + sigma**2).sqrt() / math.sqrt(n)
    assert ((x.mT.cov() - sigma).abs() < 6 * spread).all()
    assert ((x.mean(0) - law.means[1]).abs() < 6 * (sigma.diagonal() / n).sqrt()).all()


def test_analysers_of_other_shapes_are_refused():
    law = analysers()
    with pytest.raises(ValueError, match=r"factors: found shape \(3, 6, 2\)"):
        FactorMixture(law.weights, law.means, law.factors[:, :6], law.noise)
    with pytest.raises(ValueError, match="not positive"):
        FactorMixture(law.weights, law.means, law.factors, law.noise - 9)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("rare", (0.0, 0.005))
def test_scores_at_every_noise_are_those_of_autograd(name, rare):
    truth = load(name).with_rare(rare) if rare else load(name)
    for sigma in SIGMAS:
        smooth = truth.smoothed(sigma)
        x = smooth.sample(4, generator=generator(6)).requires_grad_()
        gradient = torch.autograd.grad(smooth.log_prob(x).sum(), x)[0]
        assert float((smooth.score(x) - gradient).detach().abs().max()) < 1e-9
        expected = x + sigma**2 * gradient
        assert float((truth.denoise(x, sigma) - expected).detach().abs().max()) < 1e-9


@pytest.mark.parametrize("name", LAWS)
def test_packaged_laws_are_centred_and_of_unit_variance(name):
    law = load(name).clean
    assert float((law.weights @ law.means).abs().max()) < 0.02
    assert load(name).radius == pytest.approx(math.sqrt(law.size), rel=0.03)


@pytest.mark.system
def test_the_law_of_digits_is_the_one_that_its_command_makes(tmp_path):
    script = Path(__file__).parents[3] / "docs" / "measurements" / "truths.py"
    words = (str(script), "digits", "--folder", str(tmp_path))
    subprocess.run([sys.executable, *words], check=True, timeout=200)
    made, packaged = load(tmp_path / "digits.safetensors").clean, load("digits").clean
    x = packaged.sample(20, generator=generator(8))
    torch.testing.assert_close(made.log_prob(x), packaged.log_prob(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("law", ("digits", "patches"))
def test_a_rare_mode_has_its_weight_and_lies_apart(law):
    truth = load(law).with_rare(0.03, distance=3)
    assert truth.rare == 0.03 and float(truth.clean.weights[-1]) == pytest.approx(0.03)
    far = float(truth.clean.means[-1].norm())
    assert far == pytest.approx(3 * load(law).radius, rel=0.02)
    x = truth.clean.sample(5000, generator=generator(9))
    rare = truth.clean.responsibilities(x).argmax(0) == len(truth.clean.weights) - 1
    assert float(rare.double().mean()) == pytest.approx(0.03, abs=0.012)
    with pytest.raises(ValueError, match="eta: found 1"):
        truth.with_rare(1)


def test_packaged_laws_are_read_by_their_names():
    assert load("patches", torch.float32).clean.means.dtype == torch.float32
    with pytest.raises(FileNotFoundError, match="found no file"):
        load("letters")


def test_errors_of_a_denoiser_are_what_was_put_into_it():
    """Off by a vector of norm 3 everywhere: by 3/σ in every sense."""
    truth, sigma = load("digits"), 0.3
    offset = torch.zeros(2, 1, 64, dtype=torch.float64)
    offset[:, 0, 5] = torch.tensor([3.0, 0.0])
    found = denoising_errors(
        lambda x, sigma: truth.denoise(x, sigma) + offset, truth, sigma, deltas=(0.1, 0.01),
        points=5, generator=generator(10),
    )  # fmt: skip
    assert {name: value.tolist() for name, value in found.items()} == {
        "sigma_l2": pytest.approx([10, 0]),
        "sigma_d_0.1": pytest.approx([10, 0]), "sigma_d_0.01": pytest.approx([10, 0]),
    }  # fmt: skip


@pytest.mark.system
def test_no_stray_point_of_a_heavy_component_decides_what_a_rare_mode_costs():
    plain = load("digits")
    truth = plain.with_rare(5e-4, distance=4.0)
    found = torch.cat([
        denoising_errors(
            lambda x, sigma: plain.denoise(x, sigma)[None], truth, 8.0, points=100,
            generator=generator(seed),
        )["sigma_l2"] for seed in range(60)
    ])  # fmt: skip
    assert float(found.max() / found.median()) < 1.2


def test_an_error_on_a_rare_mode_counts_in_mean_square_alone():
    truth, sigma = load("digits").with_rare(0.01), 0.3
    plain = Truth(load("digits").clean)
    found = denoising_errors(
        plain.denoise, truth, sigma, deltas=(0.1, 0.001), generator=generator(11)
    )
    assert float(found["sigma_d_0.1"]) < 1e-3 < 1 < float(found["sigma_l2"])
    assert float(found["sigma_d_0.001"]) > float(found["sigma_l2"])
