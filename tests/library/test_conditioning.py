"""Mixtures of Gaussians given some elements of each row, against closed forms."""

import pytest
import torch

import ebflow
from ebflow.conditioning import Conditional
from ebflow.randomness import generator, normal
from ebflow.target import mixture_of

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
    return joint, y, Conditional(joint, y[:, None], MISSING)


def test_completions_have_their_conditional_density(setting):
    """The joint density over that of the observed elements, whatever the missing ones."""
    joint, y, given = setting
    found = given.sample(50, generator(2))
    observed = ~MISSING[:, None].expand(found.shape)
    assert torch.equal(found[observed], y[:, None].expand(found.shape)[observed])
    for row, mask, values, log_p in zip(y, MISSING, found, given.log_prob(found), strict=True):
        expected = joint.log_prob(values)
        if not mask.all():
            expected = expected - joint.marginal((~mask).nonzero().flatten()).log_prob(
                row[~mask][None]
            )
        torch.testing.assert_close(log_p, expected)


def test_rows_may_share_a_pattern(setting):
    joint, y, _ = setting
    first = torch.arange(D) < 2
    shared = Conditional(joint, y[None], ~first[None])
    apart = Conditional(joint, y[:, None], (~first).expand(y.shape))
    torch.testing.assert_close(shared.means[0].movedim(1, 0), apart.means[:, :, 0])
    other = joint.sample(len(y), generator=generator(3))
    found, expected = shared.log_prob(other[None])[0], apart.log_prob(other[:, None])[:, 0]
    torch.testing.assert_close(found, expected)


def test_samples_have_their_density(setting):
    """Importance weights of a standard normal's samples have the samples' means."""
    _, _, given = setting
    count = 20_000
    found = given.sample(count, generator(3))
    other = torch.where(
        MISSING[:, None], 4 * torch.randn(found.shape, generator=generator(4)).double(), found
    )
    log_q = torch.distributions.Normal(0.0, 4.0).log_prob(other)
    weights = (given.log_prob(other) - torch.where(MISSING[:, None], log_q, 0.0).sum(2)).exp()
    for power in (0, 1, 2):
        terms = weights[..., None] * other**power
        gap = terms.mean(1) - (found**power).mean(1)
        error = ((terms.var(1) + (found**power).var(1)) / count).sqrt()
        assert (gap.abs() <= BOUND * error + 1e-9)[MISSING].all()


def test_contexts_are_known_and_left_out(setting):
    joint, y, _ = setting
    missing = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]]).bool()
    whole, rest = (Conditional(joint, y[:2, None], missing, contexts=n) for n in (0, 2))
    found = whole.sample(5, generator(4))
    assert torch.equal(rest.log_prob(found[..., 2:]), whole.log_prob(found))
    assert torch.equal(rest.means, whole.means[..., 2:])


def test_a_fitted_mixture_is_a_little_wider_and_has_no_more_components_than_samples_tell():
    samples = normal((4000, 2), torch.zeros((), dtype=torch.float64), generator(5, "samples"))
    found = mixture_of(samples, 8, generator(6))
    assert len(found.weights) == 8
    one = mixture_of(samples[:30], 8, generator(6))
    assert len(one.weights) == 1
    expected = 1.1**2 * (1 + 1e-3) * samples[:30].T.cov(correction=0)
    torch.testing.assert_close(one.covariances[0], expected, rtol=1e-6, atol=1e-6)


def test_proposals_of_near_collinear_columns_are_as_narrow_as_their_conditionals():
    """Proposals as wide as the columns themselves made imputation thirty times slower."""
    noise = normal((4000, 2), torch.zeros((), dtype=torch.float64), generator(5, "samples"))
    samples = torch.stack([noise[:, 0], noise[:, 0] + 1e-3 * noise[:, 1]], 1)
    fitted = mixture_of(samples, 1, generator(6))
    missing = torch.tensor([[False, True]])
    conditional = Conditional(fitted, samples[None, :1], missing)
    torch.testing.assert_close(
        conditional.covariances[0, 0, 1, 1].sqrt(), samples.new_tensor(1.1e-3), rtol=0.1, atol=0
    )


def test_columns_that_depend_on_others_get_proposals():
    """Contexts of one category depend on each other, and may be constant in a few rows."""
    noise = normal((4000, 1), torch.zeros((), dtype=torch.float64), generator(5, "samples"))
    first = (torch.arange(4000) % 3 == 0).double()[:, None]
    contexts = [1.37 * first - 0.3, 0.58 - 0.98 * first, torch.full_like(first, -0.28)]
    samples = torch.cat([*contexts, noise, noise + first], 1)
    assert mixture_of(samples, 16, generator(6)).log_prob(samples).isfinite().all()
