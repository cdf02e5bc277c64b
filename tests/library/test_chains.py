"""Mixtures given some elements of each row, kernels and chains, against closed forms."""

import pytest
import torch

import ebflow
from ebflow.bijections import Dense
from ebflow.chains import ACCEPTANCE, DEFENCE, Chains, Kernels
from ebflow.conditioning import Conditional
from ebflow.randomness import generator, normal
from ebflow.target import Target, mixture_of

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


def test_log_prob_is_that_of_the_mixture_up_to_a_constant_of_each_row(setting):
    joint, y, law = setting
    found = law.sample(50, generator(2))[:, 0]
    known = ~MISSING[:, None].expand(found.shape)
    assert torch.equal(found[known], y[:, None].expand(found.shape)[known])
    apart = law.log_prob(found) + joint.energy(found.flatten(0, 1)).view(len(y), -1)
    torch.testing.assert_close(apart, apart[:, :1].expand(apart.shape))


def test_observed_elements_have_their_marginal_density(setting):
    """Rows that share a pattern are those of patterns of their own; none missing: the whole."""
    joint, y, law = setting
    first = torch.arange(D) < 2
    shared = Conditional(joint, y[None], ~first[None])
    torch.testing.assert_close(shared.log_observed[0], -joint.leading(2).energy(y[:, :2]))
    apart = Conditional(joint, y[:, None], (~first).expand(y.shape))
    torch.testing.assert_close(shared.log_observed[0], apart.log_observed[:, 0])
    torch.testing.assert_close(shared.means[0].movedim(1, 0), apart.means[:, :, 0])
    complete = Conditional(joint, y[None], torch.zeros(1, D).bool())
    torch.testing.assert_close(complete.log_observed[0], -joint.energy(y))


def test_samples_and_moments_agree(setting):
    joint, _, law = setting
    count = 20_000
    found, (mean, factor) = law.sample(count, generator(3))[:, 0], law.moments()
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
    found = law.sample(count, generator(8))[:, 0]
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
    whole, rest = (Conditional(joint, y[:2, None], missing, contexts=n) for n in (0, 2))
    drawn = whole.sample(5, generator(4))[:, 0]
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


@pytest.fixture
def gaussian():
    """Chains of 16 rows of a Gaussian, 32 each, that lack the first three elements of four."""
    root = torch.eye(4) + 0.5 * normal((4, 4), torch.zeros(()), generator(7)).tril(-1)
    flow = ebflow.Flow((4,), [Dense(root, None)])
    draws = flow.sample((2_000,), generator=generator(8))
    law = Target(flow, draws, generator(9), components=1)
    missing = (torch.arange(4) < 3).expand(16, 4)
    return Chains(law, draws[:16], missing, 32, generator(10))


@torch.no_grad()
def test_leapfrogs_are_tuned_to_their_acceptance(gaussian):
    """What 40 steps of 512 chains leave of an error, and the scatter of rows, is below 0.1."""
    gaussian.warm_up(40, leaps=True)
    accepted = torch.stack([gaussian._leapfrogs() for _ in range(20)]).mean(0).view(16, -1)
    assert float(accepted.mean()) == pytest.approx(ACCEPTANCE, abs=0.1)
    assert float(gaussian.log_step.std()) < 0.1


def test_steps_and_lengths_of_paths_are_drawn(gaussian, monkeypatch):
    """Of the paths of unit velocities over no slope: steps by chain, and their number by turn."""
    monkeypatch.setattr(gaussian, "_at", lambda q: (q.new_zeros(len(q)), torch.zeros_like(q)))
    monkeypatch.setattr("ebflow.chains.normal", lambda shape, like, _: like.new_ones(shape))
    gaussian.log_p, gaussian.log_step = torch.zeros(512), torch.full((512,), 0.5).log()
    counts = []
    for _ in range(50):
        before = gaussian.q
        gaussian._leapfrogs()
        steps = (gaussian.q - before)[:, 0] / 0.5
        counts.append(round(float(steps.mean())))
        shares = steps / counts[-1]
        assert 0.8 <= shares.min() < 0.81 and 1.19 < shares.max() <= 1.2
    assert set(counts) == {2, 3, 4, 5}  # 1.6 steps to 4.8, and on to the next whole number
