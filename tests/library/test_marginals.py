import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_iris

import ebflow
from ebflow import marginals, preprocessing
from ebflow.randomness import generator
from ebflow.tables.rows import Rows

N = 4000


def rows(*columns):
    return torch.tensor(np.stack(columns, 1))


@pytest.fixture
def random():
    return np.random.default_rng(0)


def column(x):
    """Returns the cells of one column, and the layers."""
    found = marginals.fit(rows(np.asarray(x, float)))
    return found.columns[0]


@pytest.mark.parametrize(("values", "expected"), [
    (lambda r: r.integers(0, 16, N), 1.0),
    (lambda r: r.integers(-5, 6, N) * 2.0 + 1, 2.0),
    (lambda r: 32 + 0.18 * r.integers(0, 200, N), 0.18),
    (lambda r: np.float32(60 + 0.1 * r.integers(0, 200, N)), 0.1),
    (lambda r: np.round(r.lognormal(7, 1, N)), 1.0),
    (lambda r: 1e7 + 0.5 * r.integers(0, 9, N), 0.5),
    (lambda r: np.arange(N), 1.0),
    (lambda r: np.round(r.normal(60, 1.5, 500), 1), 0.1),
    (lambda r: np.round(r.normal(size=N), 3), 0.001),
    (lambda r: r.normal(size=N), 0.0),
    (lambda r: r.integers(0, 9, N) + 1e-4 * r.normal(size=N), 0.0),
    (lambda r: r.integers(0, 7, N) / 3, 0.0),
])  # fmt: skip
def test_the_step_of_a_grid(random, values, expected):
    assert column(values(random)).step == pytest.approx(expected)


@pytest.mark.parametrize("digits", [6, 16])
def test_few_values_on_no_grid_are_levels(random, digits):
    """Thirds with six decimals: seven of the millions of points of a grid of 1e-6."""
    thirds = np.round(np.arange(7) / 3, digits)
    found = column(random.choice(thirds, N))
    assert found.levels == thirds.tolist() and not found.step and not found.atoms
    assert [knot.width for knot in found.knots] == pytest.approx([1 / 3] * 7, abs=1e-5)


def mixed(random, share=0.6, count=N):
    return np.where(random.random(count) < share, 0.0, random.lognormal(size=count))


@pytest.mark.parametrize("share", [0.02, 0.6, 0.9, 0.995])
def test_repeated_values_of_a_continuous_column_are_atoms(random, share):
    found = column(mixed(random, share))
    assert found.atoms == [0.0] and found.least == 0 and found.most == np.inf
    width = np.sqrt(2 * np.pi) * stats.iqr(random.lognormal(size=N)) / 1.349 * share / (1 - share)
    assert found.knots[0].width == pytest.approx(width, rel=0.5)


def test_atoms_of_grids_are_far_more_frequent_than_other_values(random):
    zeros = np.where(random.random(N) < 0.9, 0, random.integers(1, 101, N))
    assert column(zeros).atoms == [0.0] and column(zeros).step == 1
    assert column(random.random(N) < 0.01).atoms == [0.0]
    for plain in (random.poisson(5, N), random.integers(0, 2, N), random.random(N) < 0.2):
        assert column(plain).step == 1 and not column(plain).atoms


def density(x, dtype=torch.float64, bounds=None):
    """Returns the normal density of standardized rows."""
    options = dict(normalize="standardize", grids=True, tails=True, dtype=dtype, bounds=bounds)
    chain = preprocessing.fit(Rows(x), **options)
    return ebflow.Flow((x.shape[1],), []).to(dtype).preprocessed(chain)


@pytest.mark.parametrize("bounds", [None, {0: (0.0, None)}])
def test_atoms_have_their_share_of_samples_and_of_mass(random, bounds):
    """60 % zeros and a lognormal: with a normal latent the shares are near, and the mass is 1."""
    flow = density(rows(mixed(random)), bounds=bounds)
    samples = flow.sample((20_000,), generator=generator(0, "samples"))
    assert float((samples == 0).double().mean()) == pytest.approx(0.6, abs=0.1)
    assert samples.min() == 0
    mass = float(flow.log_prob(torch.zeros(1, 1).double()).exp())
    assert mass == pytest.approx(0.6, abs=0.1)
    ends = torch.logspace(-12, 5, 200_001).double()
    grid = torch.cat([-ends.flip(0), ends])[:, None]
    total = float(torch.trapezoid(flow.log_prob(grid).exp(), grid[:, 0])) + mass
    assert total == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sentinel", [-999.0, 9999.0, 60.0])
