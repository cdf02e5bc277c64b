"""Preprocessing against numpy and scipy on the same completed data."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ebflow import marginals, preprocessing
from ebflow.architectures import dense
from ebflow.bases import StandardNormal
from ebflow.distribution import OFF_GRID
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.mixtures import fit_mixture
from ebflow.objectives import OBJECTIVES
from ebflow.preprocessing import SHRINKAGES, Preprocessing, build, density, fit
from ebflow.randomness import RowGenerator, uniform
from ebflow.randomness import generator as derive
from ebflow.tables.rows import Rows, sampled

from .bijections.cases import seeded

PREPROCESSINGS = {
    "digits, logit": ("digits", dict(margin=1e-3, scale=0.5)),
    "digits, no logit": ("digits", dict(margin=None)),
    "diabetes": ("diabetes", {}),
}
preprocessings = pytest.mark.parametrize("name", PREPROCESSINGS)
normalized = pytest.mark.parametrize("normalize", ["none", "standardize", "whiten", "cholesky"])


def flow_of(chain, width):
    """Returns the preprocessing alone as a flow."""
    return Flow((width,), []).preprocessed(chain)


def setting(request, name, **options):
    """Returns a training split, its chain, and the image of the rows that it was fit to."""
    source, known = PREPROCESSINGS[name]
    split = request.getfixturevalue(source).split("train")
    chain = fit(split, **known, **options)
    y = flow_of(chain, split.width).preprocess(
        split.tensor(), generator=RowGenerator(0, "preprocess")
    )
    return split, chain, y


def plain(split, options):
    """Returns what stands before the normalization, in numpy, and its log-determinants."""
    x = split.tensor()
    if split.levels is None:
        return x.double().numpy(), np.zeros(len(x))
    noise = uniform(x.shape, torch.zeros((), dtype=torch.float64), RowGenerator(0, "preprocess"))
    y = ((x + noise) / 17).numpy()
    if options["margin"] is None:
        return y, np.full(len(x), -64 * np.log(17))
    m, a = options["margin"], options["scale"]
    y = m + (1 - 2 * m) * y
    log_dets = 64 * np.log((1 - 2 * m) / 17) - np.log(a * y * (1 - y)).sum(1)
    return np.log(y / (1 - y)) / a, log_dets


@preprocessings
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
@normalized
def test_normalization_is_the_formula(request, name, normalize, shrinkage):
    """Whitening is by the symmetric root of the correlations, or by their Cholesky factor."""
    split, chain, y = setting(request, name, normalize=normalize, shrinkage=shrinkage)
    x, _ = plain(split, PREPROCESSINGS[name][1])
    standard = (x - x.mean(0)) / x.std(0)
    shrunk = (1 - shrinkage) * np.corrcoef(x.T) + shrinkage * np.eye(x.shape[1])
    if normalize == "whiten":
        values, vectors = np.linalg.eigh(shrunk)
        standard = standard @ (vectors / np.sqrt(values)) @ vectors.T
    if normalize == "cholesky":
        w = chain.layers[-1].weight.numpy()
        np.testing.assert_allclose(w, np.linalg.inv(np.linalg.cholesky(shrunk)), atol=1e-8)
        assert (np.triu(w, 1) == 0).all() and np.diag(w).min() > 0
        standard = standard @ w.T
    np.testing.assert_allclose(y, x if normalize == "none" else standard, rtol=1e-9, atol=1e-8)


def nearly_equal(noise, count=2000):
    """Returns rows of two columns that differ by noise, and one that does not depend on them."""
    x = np.random.default_rng(0).normal(size=(count, 3))
    return torch.tensor(np.stack([x[:, 0], x[:, 0] + noise * x[:, 1], x[:, 2]], 1))


@pytest.mark.parametrize("noise", [1.0, 0.1, 1e-2, 1e-4])
def test_nearly_dependent_columns_start_as_their_gaussian(noise):
    """In single precision, and their columns are otherwise standardized."""
    x = nearly_equal(noise)
    chain = fit(Rows(x), normalize="auto", shrinkage=None, dtype=torch.float32)
    assert chain.spec["normalize"] == ("standardize" if noise == 1 else "cholesky")
    if noise < 1:
        found = Flow((3,), []).float().preprocessed(chain).log_prob(x).double().mean()
        exact = multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x).mean()
        assert found == pytest.approx(exact, abs=0.02)


def test_directions_that_single_precision_cannot_resolve_are_shrunk():
    """Columns that differ by 1e-7 have a density in single precision, if not a sharp one."""
    x = nearly_equal(1e-7)
    with pytest.raises(BadInput, match="shrinkage: found a singular covariance"):
        fit(Rows(x), dtype=torch.float32)
    chain = fit(Rows(x), shrinkage=None, dtype=torch.float32)
    exact = Flow((3,), []).double().preprocessed(chain).log_prob(x).mean()
    found = Flow((3,), []).float().preprocessed(chain).log_prob(x).double().mean()
    assert chain.shrinkage > 0 and found == pytest.approx(float(exact), abs=0.05)


def test_few_rows_of_many_columns_are_no_worse_than_independent_ones():
    """50 rows of 500 standard normal columns; the truth is 1.419 nats per column."""
    x = torch.randn(250, 500, generator=derive(0, "rows"))
    chain = fit(Rows(x[:50]), grids=True, tails=True, shrinkage=None)
    assert chain.shrinkage > 0.9
    nll = -float(density(chain).log_prob(x[50:]).mean()) / 500
    means, deviations = x[:50].mean(0), x[:50].std(0, correction=0)
    independent = torch.distributions.Normal(means, deviations).log_prob(x[50:])
    assert nll < -float(independent.mean()) + 0.01 and nll < 1.48


def wide(rows=60, width=20):
    """Returns few rows of correlated columns."""
    draw = np.random.default_rng(3).normal
    x = draw(size=(rows, width)) @ draw(size=(width, width)) + 5
    return torch.from_numpy(x)


@pytest.mark.parametrize("rows", [12, 30, 2000])
def test_an_open_shrinkage_is_likeliest_on_rows_left_out(rows):
    x = wide(rows).numpy()
    left = np.arange(rows) % 5 == 4
    scale = x.std(0)
    r = np.cov(x[~left].T, bias=True) / np.outer(scale, scale)
    held = x[left] / scale

    def nll(rho):
        shrunk = (1 - rho) * r + rho * np.eye(len(r))
        away = held - (x[~left] / scale).mean(0)
        return (
            np.linalg.slogdet(shrunk)[1] + (away * np.linalg.solve(shrunk, away.T).T).sum(1).mean()
        )

    found = fit(Rows(wide(rows)), shrinkage=None)
    known = [rho for rho in SHRINKAGES if rho or rows > 25]
    assert found.shrinkage == min(known, key=nll)
    same = fit(Rows(wide(rows)), shrinkage=found.shrinkage)
    assert torch.equal(found.layers[-1].weight, same.layers[-1].weight)


def test_columns_that_nearly_depend_on_others_are_whitened_in_single_precision():
    x = wide(400, 4)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 4)))
    split = Rows(torch.cat([x, x + 1e-9 * noise, x[:, :1] + x[:, 1:2]], 1))
    with pytest.raises(BadInput, match="shrinkage: found a singular covariance"):
        fit(split)
    flow, rows = flow_of(fit(split, shrinkage=None), 9), next(split.batches(400)).x
    expected = flow.preprocess(rows)
    y = flow.float().preprocess(rows.float())
    assert expected.abs().max() < 100
    np.testing.assert_allclose(y, expected, atol=0.05)


def test_too_few_rows_are_shrunk_most():
    assert fit(Rows(wide(4)), shrinkage=None).shrinkage == 1


def test_whitening_does_not_depend_on_units():
    x = torch.randn(200, 2, generator=derive(0, "rows")) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    one, other = (
        flow_of(fit(Rows(rows), shrinkage=0.1), 2).preprocess(rows)
        for rows in (x, x * torch.tensor([1.0, 1e6]))
    )
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_constant_feature_is_refused():
    split = Rows(torch.stack([torch.arange(60.0), torch.ones(60)], 1))
    with pytest.raises(BadInput, match="feature 1: found a constant"):
        fit(split, normalize="standardize")


@preprocessings
@pytest.mark.parametrize("normalize", ["standardize", "whiten"])
def test_statistics_do_not_depend_on_the_batches(request, monkeypatch, name, normalize):
    source, options = PREPROCESSINGS[name]
    split = request.getfixturevalue(source).split("train")

    def statistics(rows):
        monkeypatch.setattr(preprocessing, "BATCH", rows)
        return flow_of(fit(split, normalize=normalize, **options), split.width).state_dict()

    few, many, whole = map(statistics, (1 if source == "diabetes" else 30, 1000, 5000))
    for key, t in whole.items():
        for other in (few, many):
            torch.testing.assert_close(other[key], t, rtol=1e-9, atol=1e-9)


@preprocessings
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_gaussian_is_scipys_whatever_the_default_type(request, name, default):
    torch.set_default_dtype(default)
    source, options = PREPROCESSINGS[name]
    split = request.getfixturevalue(source).split("train")
    flow = density(fit(split, **options))
    assert flow.dtype == torch.float64
    x, log_dets = plain(split, options)
    exact = multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x) + log_dets
    noise = RowGenerator(0, "preprocess")
    np.testing.assert_allclose(
        flow.log_prob(split.tensor(), generator=noise), exact, rtol=1e-9, atol=1e-7
    )


def test_a_column_that_varies_in_one_of_many_rows_is_no_constant(monkeypatch):
    monkeypatch.setattr(preprocessing, "MOMENTS", 10)
    x = torch.randn(5000, 2, generator=seeded(), dtype=torch.float64)
    some = sampled(Rows(x), 2000, 0, "moments").tensor()
    x[:, 1] = (x[:, 0] == next(value for value in x[:, 0] if value not in some[:, 0])).double()
    y = flow_of(fit(Rows(x), normalize="standardize"), 2).preprocess(x)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2).to(y))


def test_statistics_of_many_rows_are_those_of_some(monkeypatch):
    monkeypatch.setattr(preprocessing, "MOMENTS", 10)
    split = Rows(torch.randn(5000, 2, generator=seeded(), dtype=torch.float64) ** 3)
    y = flow_of(fit(split, normalize="standardize"), 2).preprocess(
        sampled(split, 2000, 0, "moments").tensor()
    )
    torch.testing.assert_close(y.mean(0), torch.zeros(2).to(y))
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2).to(y))


@preprocessings
@normalized
def test_a_chain_in_a_file_is_the_same_to_the_bit(request, name, normalize, tmp_path):
    split, chain, y = setting(request, name, normalize=normalize)
    chain.save(tmp_path / "chain.safetensors")
    again = Preprocessing.load(tmp_path / "chain.safetensors")
    assert again.spec == chain.spec
    ours, theirs = (
        flow_of(c, split.width).preprocess(split.tensor(), generator=RowGenerator(0, "preprocess"))
        for c in (chain, again)
    )
    assert torch.equal(ours, theirs)


def test_unknown_normalization_is_refused(digits):
    with pytest.raises(ValueError, match="normalize: found 'zca'"):
        fit(digits.split("train"), normalize="zca")


def test_a_fitted_chain_is_left_as_it_is(digits, single_precision):
    """One chain may stand before a float32 and a float64 flow."""
    split = digits.split("train")
    chain = fit(split, normalize="whiten")
    before = chain.layers[-1].weight.dtype
    dense((64,), dtype=torch.float32).preprocessed(chain)
    assert chain.layers[-1].weight.dtype == before == torch.float64


@pytest.mark.parametrize("offset", [1.7e9, -3e12])
def test_a_column_far_from_zero_is_resolved_in_single_precision(offset):
    """Its origin is subtracted in float64."""
    random = np.random.default_rng(0)
    x = torch.tensor(np.stack([random.normal(size=200), random.integers(0, 2, 200)], 1))
    flows = [
        Flow((2,), []).preprocessed(fit(Rows(rows), grids=True, tails=True, dtype=torch.float32))
        for rows in (x + offset, x)
    ]
    found = flows[0].log_prob(x + offset, generator=derive(0))
    torch.testing.assert_close(
        found, flows[1].log_prob(x, generator=derive(0)), atol=2e-3, rtol=1e-3
    )
    samples = flows[0].sample(300, generator=derive(0))
    assert set(samples[:, 1].tolist()) == {offset, offset + 1}


def outlying(value, share, count=2000):
    """Rows (a, a + noise) of which a share has a value in place of the first."""
    random = np.random.default_rng(0)
    a, noise, missing = random.standard_normal((3, count))
    b = a + 0.5 * noise
    a[np.argsort(missing)[: max(1, int(share * count))]] = value
    return Rows(torch.tensor(np.stack([a, b], 1)))


OUTLIERS = [(1e3, 0), (1e6, 0), (-1e9, 0), (1e12, 0), (9999999999.0, 0.01), (-9999.0, 0.3),
            (1e10, 0.3)]  # fmt: skip


@pytest.mark.parametrize(("value", "share"), OUTLIERS)
def test_a_density_beside_outliers_is_the_same_in_single_precision(value, share):
    chain = fit(outlying(value, share), grids=True, tails=True, dtype=torch.float32)
    flow = Flow((2,), [])
    grid = torch.linspace(-8, 8, 201, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    exact = flow.double().preprocessed(chain).log_prob(x).exp()
    single = flow.float().preprocessed(chain)
    p = single.log_prob(x).exp().double()
    assert p.sum() == pytest.approx(float(exact.sum()), rel=2e-3)
    torch.testing.assert_close(p, exact, rtol=0.02, atol=0.01 * float(exact.max()))
    bulk = single.sample(1000, generator=derive(0))[:, 0]
    bulk = bulk[bulk.abs() < 10]
    assert len(bulk.unique()) > 0.98 * len(bulk)


@pytest.mark.parametrize("share", [0, 0.3])
def test_outliers_that_leave_no_digits_to_the_others_are_refused(share):
    rows = outlying(1e10, share)
    with pytest.raises(BadInput, match=r"'a': found .* \(half of them lie within 0\.6\d+ of"):
        fit(rows, names=["a", "b"], dtype=torch.float32)
    assert fit(rows, names=["a", "b"]).layers


def test_a_value_that_few_of_many_rows_have_is_no_outlier(monkeypatch):
    """Columns are fitted to some rows; what these lack is no farther off for it."""
    random, rare = np.random.default_rng(0), 3
    monkeypatch.setattr(marginals, "ROWS", 200)
    x = np.stack([random.integers(0, 2, 50_000), random.uniform(size=50_000)], 1)
    x[random.choice(50_000, rare, replace=False)] = 2, 5
    split = Rows(torch.tensor(x))
    flow = Flow((2,), []).double().preprocessed(fit(split, grids=True, tails=True))
    assert flow.to_latent(split.tensor()).abs().max() < 100


WIDTH = 16
SPEC = {"width": WIDTH, "levels": 256, "margin": 1e-6, "scale": 0.5,
        "columns": {}, "normalize": "none"}  # fmt: skip
precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def before(dtype, **options):
    """Returns a flow matched before its preprocessing, and rows of which most are 0 or 255."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (64, WIDTH), generator=generator)
    edge = torch.randint(0, 3, x.shape, generator=generator)
    x = torch.where(edge == 0, x, torch.where(edge == 1, 0, 255)).to(torch.uint8)
    flow = dense((WIDTH,), noise=0.1, generator=derive(0, "weights"), dtype=dtype)
    return flow.preprocessed(build({**SPEC, **options}), match_after=False), x


