import numpy as np
import pytest
import torch
from scipy import stats

import ebflow
from ebflow import marginals
from ebflow.randomness import generator

N = 4000


def rows(*columns):
    return torch.tensor(np.stack(columns, 1))


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (lambda r: r.integers(0, 16, N) * 1.0, 1.0),
        (lambda r: r.integers(-5, 6, N) * 2.0 + 1, 2.0),
        (lambda r: 32 + 0.18 * r.integers(0, 200, N), 0.18),
        (lambda r: r.normal(size=N), 0.0),
        (lambda r: r.choice(r.normal(size=20), N), 0.0),
        (lambda r: np.ones(N), 0.0),
        (lambda r: np.arange(N) * 1.0, 0.0),
    ],
)
def test_the_step_of_a_grid(random, values, expected):
    assert marginals.find_grid(values(random))[1] == pytest.approx(expected)


def test_heavy_tails_become_light(random):
    x = rows(random.standard_t(1.5, N), random.normal(size=N), random.lognormal(size=N))
    found = marginals.fit(x)
    assert found.tails == [0, 2]
    y = x
    for layer in found.layers:
        y = layer(y)
    assert abs(stats.kurtosis(y.numpy()[:, [0, 2]])).max() < 0.5
    torch.testing.assert_close(y[:, 1].std() / y[:, 1].std(), torch.ones((), dtype=y.dtype))


def test_a_uniform_column_is_found_to_be_bounded(random):
    found = marginals.fit(rows(random.uniform(2, 5, N), random.normal(size=N)))
    assert list(found.bounds) == [0]
    assert found.bounds[0] == pytest.approx((2, 5), abs=0.01)


def test_known_bounds_are_kept_and_checked(random):
    x = rows(random.gamma(2.0, size=N))
    assert marginals.fit(x, bounds={0: (0.0, None)}).bounds == {0: (0.0, np.inf)}
    with pytest.raises(ValueError, match=r"bounds, column age: found values in .*, expected \[1"):
        marginals.fit(x, bounds={0: (1.0, None)}, names=["age"])
    with pytest.raises(ValueError, match="bounds, feature 0: found values"):
        marginals.fit(x, bounds={0: (1.0, None)})


def test_a_normal_table_needs_no_step(random):
    assert marginals.fit(rows(*random.normal(size=(3, N)))).layers == []


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_a_column_of_two_values_ends_at_both(random, share):
    x = rows(3.0 + 2 * (random.random(N) < share), random.normal(size=N))
    assert marginals.fit(x).bounds == {0: (3.0, 7.0)}
    assert marginals.fit(x, bounds={0: (3.0, None)}).bounds == {0: (3.0, np.inf)}
    assert marginals.fit(x, tails=False).bounds == {}


@pytest.mark.parametrize(
    ("values", "bounds", "ends"),
    [
        (lambda r: r.integers(0, 2, N), None, (0, 1)),
        (lambda r: r.integers(0, 2, N) / 10, None, (0, 0.1)),
        (lambda r: 3 * r.integers(1, 4, N), (3, None), (3, 1e9)),
        (lambda r: r.integers(0, 4, N), (0, 3), (0, 3)),
        (lambda r: r.integers(0, 4, N), (-1, 4.5), (-1, 4)),
    ],
)
def test_what_is_drawn_on_a_grid_stays_in_its_bounds(random, values, bounds, ends):
    found = marginals.fit(rows(values(random) * 1.0), bounds=bounds and {0: bounds})
    y = torch.linspace(-20, 20, 4001)[:, None].float()
    for layer in reversed(found.layers):
        y = layer.float().inverse(y)
    assert ends[0] <= y.min() and y.max() <= np.float32(ends[1])
    beyond = found.layers[0].inverse(torch.tensor([[-1e9], [1e9]]))
    assert beyond[:, 0].tolist() == pytest.approx(ends)


def test_ends_of_all_rows_are_no_bounds_of_some(random):
    x = rows(random.integers(0, 2, N) * 1.0, random.uniform(size=N), np.zeros(N))
    ends = torch.tensor([[0.0, 0.0, 0.0], [2.0, 5.0, 1.0]]).double().unbind(0)
    assert marginals.fit(x[:, :2]).bounds.keys() == {0, 1}
    found = marginals.fit(x, ends=ends)
    assert found.bounds[0][1] == found.bounds[1][1] == np.inf
    assert found.steps.tolist() == [1, 0, 1] and found.bounds[2] == (0, 2)
    with pytest.raises(ValueError, match=r"feature 1: found values in \[0, 5\]"):
        marginals.fit(x, bounds={1: (0.0, 1.0)}, ends=ends)


