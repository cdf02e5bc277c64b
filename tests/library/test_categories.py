"""Tables with categories: exact probabilities from fit to samples."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import ebflow

ROWS = 600


@pytest.fixture(scope="module")
def table():
    """Numbers, levels that depend on each other, a boolean and a small count."""
    random = np.random.default_rng(0)
    kind = random.choice(["u", "v", "w"], ROWS, p=[0.6, 0.3, 0.1])
    flag = random.random(ROWS) < np.where(kind == "u", 0.95, 0.1)
    x = random.normal(size=ROWS) + 4 * (kind == "v")
    return pd.DataFrame({"x": x, "kind": kind, "flag": flag, "count": random.integers(1, 4, ROWS)})


def fitted(*arguments, **options):
    """Returns a flow after a short training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ebflow.fit(*arguments, **{"steps": 60, "progress": False, **options})


@pytest.fixture(scope="module")
def flow(table):
    return fitted(table)


def levels(flow, **columns):
    """Returns the probabilities of the three kinds, with other columns fixed."""
    return flow.log_prob(pd.DataFrame({"kind": ["u", "v", "w"], **columns})).exp()


def test_columns_of_few_values_are_categories_of_the_flow(flow):
    assert flow.spec["architecture"] == "autoregressive"
    assert flow.spec["options"]["categories"] == [0, 3, 2, 3]
    assert flow.report.nll < 4.5


def test_a_score_does_not_depend_on_noise(flow, table):
    first, second = (
        flow.log_prob(table, generator=torch.Generator().manual_seed(k)) for k in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_a_table_of_categories_has_exact_probabilities(table):
    flow = fitted(table[["kind", "flag"]])
    pairs = [(kind, flag) for kind in "uvw" for flag in (True, False)]
    p = flow.log_prob(pd.DataFrame(pairs, columns=["kind", "flag"])).exp().numpy()
    shares = table.value_counts(["kind", "flag"], normalize=True).reindex(pairs, fill_value=0)
    assert p.sum() == pytest.approx(1, abs=1e-5) and (p > 0).all()
    assert abs(p - shares).max() < 0.05
    assert flow.sample(5).dtypes.equals(table[["kind", "flag"]].dtypes)


def test_one_category_alone_given_a_category(table):
    flow = fitted(table[["kind"]], table[["flag"]])
    for flag in (True, False):
        p = levels(flow(pd.DataFrame({"flag": [flag] * 3})))
        share = (table.kind[table.flag == flag] == "u").mean()
        assert p.sum() == pytest.approx(1, abs=1e-5) and p[0] == pytest.approx(share, abs=0.1)
    samples = flow({"flag": False}).sample(2000, generator=torch.Generator().manual_seed(0))
    assert (samples.kind == "u").mean() == pytest.approx(float(p[0]), abs=0.05)


def test_rare_combinations_are_sampled_given_their_context(table):
    """Rejection sampling of a joint model needs thousands of samples for one such row."""
    rare = table.assign(flag=table.flag & (table.kind == "w") & (table["count"] == 3))
    flow = fitted(rare[["x"]], rare[["kind", "flag", "count"]])
    samples = flow({"kind": "w", "flag": True, "count": 3}).sample(500)
    assert len(samples) == 500 and np.isfinite(samples.x).all()


def test_a_rare_row_is_completed_by_its_conditional_distribution(flow, table):
    rows = pd.DataFrame({"x": [0.5] * 400, "kind": "w", "flag": True, "count": np.nan})
    generator = torch.Generator().manual_seed(0)
    found = flow.impute(rows, generator=generator)["count"].to_numpy()
    p = flow.log_prob(rows[:3].assign(count=[1, 2, 3])).softmax(0).numpy()
    shares = np.array([(found == count).mean() for count in (1, 2, 3)])
    assert shares.sum() == 1 and (abs(shares - p) < 4 * np.sqrt(p * (1 - p) / 400)).all()


def test_other_architectures_have_codes_with_noise(table):
    for options in ({"architecture": "dense"}, {"objective": "dsm"}):
        flow = fitted(table, steps=2, **options)
        assert "categories" not in flow.spec["options"] and flow.log_prob(table).isfinite().all()


def test_whitening_leaves_categories_alone(table):
    flow = fitted(table.assign(y=table.x + 1e-3 * np.arange(ROWS) / ROWS), steps=2,
                  normalize="cholesky")  # fmt: skip
    y = flow.preprocess(table.assign(y=table.x), generator=torch.Generator().manual_seed(0))
    assert y[:, 1].floor().tolist() == [*map("uvw".index, table.kind)]


@pytest.mark.parametrize(
    ("levels", "width"), [((1, 2, 4, 8), 1), ((1, 2, 3, 4), 1), ((0.1, 0.5, 2.5), 0.4)]
)
def test_a_number_that_is_no_level_is_nearly_impossible(levels, width):
    """Another integer is as likely as half a row, other numbers are a millionth of that."""
    x = np.random.default_rng(0).choice(levels, (300, 1)).astype(float)
    flow = fitted(x, steps=1, architecture="autoregressive")
    p = width * flow.log_prob(np.array(levels, float)[:, None]).exp()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.numpy() == pytest.approx([(x == level).mean() for level in levels], abs=0.02)
    others = np.array([levels[-1] + 1, -7, levels[0] - 0.5, levels[1] + 0.25, 1e9])[:, None]
    p = flow.log_prob(others).double().exp()
    p[int(levels[0]) :] *= 1e6  # all of those beside tenths
    assert (p < 0.5 / 240).all() and (p > 0.2 / 300).all()
    assert np.unique(flow.sample(100)).tolist() == [*levels]


@pytest.mark.parametrize("levels", [np.arange(10) / 10, np.array([1, 2.3, 2.71, 4, 5.3, 6.6])])
def test_likelihoods_of_levels_and_of_dequantized_numbers_can_be_compared(levels):
    """The truth is the density of a uniform column of cells, times that of N(0, 1)."""
    random = np.random.default_rng(0)
    x, y = (np.c_[random.choice(levels, n), random.normal(size=n)] for n in (2000, 1000))
    exact = fitted(x, steps=100, architecture="autoregressive")
    noisy = fitted(x, steps=300, architecture="dense")
    assert exact.spec["options"]["categories"] == [len(levels), 0]
    widths = np.diff(levels, append=levels[-1] + np.median(np.diff(levels)))
    if np.isclose(np.ptp(widths), 0):
        nll = -float(noisy.log_prob(y).mean())
        assert nll == pytest.approx(-float(exact.log_prob(y).mean()), abs=0.1)
    places = np.searchsorted(levels, y[:, 0] + 1e-9) - 1
    truth = 0.5 * np.log(2 * np.pi * np.e) + np.log(len(levels) * widths[places]).mean()
    assert -float(exact.log_prob(y).mean()) == pytest.approx(truth, abs=0.1)


def test_bounds_of_a_column_of_levels():
    x = np.random.default_rng(0).choice([1.0, 2, 4, 8], (300, 1))
    flow = fitted(x, steps=1, architecture="autoregressive", bounds={0: (1.0, 9.0)})
    log_p = flow.log_prob(np.array([[1.0], [3], [8.5], [0.9], [9.5]]))
    assert log_p.isfinite().tolist() == [True, True, True, False, False]
    assert log_p[0] > log_p[1] + 3