@pytest.mark.parametrize("values", [lambda r: r.uniform(0, 50, N), lambda r: r.normal(25, 7, N)])
def test_no_sample_lies_between_a_sentinel_and_the_other_values(random, sentinel, values):
    x, gone = values(random), random.random(N) < 0.2
    flow = density(rows(np.where(gone, sentinel, x)), torch.float32)
    samples = flow.sample((20_000,), generator=generator(0, "samples")).numpy()
    assert np.mean(samples == sentinel) == pytest.approx(gone.mean(), abs=0.02)
    others = samples[samples != sentinel]
    assert x.min() - 7 < others.min() and others.max() < x.max() + 7
    assert np.quantile(others, [0.02, 0.98]) == pytest.approx(np.quantile(x, [0.02, 0.98]), abs=2)


@pytest.mark.parametrize("values", [lambda r: r.normal(2, 1, N), lambda r: r.beta(0.5, 2, N)])
@pytest.mark.parametrize("bounds", [None, {0: (0.0, None)}])
def test_samples_of_a_positive_column_are_positive(random, values, bounds):
    """And small ones are as frequent as the integral of the density says."""
    x = np.abs(values(random))
    flow, ends = density(rows(x), torch.float32, bounds), np.quantile(x, [0.002, 0.01, 0.1])
    samples = flow.sample((100_000,), generator=generator(0, "samples")).numpy()
    assert samples.min() > 0
    for end in ends:
        grid = torch.logspace(-40, math.log10(end), 20_001).double()[:, None]
        mass = float(torch.trapezoid(flow.log_prob(grid).double().exp(), grid[:, 0]))
        assert np.mean(samples < end) == pytest.approx(mass, rel=0.05, abs=5e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [(2011, 2012), (64, 65), (100, 101), (-1e9, -1e9 + 1)])
def test_two_values_far_from_zero_are_resolved(random, values, dtype):
    x = rows(random.choice(values, N) * 1.0, random.normal(size=N))
    flow = density(x, dtype)
    for k in range(20):
        assert flow.log_prob(x, generator=generator(0, k)).isfinite().all()


def test_an_unseen_value_of_a_binary_column_costs_twenty_nats_at_most(random):
    for share in (0.5, 0.2, 0.1, 0.01, 0.001):
        flow = density(rows((random.random(N) < share) * 1.0))
        log_p = flow.log_prob(torch.tensor([[0.0], [1.0], [2.0], [-1.0]]).repeat(99, 1))
        log_p = log_p.view(99, 4)
        assert (log_p[:, 0].mean() - log_p[:, 2:]).max() < 20
        assert (log_p[:, 0].mean() - log_p[:, 2:]).min() > 3


def test_values_off_the_grid_or_between_levels_are_a_millionth_as_likely(random):
    """Of whole numbers, two levels, thirds, and an atom among other numbers; also beside NaN."""
    thirds, whole = random.integers(0, 3, N) / 3, random.integers(0, 500, N)
    flow = density(rows(whole, random.integers(0, 2, N), thirds, mixed(random)))
    for column, (value, factor) in enumerate([(250.5, 1), (0.5, 1), (0.4, 1), (1.0, 0)]):
        x = torch.tensor([250.0, 1.0, 1 / 3, 0.0]).double().repeat(4, 1)
        x[2:, column - 1], x[1::2, column] = torch.nan, value
        changes = flow.log_prob(x).diff()[::2]
        assert (changes + factor * math.log(1e6)).abs().max() < 3
        assert (float(flow.explain(x[1:2]).p_value[0, column]) == 0) == bool(factor)
    many = random.choice(random.random(500), N)
    assert not density(rows(many)).layers[0].off_grid(rows(many[:9] + 1e-3)).any()


