"""Closed-form cases: Gaussian classes N(μ_i, Σ) of one covariance, P = Σ⁻¹, equal priors.

Monte Carlo means of 20,000 points are compared within 5 %; their standard errors are below 1 %.
"""

import pytest
import torch

from ebflow.alignment.logit import ClassLogit, shifted
from ebflow.alignment.metrics import (
    alignments,
    another_point,
    dsm,
    fisher_ratio,
    gradients,
    invariants,
)
from ebflow.alignment.reference import Reference, pooled
from ebflow.bases import GaussianMixture
from ebflow.randomness import generator as derive
from ebflow.randomness import normal

D, C, N = 16, 4, 20_000
NEAR = dict(rel=0.05)


@pytest.fixture(scope="module")
def case():
    """Returns means, covariance, precision, labels and points."""
    draws = derive(0, "case")
    like = torch.empty(0, dtype=torch.float64)
    root = torch.eye(D) + 0.3 * normal((D, D), like, draws) / D**0.5
    covariance = 2 * root @ root.mT
    means = 2 * normal((C, D), like, draws)
    labels = torch.arange(N) % C
    noise = normal((N, D), like, draws) @ torch.linalg.cholesky(covariance).mT
    return means, covariance, torch.linalg.inv(covariance), labels, means[labels] + noise


def bayes(means, precision):
    """Returns f_i = −½ (x − μ_i)·P (x − μ_i)."""

    def logits(x):
        z = x.unsqueeze(1) - means
        return -0.5 * torch.einsum("bci,ij,bcj->bc", z, precision, z)

    return logits


def straight(means, precision):
    """Returns the same classifier with logits linear in x."""
    mu = means @ precision
    return lambda x: x @ mu.mT - 0.5 * (mu * means).sum(1)


def reference(means, covariance):
    one = torch.ones(1, dtype=torch.float64)
    return Reference([GaussianMixture(one, mean[None], covariance[None]) for mean in means])


def aligned(logits, case):
    """Returns mean A1, A2 and A3, and relF."""
    means, covariance, _, labels, x = case
    found, scores = gradients(logits, x, labels), reference(means, covariance).at(x)
    own = scores.classes[labels, torch.arange(N)]
    mean = {name: float(values.mean()) for name, values in alignments(found, scores).items()}
    return mean, fisher_ratio(found.own, own)


def matching(logits, case):
    """Returns J, the mean of the exact score-matching objective, and the mean trace."""
    labels, x = case[3][:500], case[4][:500]
    at = ClassLogit(logits, labels).at(x)
    trace, score = at.laplacian(), at.score
    loss = score.square().sum(1) / 2 + trace
    return float(loss.detach().mean()), float(trace.detach().mean())


def test_bayes_logits_are_the_scores(case):
    means, _, precision, _, _ = case
    mean, (relative, best) = aligned(bayes(means, precision), case)
    assert mean == pytest.approx({"A1": 1, "A2": 1, "A3": 1}, abs=1e-9)
    assert relative < 1e-18 and best < 1e-18
    value, trace = matching(bayes(means, precision), case)
    assert trace == pytest.approx(-float(precision.trace()))
    assert value == pytest.approx(-float(precision.trace()) / 2, **NEAR)


def test_a_perfect_classifier_may_have_no_alignment_of_densities(case):
    means, _, precision, labels, x = case
    plain, quadratic = straight(means, precision), bayes(means, precision)
    torch.testing.assert_close(plain(x).softmax(1), quadratic(x).softmax(1))
    mean, (relative, _) = aligned(plain, case)
    mu = means @ precision
    # The cosine of a fixed and a symmetric random direction in 16 dimensions: 1/√(16 n).
    assert abs(mean["A1"]) < 4 / (D * N) ** 0.5 * 4 and mean["A3"] == pytest.approx(1, abs=1e-9)
    expected = 1 + float(mu.square().sum(1).mean() / precision.trace())
    assert relative == pytest.approx(expected, **NEAR)
    value, trace = matching(plain, case)
    assert trace == pytest.approx(0, abs=1e-12)
    assert value == pytest.approx(float(mu.square().sum(1).mean()) / 2, **NEAR)


