"""The flow on one page, beside the library's flow of the same weights."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ebflow import Flow
from ebflow.bijections import Affine, Dense, Logit, MonotoneSpline
from ebflow.objectives import dsm

PAGE = Path(__file__).parents[2] / "examples" / "nanoflow.py"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("nanoflow", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(page):
    """A flow of the page with random weights, and the library's flow of the same weights."""
    torch.manual_seed(0)
    ours = page.Flow(5).double()
    with torch.no_grad():
        for weight in ours.parameters():
            weight += 0.3 * torch.randn(weight.shape)
    layers = []
    for W, b, spline in zip(ours.matrices, ours.offsets, ours.splines, strict=True):
        layers += [Dense(W.detach(), b.detach()), MonotoneSpline((5,))]
        layers[-1].log_slopes = spline.log_slopes
    return ours, Flow((5,), layers).double()


def test_it_is_short_and_alone():
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 200 and "ebflow" not in text.replace("EBFlow", "")


def test_log_densities_are_those_of_the_library(pair):
    ours, library = pair
    x = 3 * torch.randn(50, 5, dtype=torch.float64)
    log_p = -ours.energy(x) - ours.log_normalizer()
    torch.testing.assert_close(log_p, library.log_prob(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.score(x), library.score(x), rtol=0, atol=1e-10)


def test_samples_are_the_inverse(pair):
    ours, library = pair
    torch.manual_seed(1)
    x = ours.sample(20)
    torch.manual_seed(1)
    torch.testing.assert_close(
        library.to_latent(x), torch.randn(20, 5).double(), atol=1e-4, rtol=0
    )


def test_gradients_of_the_likelihood_are_exact_after_a_refresh(page, pair):
    ours, library = pair
    x, log_z = torch.randn(30, 5, dtype=torch.float64), page.LazyNormalizer(ours)
    log_z.refresh()
    page.likelihood(ours, log_z, x).mean().backward()
    (-library.log_prob(x).mean()).backward()
    for W, layer in zip(ours.matrices, library.layers[::2], strict=True):
        torch.testing.assert_close(W.grad, layer.weight.grad)


def test_denoising_is_the_objective_of_the_library(page, pair, monkeypatch):
    ours, library = pair
    x, noise = torch.randn(2, 30, 5, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda like: noise)
    monkeypatch.setattr("ebflow.objectives.normal", lambda *arguments: noise)
    expected = page.SIGMA**2 * dsm(library, x, generator=None, sigma=page.SIGMA)
    found = page.denoising(ours, lambda: 0.0, x) - ours.energy(x)
    torch.testing.assert_close(found, expected)


def test_pixels_are_those_of_the_library(page):
    torch.manual_seed(0)
    images = torch.randint(page.LEVELS, (400, 5)).double()
    pixels = page.Pixels(images)
    torch.manual_seed(1)
    x, log_det = pixels(images)
    torch.manual_seed(1)
    values = images + torch.rand_like(images)
    inner = Affine(pixels.mean, 1.0, (5,), dtype=torch.float64), Dense(pixels.whiten.T, None)
    library = Flow((5,), [Logit(upper=float(page.LEVELS)), *inner]).double()
    torch.testing.assert_close(x, library.to_latent(values))
    log_p = library.log_prob(values) - torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(log_det, log_p)
    assert torch.equal(pixels.inverse(x), images.long())


@pytest.mark.slow
def test_it_learns_digits():
    done = subprocess.run([sys.executable, PAGE], capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("test NLL ") and float(last.split()[2]) <= 92