@pytest.mark.parametrize("outlier", [1e6, -1e9])
def test_no_bound_is_tried_far_from_where_a_column_lies(random, outlier):
    x = torch.tensor(random.uniform(size=(400, 2)))
    found = marginals.fit(x).bounds
    assert set(found) == {0, 1}
    x[7, 0] = outlier
    assert marginals.fit(x).bounds == {1: found[1]}


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


@pytest.mark.parametrize(("law", "fits"), [("normal", 2), ("exponential", 5), ("uniform", 5)])
def test_bounds_are_tried_where_a_column_seems_to_end(random, monkeypatch, law, fits):
    tried, plain = [], marginals._held_out
    monkeypatch.setattr(marginals, "_held_out", lambda *a: tried.append(a) or plain(*a))
    marginals.fit(rows(random.normal(size=N), getattr(random, law)(size=N)))
    assert len(tried) == fits


def test_the_spec_builds_the_same_layers(random):
    x = rows(random.integers(0, 9, N) * 1.0, random.uniform(size=N), random.standard_t(2, N))
    found = marginals.fit(x)
    again = marginals.build(found.spec, 3)
    for layer, other in zip(found.layers, again, strict=True):
        other.load_state_dict(layer.state_dict())
    x = found.layers[0].dequantize(x, x, generator(0, "x"))
    for layer, other in zip(found.layers, again, strict=True):
        assert torch.equal(layer(x), other(x))
        x = layer(x)


def test_what_is_done_is_told_by_name(random):
    x = rows(random.integers(0, 9, N) * 0.5, random.uniform(0, 1, N), random.standard_t(1.5, N))
    summary = marginals.fit(x, bounds={1: (0.0, None)}).summary(["a", "b", "c"])
    assert summary["grids"] == {"a": 0.5}
    assert summary["bounds"]["b"] == [0.0, None] and summary["tails"][-1] == "c"
    assert marginals.fit(rows(random.normal(size=N))).summary(["a"]) == {
        "grids": {}, "bounds": {}, "tails": []}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"grids": False, "tails": False}])
def test_categories_are_dequantized_within_their_codes(random, options):
    x = rows(random.uniform(size=20), random.choice([1, 2], 20))
    found = marginals.fit(x, categories=(0, 4), **options)
    assert found.steps.tolist() == [0, 1]
    assert found.layers[0].inverse(rows([0, 0], [-7, 9]))[:, 1].tolist() == [0, 3]
    assert (1 in found.bounds) == (not options)


def zeros(share, seed, count=1000):
    """Rows of which a share is 0 in the first column and the second one is normal."""
    random = np.random.default_rng(seed)
    some = np.where(random.random(count) < share, 0, random.exponential(size=count))
    return rows(some, random.standard_normal(count))


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_column_whose_quartiles_coincide_keeps_its_tails(seed):
    found = marginals.fit(zeros(0.99, seed))
    assert found.layers == [] and found.tails == []


def test_one_column_without_a_greatest_likelihood_does_not_change_others(random):
    heavy = random.standard_t(1.5, 1000)
    bad = zeros(0.99, 0)[:, :1]
    alone, beside = marginals.fit(rows(heavy)), marginals.fit(torch.cat([rows(heavy), bad], 1))
    assert alone.tails == beside.tails == [0] and beside.bounds == {}
    for one, other in zip(alone.layers, beside.layers, strict=True):
        x = torch.linspace(-9, 9, 50, dtype=torch.float64)[:, None]
        assert torch.equal(one(x)[:, 0], other(x.expand(-1, 2))[:, 0])


def test_a_fit_that_diverges_is_of_its_column_alone(random, monkeypatch):
    y, plain = rows(random.standard_t(2, N), random.normal(size=N)), marginals._likeliest
    spoil = y[:3, 1]

    def spoiled(y):
        bad = (y[:3].mT == spoil).all(1)
        return torch.full_like(plain(y), torch.nan) if bad.any() else plain(y)

    monkeypatch.setattr(marginals, "_likeliest", spoiled)
    johnson = marginals._johnson(y, torch.ones(2, dtype=torch.bool))
    assert johnson.delta[1] == johnson.lam[1] == marginals.STRAIGHT
    assert johnson.delta[0] < 10


def test_few_rows_repeated_are_fitted(random):
    x = torch.tensor(np.repeat(random.standard_normal((5, 2)), 100, 0))
    for layer in marginals.fit(x).layers:
        x = layer(x)
    assert x.isfinite().all()
