"""Mixtures fitted by expectation maximization, against scikit-learn itself and known truths."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as Theirs
from threadpoolctl import threadpool_info, threadpool_limits

import ebflow
from ebflow import mixtures, preprocessing
from ebflow.bases import GaussianMixture
from ebflow.mixtures import fit_mixture
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import RowGenerator
from ebflow.tables.rows import sampled

from .bijections.cases import seeded

TRUTH = {
    "weights": torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
    "means": torch.tensor([[-4.0, 0.0], [0.0, 4.0], [4.0, 0.0]], dtype=torch.float64),
}
FACTORS = torch.tensor(
    [[[1.0, 0.0], [0.9, 0.3]], [[0.5, 0.0], [-0.4, 0.2]], [[1.0, 0.0], [0.0, 0.3]]],
    dtype=torch.float64,
)


def rows(n, seed=0):
    mixture = GaussianMixture(*TRUTH.values(), FACTORS @ FACTORS.mT)
    return mixture.sample(n, generator=seeded(seed))


def nll(mixture, x):
    return -float(mixture.log_prob(x).mean())


@pytest.fixture
def trials(monkeypatch):
    """The numbers of components, the kinds and the iterations of all fitted mixtures."""
    tried, fitted = [], mixtures._fitted

    def spied(x, count, kind, *arguments):
        result = fitted(x, count, kind, *arguments)
        tried.append((count, kind, result[1]))
        return result

    monkeypatch.setattr(mixtures, "_fitted", spied)
    return tried


def test_the_choice_is_the_best_of_scikit_learns_own(trials):
    """A loop over counts and kinds, written out, with the same starts."""
    x, held = rows(600), rows(400, 1)
    found = fit_mixture(x, held, components=(1, 2, 3, 4))
    mean, scale = x.mean(0), x.std(0, correction=0)
    nlls, x_, held_ = [], *(((t - mean) / scale).numpy() for t in (x, held))
    for count, kind, _ in trials:
        start = ebflow.randomness.generator(0, "mixture", kind, count).initial_seed() % 2**32
        model = Theirs(count, covariance_type=kind, max_iter=100, random_state=start).fit(x_)
        nlls.append(float(scale.log().sum()) - model.score(held_))
    assert nll(found, held) == pytest.approx(min(nlls), abs=1e-9)
    assert found.full and len(found.weights) in (3, 4)


def test_it_recovers_the_truth():
    mixture = fit_mixture(rows(5000), rows(2000, 1), components=(1, 2, 3, 4))
    order = mixture.means[:, 0].argsort()
    torch.testing.assert_close(mixture.weights[order], TRUTH["weights"], atol=0.03, rtol=0)
    torch.testing.assert_close(mixture.means[order], TRUTH["means"], atol=0.1, rtol=0)
    torch.testing.assert_close(
        mixture.covariances[order], FACTORS @ FACTORS.mT, atol=0.1, rtol=0.1
    )


def test_one_component_is_the_gaussian_of_greatest_likelihood():
    x, held = rows(400), rows(100, 1)
    found = fit_mixture(x, held, components=(1,))
    law = multivariate_normal(
        x.mean(0), x.T.cov(correction=0) + 1e-6 * x.var(0, correction=0).diag()
    )
    np.testing.assert_allclose(found.log_prob(held), law.logpdf(held), atol=1e-9)


def test_a_seed_gives_the_same_bits_and_single_precision_is_welcome(monkeypatch):
    monkeypatch.setattr(mixtures, "ROWS", 200)
    x, held = rows(300).float(), rows(100, 1).float()
    first, second = (fit_mixture(x, held, seed=3) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]) and tensor.dtype == torch.float64
    other = fit_mixture(x, held, seed=4)
    assert other.means.shape != first.means.shape or not torch.equal(other.means, first.means)


def test_collapsed_components_are_judged_by_the_validation_rows():
    """Sixty-four Gaussians on seventy rows: an enormous training likelihood."""
    x, held = rows(70), rows(1000, 1)
    found = fit_mixture(x, held, components=(1, 2, 3, 64))
    collapsed = mixtures.fit_components(x, 64)
    assert -nll(collapsed, x) > -nll(found, x) + 2
    assert len(found.weights) < 64


def test_it_stops_after_two_in_succession_that_are_no_better(trials):
    x = torch.randn(300, 3, generator=seeded())
    found = fit_mixture(x, torch.randn(300, 3, generator=seeded(1)))
    for kind in ("diag", "full"):
        assert [count for count, other, _ in trials if other == kind] == [1, 2, 4]
    assert len(found.weights) == 1


def test_other_starts_of_the_best_candidate_may_be_better(trials):
    centres = 6 * torch.randn(16, 4, generator=seeded()).double()
    x, held = (centres.repeat(n, 1) for n in (60, 20))
    x, held = (y + torch.randn(y.shape, generator=seeded(len(y))) for y in (x, held))
    one, tried = fit_mixture(x, held, components=(1, 4, 8)), trials[:]
    several = fit_mixture(x, held, components=(1, 4, 8), starts=4)
    numbers = [trial[:2] for trial in trials]
    assert numbers[: len(tried)] == [(k, kind) for kind in ("full", "diag") for k in (1, 4, 8)]
    assert numbers[len(tried) :][3:-3] in ([(8, "full")] * 2, [(8, "full")] * 3)
    assert nll(several, held) < nll(one, held) - 0.01


def test_the_budget_bounds_the_work(trials):
    x, held = rows(400), rows(100, 1)
    budget = 1.5 * mixtures.LEAST * mixtures._costs(4, (400, 2), "full")[1]
    fit_mixture(x, held, budget=budget)
    costs = ((mixtures._costs(count, (400, 2), kind), n) for count, kind, n in trials)
    assert len(trials) > 1 and sum(start + n * step for (start, step), n in costs) <= budget


def test_full_covariances_come_first_and_leave_a_fifth_of_the_budget(trials):
    x, held = rows(400), rows(100, 1)
    budget = 40 * mixtures._costs(4, (400, 2), "full")[1]
    fit_mixture(x, held, budget=budget)
    full = [(mixtures._costs(n, (400, 2), kind), k) for n, kind, k in trials if kind == "full"]
    assert [kind for _, kind, _ in trials[: len(full)]] == ["full"] * len(full)
    assert trials[-1][1] == "diag"
    assert sum(start + k * step for (start, step), k in full) <= 0.8 * budget


def test_one_thread_fits_it(monkeypatch):
    """Several would wait for each other on a busy machine."""
    found, fit = [], Theirs.fit

    def spied(model, x):
        found.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(model, x)

    monkeypatch.setattr(Theirs, "fit", spied)
    with threadpool_limits(2):
        fit_mixture(rows(50), rows(50, 1), components=(1,))
    assert set(found) == {1}


def test_without_a_budget_there_is_one_diagonal_gaussian(trials):
    fit_mixture(rows(50), rows(50, 1), budget=0)
    assert [(count, kind) for count, kind, _ in trials] == [(1, "diag")]


@pytest.mark.parametrize("shift, scale", [(1e6, 1.0), (0.0, 1e-4)])
def test_units_do_not_matter(shift, scale):
    x, held = rows(300), rows(100, 1)
    first, second = fit_mixture(x, held), fit_mixture(scale * x + shift, scale * held + shift)
    assert len(second.weights) == len(first.weights)
    expected = first.log_prob(held) - 2 * np.log(scale)
    torch.testing.assert_close(second.log_prob(scale * held + shift), expected, atol=1e-3, rtol=0)


def test_a_constant_column_is_no_accident():
    x = torch.cat([rows(200), torch.ones(200, 1)], 1)
    assert fit_mixture(x, x[:50]).log_prob(x).isfinite().all()


def test_rows_behind_a_chain_are_a_flows_own(digits, monkeypatch):
    split = digits.split("train")
    chain = preprocessing.fit(split, shrinkage=0.01)
    y = mixtures.preprocessed_rows(chain, split, seed=3)
    flow = preprocessing.density(chain)
    expected = flow.preprocess(split.tensor(), generator=RowGenerator(3, "preprocess"))
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(mixtures, "ROWS", 500)
    few = mixtures.preprocessed_rows(chain, split, seed=3)
    chosen = sampled(split, 500, 3, "mixture", "rows").tensor()
    expected = flow.preprocess(chosen, generator=RowGenerator(3, "preprocess"))
    torch.testing.assert_close(few, expected, rtol=1e-9, atol=1e-9)
    assert len(few) == 500


def test_a_first_count_above_the_rows_is_refused():
    with pytest.raises(ValueError, match="components: found .* at most the 3 rows"):
        fit_mixture(rows(3), rows(9, 1), components=(5,))


def test_no_more_components_than_rows(trials):
    fit_mixture(rows(3), rows(50, 1))
    assert max(count for count, *_ in trials) <= 3


@pytest.mark.parametrize(("width", "affordable"), [(784, True), (3072, False)])
def test_wide_rows_have_full_covariances_if_they_are_affordable(width, affordable):
    start, step = mixtures._costs(1, (7000, width), "full")
    assert (start + mixtures.LEAST * step < mixtures.BUDGET) == affordable


def test_scikit_learns_warning_is_silenced_for_that_call_alone(monkeypatch):
    monkeypatch.setattr(mixtures, "MOST", 10)
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_mixture(rows(300), rows(50, 1), components=(8, 16))
    assert warnings.filters == before


@pytest.mark.parametrize(("x", "held", "components", "message"), [
    (torch.zeros(5), torch.zeros(5, 1), (1,), "shapes"),
    (torch.zeros(5, 2), torch.zeros(5, 1), (1,), "shapes"),
    (torch.full((5, 1), torch.nan), torch.zeros(5, 1), (1,), "x: found a value"),
    (torch.zeros(5, 1), torch.full((5, 1), torch.inf), (1,), "validation: found a value"),
    (torch.zeros(5, 1), torch.zeros(5, 1), (2, 1), "components"),
    (torch.zeros(5, 1), torch.zeros(5, 1), (), "components"),
])  # fmt: skip
def test_what_is_no_data_is_refused(x, held, components, message):
    with pytest.raises(ValueError, match=message):
        fit_mixture(x, held, components=components)


def joint(kind, count):
    """A mixture of two numbers and ``count`` contexts in front of them."""
    size, draws = count + 2, seeded(3)
    factors = torch.randn(3, size, size, generator=draws, dtype=torch.float64)
    covariances = factors @ factors.mT + torch.eye(size).double()
    if kind == "diag":
        covariances = covariances.diagonal(dim1=1, dim2=2)
    means = 2 * torch.randn(3, size, generator=draws, dtype=torch.float64)
    return GaussianMixture(TRUTH["weights"], means, covariances)


def density(mixture, width):
    return preprocessing.density(Preprocessing([], {"width": width}, base=mixture))


@pytest.mark.parametrize("kind", ["diag", "full"])
@pytest.mark.parametrize("count", [1, 3])
def test_given_contexts_it_is_a_ratio_of_densities(kind, count):
    mixture = joint(kind, count)
    v = mixture.sample(7, generator=seeded())
    flow = density(mixture, 2)
    parts = zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    full = [(w, m.numpy(), (c.diag() if c.ndim == 1 else c).numpy()) for w, m, c in parts]
    ratio = np.log(
        sum(float(w) * multivariate_normal(m, c).pdf(v) for w, m, c in full)
        / sum(
            float(w) * multivariate_normal(m[:count], c[:count, :count]).pdf(v[:, :count])
            for w, m, c in full
        )
    )
    found = flow.log_prob(v[:, count:], context=v[:, :count])
    np.testing.assert_allclose(found, ratio, rtol=1e-10)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_samples_given_a_context_have_its_moments(kind):
    """Means to within five standard errors: a false alarm once in 1e5."""
    mixture = joint(kind, 2)
    flow = density(mixture, 2)
    v = mixture.sample(400_000, generator=seeded())
    near = v[(v[:, :2] - v[0, :2]).norm(dim=1) < 0.15][:, 2:]
    draws = flow.sample((100_000,), generator=seeded(1), context=v[:1, :2]).squeeze(1)
    error = near.std(0) / len(near) ** 0.5
    assert ((draws.mean(0) - near.mean(0)).abs() < 5 * error + 0.1).all()
    np.testing.assert_allclose(draws.std(0), near.std(0), rtol=0.1)


def test_a_regression_is_least_squares():
    draws = seeded(4)
    c = 100 + 5 * torch.randn(500, 2, generator=draws, dtype=torch.float64)
    y = c @ torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double().mT
    y = y + torch.randn(500, 2, generator=draws, dtype=torch.float64)
    one_hot = torch.eye(3)[torch.arange(500) % 3].double()  # its columns depend on each other
    x = torch.cat([c, one_hot, y + 4 * one_hot[:, :2]], 1)
    flow = density(mixtures.regression(x), 2)
    design = np.concatenate([x[:, :5].numpy(), np.ones((500, 1))], 1)
    line = np.linalg.lstsq(design, x[:, 5:].numpy(), rcond=None)[0]
    rest = x[:, 5:].numpy() - design @ line
    expected = multivariate_normal([0, 0], rest.T @ rest / 500).logpdf(rest)
    found = flow.log_prob(x[:, 5:], context=x[:, :5])
    np.testing.assert_allclose(found, expected, atol=5e-3)  # the floor of the variances


def test_a_search_given_contexts_is_judged_by_the_rest():
    """c decides among three lines, which one Gaussian cannot tell apart."""
    draws = seeded(5)

    def rows(n):
        c = torch.rand(n, 1, generator=draws, dtype=torch.float64) * 6 - 3
        noise = 0.1 * torch.randn(n, 1, generator=draws, dtype=torch.float64)
        return torch.cat([c, c.abs() + noise], 1)

    x, held = rows(2000), rows(500)
    found = fit_mixture(x, held, components=(1, 2, 4, 8), contexts=1)
    flow = density(found, 1)
    nll = -float(flow.log_prob(held[:, 1:], context=held[:, :1]).mean())
    assert len(found.weights) > 1
    truth = 0.5 * np.log(2 * np.pi * np.e * 0.01)
    assert truth - 0.1 < nll < truth + 0.35