def test_an_integer_far_from_those_of_an_exact_column_is_a_millionth_as_likely(random):
    x = rows(random.integers(18, 50, N), random.normal(size=N))
    flow = ebflow.fit(x, steps=20, progress=False)
    log_p = flow.log_prob(torch.tensor([[v, 0.0] for v in (30.0, 55, -60, 500, 30.5)]).double())
    unlikely = log_p[0] - log_p[1:]
    assert 3 < unlikely[0] < 9 and (unlikely[1:] > 13).all()


def test_heavy_tails_become_light(random):
    x = rows(random.standard_t(1.5, N), random.normal(size=N), random.lognormal(size=N))
    found = marginals.fit(x)
    assert found.tails == [0, 2]
    y = x
    for layer in found.layers:
        y = layer(y)
    assert abs(stats.kurtosis(y.numpy()[:, [0, 2]])).max() < 2
    torch.testing.assert_close(y[:, 1].std() / y[:, 1].std(), torch.ones((), dtype=y.dtype))


def test_a_uniform_column_is_found_to_be_bounded(random):
    found = marginals.fit(rows(random.uniform(2, 5, N), random.normal(size=N)))
    assert list(found.bounds) == [0]
    assert found.bounds[0] == pytest.approx((2, 5), abs=0.01)


def test_few_rows_have_no_bound_just_beyond_them():
    """About one of n new rows lies beyond the others at each end."""
    table = load_iris(as_frame=True).data.sample(frac=1, random_state=3)
    assert not marginals.fit(torch.tensor(table[30:].to_numpy())).bounds


def test_known_bounds_are_kept_and_checked(random):
    x = rows(random.gamma(2.0, size=N))
    assert marginals.fit(x, bounds={0: (0.0, None)}).bounds == {0: (0.0, np.inf)}
    with pytest.raises(ValueError, match=r"bounds, column 'age': found values in .*, expected \["):
        marginals.fit(x, bounds={0: (1.0, None)}, names=["age"])
    with pytest.raises(ValueError, match="bounds, feature 0: found values"):
        marginals.fit(x, bounds={0: (1.0, None)})


def test_of_a_normal_table_only_the_origin_is_moved(random):
    found = marginals.fit(rows(*random.normal(size=(3, N))))
    assert list(found.spec) == ["cells"] and not found.layers[0].noisy


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_a_column_of_two_values_ends_at_both(random, share):
    x = rows(3.0 + 2 * (random.random(N) < share), random.normal(size=N))
    assert marginals.fit(x).bounds == {0: (3.0, 5.0)} and not marginals.fit(x).tails
    assert marginals.fit(x, bounds={0: (3.0, None)}).bounds == {0: (3.0, np.inf)}
    assert marginals.fit(x, tails=False).bounds == {}


@pytest.mark.parametrize(("values", "bounds"), [
    (lambda r: r.integers(0, 2, N) * 1.0, None),
    (lambda r: r.integers(0, 2, N) / 10, None),
    (lambda r: 3.0 * r.integers(1, 4, N), (3, None)),
    (lambda r: r.integers(0, 4, N) * 1.0, (-1, 4.5)),
    (lambda r: r.poisson(5, N) * 1.0, None),
    (lambda r: np.round(43 + 0.1 * r.integers(0, 360, N), 1), None),
    (lambda r: r.integers(1, 8, N) / 7, None),
    (lambda r: r.choice([-1e4, 0.1, 0.7, 3.0], N), None),
])  # fmt: skip
def test_samples_of_discrete_columns_are_values_of_the_table(random, values, bounds):
    x = values(random)
    flow = density(rows(x), torch.float32, bounds and {0: bounds})
    y = torch.linspace(-20, 20, 4001)[:, None].float()
    found = set(flow.from_latent(y).flatten().tolist())
    assert found <= set(x.tolist()) and {x.min(), x.max()} <= found


def test_ends_of_all_rows_are_no_bounds_of_some(random):
    x = rows(random.integers(0, 2, N) * 1.0, random.uniform(size=N), np.zeros(N))
    ends = torch.tensor([[0.0, 0.0, 0.0], [2.0, 5.0, 1.0]]).double().unbind(0)
    assert marginals.fit(x[:, :2]).bounds.keys() == {0, 1}
    found = marginals.fit(x, ends=ends)
    assert found.bounds[0][1] == found.bounds[1][1] == np.inf
    assert [c.step for c in found.columns] == [1, 0, 1] and found.bounds[2] == (0, 1)
    with pytest.raises(ValueError, match=r"feature 1: found values in \[0, 5\]"):
        marginals.fit(x, bounds={1: (0.0, 1.0)}, ends=ends)


