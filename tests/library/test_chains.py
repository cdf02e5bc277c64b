"""A mixture given some elements of each row, against the mixture of all of them."""

import pytest
import torch

import ebflow
from ebflow.chains import DEFENCE, Given, Kernels, mixture_of
from ebflow.randomness import generator, normal

BOUND = 4.5
D, K = 4, 3
MISSING = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]]).bool()


def mixture(seed=0):
    draw, like = generator(seed, "mixture"), torch.zeros((), dtype=torch.float64)
    roots = normal((K, D, D), like, draw) + 2 * torch.eye(D)
    means = 2 * normal((K, D), like, draw)
    return ebflow.GaussianMixture(torch.tensor([0.2, 0.5, 0.3]).double(), means, roots @ roots.mT)


@pytest.fixture
def setting():
    joint = mixture()
    y = joint.sample(len(MISSING), generator=generator(1))
    return joint, y, Given(joint, y, MISSING)


def test_log_prob_is_that_of_the_mixture_up_to_a_constant_of_each_row(setting):
    joint, y, law = setting
    found = law.sample(50, generator(2))
    known = ~MISSING[:, None].expand(found.shape)
    assert torch.equal(found[known], y[:, None].expand(found.shape)[known])
    apart = law.log_prob(found) + joint.energy(found.flatten(0, 1)).view(len(y), -1)
    torch.testing.assert_close(apart, apart[:, :1].expand(apart.shape))


def test_samples_and_moments_agree(setting):
    joint, _, law = setting
    count = 20_000
    found, (mean, factor) = law.sample(count, generator(3)), law.moments()
    covariance = factor @ factor.mT
    assert covariance[~(MISSING[:, :, None] & MISSING[:, None])].abs().max() == 0
    torch.testing.assert_close(mean[2], joint.weights @ joint.means)  # knows nothing
    errors = found.mean(1) - mean
    free = MISSING.nonzero(as_tuple=True)
    deviation = covariance.diagonal(dim1=1, dim2=2)[free].sqrt()
    assert (errors[free] / deviation).abs().max() < BOUND / count**0.5
    away = found - mean[:, None]
    products = away[..., :, None] * away[..., None, :]
    errors = products.mean(1) - covariance
    spread = products.std(1) / count**0.5
    assert (errors.abs() <= BOUND * spread + 1e-12).all()


def test_kernels_are_a_density_around_points_and_the_mixture(setting):
    """Weighed by mixture over kernels, of a mean of 1 and at most 1 / α, their samples are its."""
    _, y, given = setting
    mean, scale = given.moments()
    points = torch.where(MISSING[:, None], normal((len(y), 9, D), y, generator(7)), 0.0)
    law, count = Kernels(given, mean, scale, points), 20_000
    found = law.sample(count, generator(8))
    known = ~MISSING[:, None].expand(found.shape)
    assert torch.equal(found[known], y[:, None].expand(found.shape)[known])
    weights = (given.log_prob(found) - law.log_prob(found)).exp()
    assert weights.max() <= 1 / DEFENCE
    _mean_is(weights[..., None], torch.ones(len(y), 1).to(y))
    _mean_is(weights[..., None] * (found - mean[:, None]), torch.zeros_like(mean))
    about = mean + (scale @ points.mean(1)[..., None])[..., 0]
    _mean_is(found, DEFENCE * mean + (1 - DEFENCE) * about)


def _mean_is(found, expected):
    error = found.std(1) / found.shape[1] ** 0.5
    assert ((found.mean(1) - expected).abs() <= BOUND * error + 1e-12).all()


def test_contexts_are_known_and_left_out(setting):
    joint, y, _ = setting
    missing = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]]).bool()
    whole, rest = Given(joint, y[:2], missing), Given(joint, y[:2], missing, contexts=2)
    drawn = whole.sample(5, generator(4))
    assert torch.equal(rest.log_prob(drawn[..., 2:]), whole.log_prob(drawn))
    for found, expected in zip(rest.moments(), whole.moments(), strict=True):
        torch.testing.assert_close(found, expected[..., 2:][:, -2:] if found.ndim == 3
                                   else expected[..., 2:])  # fmt: skip


def test_a_fitted_mixture_is_a_little_wider_and_has_no_more_components_than_samples_tell():
    samples = normal((4000, 2), torch.zeros((), dtype=torch.float64), generator(5, "samples"))
    found = mixture_of(samples, 8, generator(6))
    assert len(found.weights) == 8
    one = mixture_of(samples[:30], 8, generator(6))
    assert len(one.weights) == 1
    expected = 1.1**2 * (
        samples[:30].T.cov(correction=0) + 1e-3 * torch.diag(samples[:30].var(0, correction=0))
    )
    torch.testing.assert_close(one.covariances[0], expected, rtol=1e-6, atol=1e-6)