@precisions
@pytest.mark.parametrize("name", ["dsm", "fd_ssm", "taylor_sm", "sml", "ssm"])
@pytest.mark.parametrize("normalize", ["none", "whiten"])
def test_scores_are_matched_before_a_logit(name, normalize, dtype):
    flow, x = before(dtype, normalize=normalize)
    y = flow.preprocess(x, generator=derive(0))
    if name in ("dsm", "sml"):
        outside = ((y + torch.randn(y.shape, dtype=dtype)) < 0).any()
        assert outside and y.min() >= 0 and y.max() < 256
    loss = OBJECTIVES[name](flow.core, y, generator=derive(1))
    assert loss.shape == (64,) and loss.isfinite().all()
    loss.mean().backward()
    for parameter in flow.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert any(p.grad is not None and p.grad.any() for p in flow.parameters())


def test_a_density_before_a_logit_has_all_its_mass_on_the_line():
    """By the trapezoidal rule over and far beyond the range."""
    flow = Flow((1,), []).preprocessed(
        build({**SPEC, "width": 1, "margin": 0.3, "scale": 1.0}), match_after=False
    )
    x = torch.linspace(-1000, 1256, 400_001, dtype=torch.float64)
    p = flow.double().core.log_prob(x[:, None]).exp()
    total, inside = (float(torch.trapezoid(p[m], x[m])) for m in (x > -1e9, (x > 0) & (x < 256)))
    assert total == pytest.approx(1, abs=1e-6) and inside < 1 - 1e-4


