"""Contexts, in whatever they are kept: what is read, and what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import ebflow
from ebflow.tables.detect import detect_columns

QUICK = {"steps": 3, "progress": False, "marginals": False, "options": {"depth": 1}}
N = 60


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    c = rng.normal(size=N)
    return pd.DataFrame({"a": c + rng.normal(size=N), "b": rng.normal(size=N), "c": c})


@pytest.fixture(scope="module")
def flow(frame):
    """Of the column a, given c."""
    return ebflow.fit(frame[["a", "b"]], frame[["c"]], **QUICK)


@pytest.fixture(scope="module")
def categorical(flow):
    """The same flow, which calls its context k, of two levels."""
    net = ebflow.architectures.dense((2,), depth=1, context=2)
    given = detect_columns({"k": ["u", "v"]}, context=True)
    net.columns = detect_columns({"a": [0.5, 1.0], "b": [0.5, 1.0]})
    net.columns.context = given
    return net


@pytest.mark.parametrize("architecture", ["autoregressive", "dense"])
@pytest.mark.parametrize("kind", [np.asarray, lambda c: torch.tensor(c.to_numpy()), list])
def test_rows_are_no_context_of_their_own(frame, kind, architecture):
    x, c = frame[["a", "b"]], frame[["a", "b"]].to_numpy()
    nameless = ebflow.fit(x, kind(pd.Series(c[:, 0])), architecture=architecture, **QUICK)
    both = ebflow.fit(x, c, architecture=architecture, **QUICK)
    for flow in (both, nameless):
        for method in (flow.log_prob, flow.energy, flow.score, flow.to_latent):
            for rows in (x, frame, pa.Table.from_pandas(x)):
                with pytest.raises(ValueError, match="context: found None|x: found shape"):
                    method(rows)
            assert method(x, context=c[:, : flow.context]).isfinite().all()


def test_columns_without_names_are_not_told_from_those_of_a_context(frame):
    flow = ebflow.fit(frame[["a", "b"]].to_numpy(), frame[["c"]], **QUICK)
    with pytest.raises(ValueError, match="context: found None"):
        flow.log_prob(frame[["a", "c"]])


def test_a_series_goes_by_its_name(frame):
    flow = ebflow.fit(frame[["a", "b"]], frame["c"], **QUICK)
    assert flow.columns.context.names == ["c"]
    expected = flow(torch.tensor(frame["c"])).log_prob(frame)
    assert flow.log_prob(frame).equal(expected)
    assert flow.log_prob(pa.Table.from_pandas(frame)).equal(expected)
    for given in (frame[["a", "b"]], frame["a"]):
        with pytest.raises(ValueError, match="context: found no column c, expected all of c"):
            flow.log_prob(frame, context=given)


@pytest.mark.parametrize(
    "given", [0.5, [0.5], np.float32(0.5), {"c": 0.5}, {"c": torch.tensor(0.5)}]
)
def test_one_context_is_given_in_any_way(flow, given):
    expected, x = flow(torch.tensor(0.5)), torch.zeros(2)
    found = flow(given)
    assert found.batch_shape == () and found.log_prob(x).equal(expected.log_prob(x))
    assert [*found.sample(3)] == ["a", "b", "c"] and found.sample(3)["c"].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    "given", [[0.1, 0.2], np.array([[0.1], [0.2]]), pd.Series([0.1, 0.2]), {"c": [0.1, 0.2]},
              pd.Series([0.1, 0.2], name="c"), pa.table({"c": [0.1, 0.2]})]
)  # fmt: skip
def test_several_contexts_are_given_in_any_way(flow, given):
    expected, x = flow(torch.tensor([0.1, 0.2]).double()), torch.zeros(2)
    found = flow(given)
    assert found.batch_shape == (2,) and found.log_prob(x).equal(expected.log_prob(x))


def test_a_series_of_one_row_is_one_row(flow, frame):
    nameless = ebflow.fit(frame[["a", "b"]].to_numpy(), frame["c"].to_numpy(), **QUICK)
    for each in (flow, nameless):
        assert each(pd.Series([0.5])).batch_shape == (1,)


def test_several_columns_go_by_name_or_in_order(frame):
    flow = ebflow.fit(frame[["a"]], frame[["b", "c"]], **QUICK)
    expected = flow.as_context(torch.tensor([0.1, 0.2]).double())
    for given in ([0.1, 0.2], {"c": 0.2, "b": 0.1}):
        assert flow.as_context(given).equal(expected)
    assert flow.as_context({"c": [0.2, 0.3], "b": 0.1}).tolist() == [[0.1, 0.2], [0.1, 0.3]]
    assert flow.as_context(np.zeros((4, 3, 2))).shape == (4, 3, 2)
    with pytest.raises(ValueError, match="context: found 3 columns, expected 2: b, c"):
        flow([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="context: found no column c, expected all of b, c"):
        flow({"b": 0.1})


def test_a_category_is_given_as_numbers_are(categorical):
    assert categorical("u").batch_shape == ()
    assert categorical.as_context("v").tolist() == [0, 1]
    for given in (["v", "u"], pd.Series(["v", "u"]), {"k": ["v", "u"]}, [["v"], ["u"]]):
        assert categorical.as_context(given).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="context, row 1, column 'k': found an unknown level"):
        categorical.as_context(["u", "w"])


def test_rows_of_one_column_are_given_in_any_way(frame):
    for given in (frame["a"], frame["a"].rename(None), pa.table({"a": frame["a"].to_numpy()})):
        flow = ebflow.fit(given, **{**QUICK, "options": None})
        assert flow.event_shape == (1,)
        assert flow.log_prob(given).equal(flow.log_prob(frame[["a"]].to_numpy()))


def test_whole_data_are_evaluated_in_whatever_they_are_kept(frame, flow):
    """A frame has the contexts too; rows of another kind have them beside."""
    expected = ebflow.evaluate(flow, frame)
    assert expected.nll == pytest.approx(-float(flow.log_prob(frame).mean()), rel=1e-6)
    rows, given = frame[["a", "b"]].to_numpy(), frame["c"].to_numpy()
    assert ebflow.evaluate(flow, rows, context=given) == expected
    assert ebflow.evaluate(flow, pa.Table.from_pandas(frame)) == expected
    with pytest.raises(ValueError, match="context: found None"):
        ebflow.evaluate(flow, rows)