@pytest.mark.parametrize("outlier", [1e6, -1e9])
def test_no_bound_is_tried_far_from_where_a_column_lies(random, outlier):
    x = torch.tensor(random.uniform(size=(400, 2)))
    found = marginals.fit(x).bounds
    assert set(found) == {0, 1}
    x[7, 0] = outlier
    assert marginals.fit(x).bounds == {1: found[1]} | ({0: (0, np.inf)} if outlier > 0 else {})


@pytest.mark.parametrize("sentinel", [-999.0, 99_999.0, -1e9])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_a_sentinel_of_many_rows_is_carried_far_from_the_others(random, sentinel, share):
    """Others are as finely resolved in single precision as without it."""
    x = torch.tensor(random.normal(size=(N, 1)))
    gone = torch.tensor(random.random(N) < share)
    x[gone] = sentinel
    flow = ebflow.Flow((1,), marginals.fit(x).layers).float()
    back = flow.from_latent((flow.to_latent(x) + 1) - 1).double()
    assert float((back - x)[~gone].abs().median()) < 1e-5


@pytest.mark.parametrize(("law", "fits"), [("normal", 1), ("exponential", 4), ("uniform", 4)])
def test_bounds_are_tried_where_a_column_seems_to_end(random, monkeypatch, law, fits):
    tried, plain = [], marginals._held_out
    monkeypatch.setattr(marginals, "_held_out", lambda *a: tried.append(a) or plain(*a))
    marginals.fit(rows(random.normal(size=N), getattr(random, law)(size=N)))
    assert len(tried) == fits


def test_the_spec_builds_the_same_layers(random):
    x = rows(random.integers(0, 9, N) * 1.0, random.uniform(size=N), random.standard_t(2, N),
             mixed(random))  # fmt: skip
    found = marginals.fit(x)
    again = marginals.build(found.spec, 4)
    for layer, other in zip(found.layers, again, strict=True):
        other.load_state_dict(layer.state_dict())
    x = found.layers[0].dequantize(x, x, generator=generator(0, "x"))
    for layer, other in zip(found.layers, again, strict=True):
        assert torch.equal(layer(x), other(x))
        x = layer(x)


def test_categories_are_always_dequantized(random):
    x = rows(random.uniform(size=200), random.choice([1, 2], 200))
    options = dict(grids=False, tails=False)
    found = marginals.fit(x, categories=(0, 4), **options)
    assert [c.step for c in found.columns] == [0, 1] and not found.bounds
    assert found.layers[0].inverse(rows([0, 0], [-7, 9]))[:, 1].tolist() == [0, 3]
    assert marginals.fit(x, categories=(0, 4)).bounds[1] == (0, 3)
    assert not marginals.fit(x, **options).layers[0].noisy


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_one_column_does_not_change_others(seed):
    random = np.random.default_rng(seed)
    heavy, rare = random.standard_t(1.5, 1000), np.where(random.random(1000) < 0.99, 0, 1.5)
    alone, beside = marginals.fit(rows(heavy)), marginals.fit(rows(heavy, rare))
    assert alone.tails == beside.tails == [0]
    x = torch.linspace(-9, 9, 50, dtype=torch.float64)[:, None]
    one, two = (found.layers[-1] for found in (alone, beside))
    assert torch.equal(one(x)[:, 0], two(x.expand(-1, 2))[:, 0])


def test_tables_of_few_rows_keep_their_tails(random):
    found = marginals.fit(rows(random.standard_t(1.5, 99), random.uniform(size=99)))
    assert not found.tails and found.bounds == {1: (0, np.inf)}


def test_wide_tables_are_fitted_by_fewer_rows():
    assert marginals.enough(10) == 4000 and marginals.enough(2000) * 2000 < 2**20
    assert marginals.enough(10**6) == 200


def test_few_rows_repeated_are_fitted(random):
    x = torch.tensor(np.repeat(random.standard_normal((5, 2)), 100, 0))
    for layer in marginals.fit(x).layers:
        x = layer(x)
    assert x.isfinite().all()