def mixed_columns(count=600):
    """Integers, a column of heavy tails, one on the unit interval, and a mixed one."""
    random = np.random.default_rng(0)
    heavy, unit = random.standard_t(1.5, count), random.uniform(size=count)
    x = np.stack([random.integers(0, 9, count), heavy, unit, unit + random.normal(size=count)], 1)
    return Rows(torch.from_numpy(x))


def test_columns_are_dequantized_bounded_and_bent_and_come_back():
    rows = mixed_columns()
    chain = fit(rows, grids=True, tails=True, bounds={2: (0.0, 1.0)})
    assert list(chain.spec["columns"]) == ["cells", "bounds", "tails"]
    assert [column.step for column in chain.columns.columns] == [1, 0, 0, 0]
    assert chain.columns.bounds[2] == (0.0, 1.0)
    flow, x = Flow((4,), []).double().preprocessed(chain), rows.resident.x
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x)), x)
    assert flow.to_latent(x).abs().max() < 8


def test_density_behind_columns_is_of_raw_units():
    chain = fit(mixed_columns(), grids=True, tails=True)
    flow = Flow((4,), []).double().preprocessed(chain)
    x = mixed_columns().resident.x[:5] + 0.25  # off the grid
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(flow.to_latent, row[None]).reshape(4, 4) for row in x]
    )
    u = flow.to_latent(x)
    expected = torch.slogdet(jacobian)[1] + StandardNormal().log_prob(u)
    torch.testing.assert_close(flow.log_prob(x), expected - OFF_GRID)


