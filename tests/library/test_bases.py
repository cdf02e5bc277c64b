"""Bases: normalized, differentiable, sampled; and mixtures against scipy and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, norm

from ebflow import bases
from ebflow.bases import GaussianMixture, StandardNormal, build
from ebflow.density import EnergyFunction
from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive

from .bijections.cases import seeded
from .reference import gradients, two_sided

WEIGHTS = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


def means(D=3):
    return 2 * torch.randn(3, D, generator=seeded())


def matrices(D=3):
    roots = torch.randn(3, D, D, generator=seeded(1))
    return roots @ roots.mT + 0.1 * torch.eye(D)


def variances(*shape):
    return 0.2 + torch.rand(*shape, generator=seeded(2))


MIXTURES = {
    "isotropic": lambda: GaussianMixture(WEIGHTS, means(), variances(3)),
    "isotropic column": lambda: GaussianMixture(WEIGHTS, means(), variances(3, 1)),
    "diagonal": lambda: GaussianMixture(WEIGHTS, means(), variances(3, 3)),
    "full": lambda: GaussianMixture(WEIGHTS, means(), matrices()),
    "on a line": lambda: GaussianMixture(WEIGHTS, means(1), variances(3)),
}
every = pytest.mark.parametrize("name", MIXTURES)


def covariances(mixture):
    """Returns the covariances as matrices."""
    if mixture.full:
        return mixture.covariances
    return torch.diag_embed(mixture.covariances.expand(-1, mixture.size))


def log_prob(mixture, x):
    """Returns log-densities by scipy."""
    parts = [
        math.log(w) + multivariate_normal(m.numpy(), c.numpy()).logpdf(x.numpy())
        for w, m, c in zip(mixture.weights, mixture.means, covariances(mixture), strict=True)
    ]
    return torch.as_tensor(logsumexp(np.stack(parts), axis=0))


def points(mixture, n=7):
    return 3 * torch.randn(n, mixture.size, generator=seeded(3))


@every
def test_log_density(name):
    mixture = MIXTURES[name]()
    x = points(mixture)
    torch.testing.assert_close(mixture.log_prob(x), log_prob(mixture, x))
    assert torch.equal(mixture.energy(x), -mixture.log_prob(x))


@every
def test_score_and_curvature(name):
    mixture = MIXTURES[name]()
    x = points(mixture)
    v = torch.randn(4, *x.shape, generator=seeded(4))
    slow, at = EnergyFunction(mixture.energy).at(x), mixture.at(x)
    expected, bends = slow.score, slow.curvature(v)
    torch.testing.assert_close(at.score, expected)
    torch.testing.assert_close(at.curvature(v), bends)
    torch.testing.assert_close(mixture.score(x), expected)
    slope, again = mixture.directional(x, v)
    torch.testing.assert_close(slope, (v * expected).sum(-1))
    torch.testing.assert_close(again, bends)


@every
def test_rows_are_taken_in_parts(name, monkeypatch):
    mixture = MIXTURES[name]()
    x = points(mixture)
    v = torch.randn(2, *x.shape, generator=seeded(4))

    def all_of_it():
        return mixture.log_prob(x), mixture.score(x), *mixture.directional(x, v)

    whole = all_of_it()
    monkeypatch.setattr(bases, "CHUNK", 2 * mixture.means.numel())
    for one, other in zip(whole, all_of_it(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@every
def test_smoothed(name):
    mixture, sigma = MIXTURES[name](), 0.7
    smooth = mixture.smoothed(sigma)
    x = points(mixture)
    noised = covariances(mixture) + sigma**2 * torch.eye(mixture.size)
    torch.testing.assert_close(covariances(smooth), noised)
    torch.testing.assert_close(smooth.log_prob(x), log_prob(smooth, x))


@every
def test_moments_of_samples(name):
    """Means and second moments of 20,000 samples; false alarms: 1e-4."""
    mixture = MIXTURES[name]()
    x = mixture.sample(20_000, generator=derive(0, name))
    w, m = mixture.weights, mixture.means
    first = w @ m
    second = torch.einsum("k,kij->ij", w, covariances(mixture) + m[:, :, None] * m[:, None])
    found = torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1)], 1)
    errors = found.mean(0) - torch.cat([first, second.flatten()])
    z = errors / (found.std(0) / math.sqrt(len(x)))
    assert z.abs().max() < two_sided(1e-4, z.numel())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("apart", [8.0, 512.0, 1e5])
def test_modes_far_apart(apart, dtype):
    """Two modes of deviation 1 at ± apart / 2: nothing under- or overflows."""
    ends = torch.tensor([[-apart / 2, 0.0], [apart / 2, 0.0]], dtype=dtype)
    mixture = GaussianMixture(torch.ones(2, dtype=dtype), ends, torch.ones(2, dtype=dtype))
    x = torch.cat([ends + torch.tensor([0.5, -1.0]), torch.zeros(1, 2)]).to(dtype)
    v = torch.tensor([1.0, 0.0], dtype=dtype).expand(1, 3, 2)
    score, curvature = mixture.score(x), mixture.at(x).curvature(v)
    expected = torch.tensor([[-0.5, 1.0], [-0.5, 1.0], [0.0, 0.0]], dtype=dtype)
    far = math.exp(-apart * (apart / 2 - 0.5)) * apart
    torch.testing.assert_close(score, expected, rtol=0, atol=max(far, 1e-14 * apart, 0))
    bends = torch.tensor([[-1.0, -1.0, (apart / 2) ** 2 - 1]], dtype=dtype)
    torch.testing.assert_close(curvature, bends, rtol=1e-6, atol=max(apart * far, 1e-6))
    middle = -(apart**2) / 8 - math.log(2 * math.pi)
    assert mixture.log_prob(x)[2].item() == pytest.approx(middle, rel=1e-6)


BAD = {
    "negative weight": ((torch.tensor([1.0, -1.0]), torch.zeros(2, 1), torch.ones(2)), "weights"),
    "no weight": ((torch.ones(0), torch.zeros(0, 1), torch.ones(0)), "weights"),
    "flat means": ((torch.ones(2), torch.zeros(2), torch.ones(2)), "means"),
    "too many means": ((torch.ones(2), torch.zeros(3, 1), torch.ones(2)), "means"),
    "shape": ((torch.ones(2), torch.zeros(2, 3), torch.ones(2, 2)), "covariances: found shape"),
    "no variance": ((torch.ones(2), torch.zeros(2, 1), torch.zeros(2)), "not positive"),
    "indefinite": ((torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])),
        "not positive definite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_points_of_another_width():
    with pytest.raises(ValueError, match=r"x: found shape \(5, 2\), expected \(B, 3\)"):
        MIXTURES["full"]().score(torch.zeros(5, 2))


# Bases of flows


BASES = {
    "normal": StandardNormal,
    "isotropic": lambda: GaussianMixture(WEIGHTS, means(2), variances(3), trainable=True),
    "diagonal": lambda: GaussianMixture(WEIGHTS, means(2), variances(3, 2), trainable=True),
    "full": lambda: GaussianMixture(WEIGHTS, means(2), matrices(2), trainable=True),
}
every_base = pytest.mark.parametrize("name", BASES)


@pytest.mark.parametrize("event", [(2,), (1, 2, 3)])
def test_a_normal_has_torchs_density(event):
    x = 3 * torch.randn(5, *event, generator=seeded(3))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(StandardNormal().log_prob(x), expected)
    torch.testing.assert_close(StandardNormal().energy(x), -expected)


@every_base
def test_a_base_is_normalized(name):
    """By the midpoint rule in the plane."""
    grid = torch.linspace(-14, 14, 801)
    x = torch.cartesian_prod(grid, grid)
    mass = BASES[name]().log_prob(x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert float(mass.detach()) == pytest.approx(1, abs=1e-5)


@every_base
def test_derivatives_of_a_base(name):
    """Score, curvature and trace, and their parameter gradients, against autograd of log p."""
    base, x = BASES[name](), 2 * torch.randn(5, 2, generator=seeded(3))
    v = torch.randn(3, 5, 2, generator=seeded(4))
    slow, named = EnergyFunction(base.energy), list(base.parameters())
    found, expected = ((at.score, at.curvature(v), at.laplacian(), at.energy)
                       for at in (base.at(x), slow.at(x)))  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        if named:
            pairs = (gradients(t.square().sum(), named) for t in (a, b))
            for one, other in zip(*pairs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@every_base
@pytest.mark.parametrize("make", [derive, RowGenerator], ids=["torch", "rows"])
def test_samples_of_a_base(name, make):
    """Kolmogorov-Smirnov of 20,000 values; false alarms 1e-4 each.

    Of a mixture in the plane: its marginal along a direction.
    """
    base, size = BASES[name](), 20_000
    x = base.draw((size, 2), torch.zeros(()), make(0, name)).detach()
    assert x.shape == (size, 2) and x.isfinite().all()
    if name == "normal":
        for column in x.T:
            assert kstest(column.numpy(), norm.cdf).pvalue > 1e-4
        return
    a = torch.tensor([0.6, -0.8])
    along = ((covariances(base) @ a) @ a).sqrt(), base.means @ a
    deviations, centres = (t.detach().numpy() for t in along)
    weights = base.weights.detach().numpy()

    def cdf(z):
        return (weights * norm.cdf((z[:, None] - centres) / deviations)).sum(1)

    assert kstest((x @ a).numpy(), cdf).pvalue > 1e-4


@every_base
def test_a_spec_and_a_state_make_the_base_again(name):
    base, x = BASES[name](), torch.randn(5, 2, generator=seeded(3))
    again = build(json.loads(json.dumps(base.spec)))
    again.load_state_dict(base.state_dict())
    assert torch.equal(again.log_prob(x), base.log_prob(x))
    assert [p.requires_grad for p in again.parameters()] == [True] * len(list(base.parameters()))


def test_what_is_no_base_is_refused():
    with pytest.raises(ValueError, match="base: found 'cauchy', expected normal or mixture"):
        build({"name": "cauchy"})


def test_a_frozen_trainable_base_is_still_trainable():
    base = BASES["full"]().requires_grad_(False)
    assert base.spec["trainable"] and build(base.spec).means.requires_grad


def test_a_mixture_far_away_has_no_density():
    covariance = torch.tensor([[[2.0, -1.9], [-1.9, 2.0]]])
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 2), covariance).float()
    x = torch.tensor([[3e38, 3e38], [3e38, -3e38]]).float()
    assert (mixture.log_prob(x) < -1e30).all()