@pytest.mark.parametrize("mu", [1e-3, 1e-2, 0.1])
def test_the_stability_penalty_shrinks_scores_by_the_law(case, mu):
    """a* = 1/(1 + 2 μ T) with T = E‖s‖² = tr P, found by minimizing over a."""
    means, _, precision, labels, x = case
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    base = bayes(means, precision)
    density = ClassLogit(lambda x: scale * base(x), labels[:2000])
    optimizer = torch.optim.LBFGS([scale], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        at = density.at(x[:2000])
        trace, score = at.laplacian(), at.score
        loss = (score.square().sum(1) / 2 + trace + mu * trace**2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    law = 1 / (1 + 2 * mu * float(precision.trace()))
    assert float(scale.detach()) == pytest.approx(law, **NEAR)


def test_a_linear_shift_moves_a1_alone(case):
    means, _, precision, labels, x = case
    t, base = normal((D,), x, derive(1)), bayes(means, precision)
    t = t / t.norm()
    fooled = shifted(base, lambda x: 1e3 * (x @ t))
    changes = invariants(base, fooled, x[:500], labels[:500])
    assert changes["posterior"] < 1e-10 and changes["loss"] < 1e-10 and changes["same"] == 1
    assert changes["loss_gradient"] < 1e-9 and changes["logit_gradient"] > 1
    mean, _ = aligned(fooled, case)
    scores = reference(means, case[1]).at(x)
    own = scores.classes[labels, torch.arange(N)]
    expected = float(torch.cosine_similarity(t.expand(N, -1), own).mean())
    assert mean["A1"] == pytest.approx(expected, abs=0.02)
    assert mean["A3"] == pytest.approx(1, abs=1e-9)
    before, after = matching(base, case), matching(fooled, case)
    assert after[1] == pytest.approx(before[1])
    assert after[0] == pytest.approx(before[0] + 1e3**2 / 2, **NEAR)


def test_the_dsm_residual_is_twice_the_objective_of_the_smoothed_density(case):
    """Of the exact scores of p * N(0, s²) it is −tr of their precision, by Stein's identity."""
    means, covariance, _, labels, x = case
    sigma = 0.5
    smooth = torch.linalg.inv(covariance + sigma**2 * torch.eye(D))
    noise = normal(x.shape, x, derive(4))
    gradient = ClassLogit(bayes(means, smooth), labels).score(x + sigma * noise).detach()
    cosines, residual = dsm(gradient, noise, sigma)
    assert residual.value == pytest.approx(-float(smooth.trace()), abs=4.5 * residual.se)
    assert cosines.mean() > 0.3


@pytest.mark.parametrize("logits", [bayes, straight])
def test_scores_of_other_points_are_no_scores(case, logits):
    """Linear logits point to a class: so does that class's score at a point of another one."""
    means, covariance, precision, labels, x = case
    found, scores = (
        gradients(logits(means, precision), x, labels),
        reference(means, covariance).at(x),
    )
    other = another_point(x, derive(5))
    assert not (other == torch.arange(N)).any() and other.unique().numel() == N
    assert abs(float(alignments(found, scores, other)["A1"].mean())) < 0.03
    if logits is straight:
        wrong_class = torch.cosine_similarity(found.own, scores.classes[labels, other])
        assert float(wrong_class.mean()) > 0.1


def test_posteriors_of_the_reference_are_bayes_rule(case):
    means, covariance, precision, _, x = case
    scores = reference(means, covariance).at(x)
    torch.testing.assert_close(scores.posterior, bayes(means, precision)(x).softmax(1))
    mixture = GaussianMixture(
        torch.ones(C, dtype=torch.float64), means, covariance.expand(C, D, D)
    )
    torch.testing.assert_close(scores.marginal, mixture.score(x))


def test_the_class_blind_gaussian_has_the_mean_and_the_noisy_covariance_of_all_rows():
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = pooled(x, 0.5)
    torch.testing.assert_close(found.means[0], x.mean(0))
    torch.testing.assert_close(
        found.covariances[0], torch.cov(x.mT) + 0.25 * torch.eye(3).double()
    )