def test_a_chain_with_columns_and_a_base_in_a_file_is_the_same_to_the_bit(tmp_path):
    rows = mixed_columns()
    chain = fit(rows, grids=True, tails=True)
    z = Flow((4,), []).double().preprocessed(chain).to_latent(rows.resident.x)
    chain = dataclasses.replace(chain, base=fit_mixture(z[:500], z[500:]).trainable())
    chain.save(tmp_path / "chain")
    again = Preprocessing.load(tmp_path / "chain")
    flows = (Flow((4,), [], base=c.base).double().preprocessed(c) for c in (chain, again))
    first, second = (flow.log_prob(rows.resident.x) for flow in flows)
    assert torch.equal(first, second)
    assert again.base.means.requires_grad


def test_tails_of_columns_do_not_bend_a_sum_of_others():
    parts = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(400, 2)))
    total = parts.sum(1, keepdim=True) + 0.01 * torch.from_numpy(
        np.random.default_rng(1).normal(size=(400, 1))
    )
    x = torch.cat([parts, total], 1)
    options = dict(normalize="auto", shrinkage=None, grids=True)
    bent, straight = (fit(Rows(rows), tails=True, **options) for rows in (parts, x))
    assert "tails" in bent.spec["columns"]
    assert straight.spec["normalize"] == "cholesky" and "tails" not in straight.spec["columns"]
    plain = density(fit(Rows(x), tails=False, **options))
    assert density(straight).log_prob(x).mean() >= plain.log_prob(x).mean() - 1e-9


def heavy(count, seed):
    """Rows whose independent directions are Student's with three degrees of freedom, turned."""
    noise, turn = np.random.default_rng(seed), np.random.default_rng(0)
    x = noise.standard_t(3, (count, 4)) * [1, 2, 3, 4]
    return torch.tensor(x @ np.linalg.qr(turn.normal(size=(4, 4)))[0])


def test_directions_with_heavy_tails_are_made_normal(tmp_path):
    train, test = Rows(heavy(4000, 1)), heavy(4000, 2)
    before, chain = (flow_of(fit(train, gaussianize=g), 4) for g in (False, True))
    gain = chain.log_prob(test).mean() - before.log_prob(test).mean()
    assert gain > 0.3
    fit(train, gaussianize=True).save(tmp_path / "chain")
    again = flow_of(Preprocessing.load(tmp_path / "chain"), 4)
    assert torch.equal(again.log_prob(test), chain.log_prob(test))
    x = test[:5].requires_grad_()
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(chain().to_latent, row) for row in x]
    )
    exact = chain.base.log_prob(chain().to_latent(x)) + jacobian.det().abs().log()
    torch.testing.assert_close(chain.log_prob(x), exact, atol=1e-9, rtol=0)


def test_normal_directions_are_left_as_they_are():
    rows = torch.randn(2000, 5, generator=derive(0, "rows"))
    assert not fit(Rows(rows), gaussianize=True).spec["gaussianized"]
