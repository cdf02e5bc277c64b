"""Frames, arrays and lists in the place of tensors: what is read, and what is refused."""

import copy
import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse

import ebflow

QUICK = {"steps": 3, "progress": False}
N = 60
A, B = np.random.default_rng(7).normal(size=(2, N, 1))
WHOLE = np.random.default_rng(8).integers(0, 9, (N, 2))


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "yes": rng.integers(0, 2, N).astype(bool),
            "count": pd.array(rng.integers(0, 5, N), dtype="Int64"),
        }
    )


@pytest.fixture(scope="module")
def flow(frame):
    return ebflow.fit(frame, **QUICK)


@pytest.fixture(scope="module")
def table(frame):
    """A table with text, times, a category, a constant, an identifier and a linear function."""
    rng = np.random.default_rng(1)
    return frame.assign(
        cut=rng.choice(["Ideal", "Good"], N),
        size=pd.Categorical(rng.choice(["S", "M"], N), ["S", "M"], ordered=True),
        day=pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 90, N), "D"),
        number=range(1, N + 1),
        seven=7,
        double=2 * frame["count"] + 1,
    )


@pytest.fixture(scope="module")
def fitted(table):
    return ebflow.fit(table, **QUICK)


LIBRARIES = [lambda t: t, pl.from_pandas, lambda t: pa.Table.from_pandas(t, preserve_index=False)]


@pytest.mark.parametrize("convert", LIBRARIES)
def test_a_table_is_fitted_and_sampled_as_it_is(table, fitted, convert):
    flow = fitted if convert is LIBRARIES[0] else ebflow.fit(convert(table), **QUICK)
    drawn = flow.sample(50, generator=torch.Generator().manual_seed(0))
    assert type(drawn) is type(convert(table))
    drawn = drawn if isinstance(drawn, pd.DataFrame) else drawn.to_pandas()
    assert drawn["double"].tolist() == (2 * drawn["count"] + 1).tolist()
    assert set(drawn["cut"]) == {"Ideal", "Good"} and set(drawn["seven"]) == {7}
    assert flow.event_shape == (6,) and flow.columns.width == 6


def test_samples_have_the_types_of_the_table(table, fitted):
    drawn, log_prob = fitted.sample_and_log_prob((2, 3))
    assert log_prob.shape == (2, 3) and len(drawn) == 6
    assert drawn.dtypes.equals(table.dtypes)
    assert fitted().sample_tensor((2, 3)).shape == (2, 3, 6)


def test_scores_do_not_depend_on_the_order_of_rows_and_columns(table, fitted):
    expected = fitted.log_prob(table)
    order = np.random.default_rng(2).permutation(N)
    other = table.iloc[order, ::-1].assign(more="?")
    torch.testing.assert_close(fitted.log_prob(other), expected[order])
    torch.testing.assert_close(fitted.log_prob(table.iloc[[3]]), expected[[3]])
    assert fitted.log_prob(table.iloc[:0]).shape == (0,)


def test_a_value_that_cannot_be_scored_is_named(table, fitted):
    for name, value, found in (("cut", None, "nan"), ("x", np.inf, "inf"), ("x", np.nan, "nan")):
        rows = table.copy()
        rows.loc[7, name] = value
        with pytest.raises(ValueError, match=f"column '{name}', row 7: found {found}, .*impute"):
            fitted.to_latent(rows)
    with pytest.raises(ValueError, match="x: found no column x, expected all of x, yes, count"):
        fitted.log_prob(table.drop(columns="x"))


def test_a_level_that_is_new_is_unlikely(table, fitted):
    rows = table.assign(cut="Unheard of")
    found = fitted.log_prob(rows)
    assert not found.isnan().any() and (found < fitted.log_prob(table) - 2).all()


def test_missing_values_of_a_frame_are_filled_in(table, fitted):
    rows = table.copy()
    rows.loc[[3, 5], "cut"] = None
    rows.loc[4, "x"] = np.nan
    filled = fitted.impute(rows)
    assert filled.dtypes.equals(table.dtypes) and not filled.isna().any().any()
    pd.testing.assert_frame_equal(filled.where(rows.notna()), rows)
    assert len(fitted.impute(rows, samples=3)) == 3


def test_columns_of_the_frame_may_be_the_context(table):
    flow = ebflow.fit(table[["x", "cut", "count"]], context=["cut", "count"], **QUICK)
    assert flow.event_shape == (1,) and flow.columns.names == ["x"]
    given = flow({"cut": "Good", "count": 3})
    drawn = given.sample(4)
    assert [*drawn] == ["x", "cut", "count"]
    assert set(drawn["cut"]) == {"Good"} and drawn["count"].tolist() == [3] * 4
    assert drawn["count"].dtype == table["count"].dtype
    both = flow({"cut": ["Good", "Ideal"], "count": 3}).sample_and_log_prob(2)[0]
    assert both["cut"].tolist() == ["Good", "Ideal"] * 2
    rows = table.assign(cut="Good", count=3)
    torch.testing.assert_close(flow.log_prob(rows), given.log_prob(rows[["x"]]))
    with pytest.raises(ValueError, match="context: found None, expected cut, count"):
        flow.sample(3)
    with pytest.raises(ValueError, match="context: found no column 'k' in x"):
        ebflow.fit(table, context=["k"], **QUICK)


def test_an_array_of_text_is_a_context(table):
    flow = ebflow.fit(table[["x"]].to_numpy(), table["cut"].to_numpy(), **QUICK)
    assert flow.context == 2 and flow("Good").sample(3).shape == (3, 1)


def test_constant_contexts_are_left_out_or_refused(table):
    rows, given = table[["x"]], table[["count", "seven"]]
    flow = ebflow.fit(rows, given, **QUICK)
    assert flow.context == 1
    with pytest.raises(ValueError, match="context: found no column to model"):
        ebflow.fit(rows, table[["seven"]], **QUICK)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_fits_without_gradients_outside(frame, mode):
    with mode():
        for rows in (frame, torch.ones(N, 2).cumsum(0).sin()):
            assert len(ebflow.fit(rows, **QUICK).history) > 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_rows_are_refused(table, count):
    with pytest.raises(ValueError, match=f"x: found {count} rows, expected 5 or more"):
        ebflow.fit(table[:count], **QUICK)


def test_a_number_that_the_flows_type_lacks_is_named(frame, flow):
    rows = frame.astype(float)
    rows.loc[7, "x"] = 1e39
    for given in (rows, rows.to_numpy()):
        with pytest.raises(ValueError, match=r"x, column 'x', row 7: found 1e\+39, .*float32"):
            flow.log_prob(given)
        assert copy.deepcopy(flow).double().log_prob(given).isfinite().all()
    tensor = torch.zeros(9, *flow.event_shape).double().index_fill(0, torch.tensor(7), 1e39)
    for score in (flow.log_prob, flow.score, flow.to_latent):
        with pytest.raises(ValueError, match=r"row 7: found 1e\+39, .*float32"):
            score(tensor)
    with pytest.raises(ValueError, match=r"x, column 'x', row 7: found 1e\+39, .*float32"):
        ebflow.fit(rows, **QUICK)


def test_names_that_are_numbers_are_found_again():
    plain = pd.DataFrame(np.random.default_rng(1).normal(size=(N, 2)))
    flow = ebflow.fit(plain, **QUICK)
    assert flow.log_prob(plain[[1, 0]]).equal(flow.log_prob(plain))
    drawn = flow.sample(3)
    assert drawn.columns.tolist() == [0, 1] and flow.log_prob(drawn).shape == (3,)
    filled = flow.impute(plain.where(plain > -1))
    assert filled.columns.equals(plain.columns) and not filled.isna().any().any()
    given = ebflow.fit(plain, context=[0], **QUICK)
    assert given.context == 1 and given.columns.features == ["1"]


def test_every_method_takes_what_fit_takes(frame, flow):
    rows = torch.tensor(frame.astype(float).to_numpy())
    for name in ("log_prob", "energy", "score", "to_latent"):
        expected = getattr(flow, name)(rows)
        for given in (frame[["count", "yes", "x"]], rows.numpy(), rows.tolist()):
            torch.testing.assert_close(getattr(flow, name)(given), expected)
    latent = np.zeros((2, 3))
    assert flow.from_latent(latent).equal(flow.from_latent(torch.tensor(latent).float()))


def test_integers_far_from_zero_are_scored_as_those_near_zero(frame):
    """Float32 cannot tell them apart: the origin is subtracted in float64. Noise differs."""
    near = frame.assign(far=np.arange(N) ** 2)
    far = near.assign(far=near["far"] + 10**15)
    expected, found = (ebflow.fit(table, **QUICK).log_prob(table) for table in (near, far))
    assert found.isfinite().all()
    torch.testing.assert_close(found.mean(), expected.mean(), atol=0.2, rtol=0)


@pytest.mark.parametrize(("change", "kind", "line"), [
    ({"z": [[1]] * N}, TypeError, "x, column 'z': found list, expected numbers, text"),
    ({"z": np.array([1.5, None, 2] * (N // 3))}, ValueError, "column 'z', row 1: found nan"),
    ({"x": [np.nan, 1.0, 2.0] * (N // 3)}, ValueError,
        "x, .*, row 0: found nan, .*missing='drop'"),
    ({"x": [np.inf] * N}, ValueError, "x, column 'x', row 0: found inf, expected a finite"),
    ({"z": [2**60 + k for k in range(N)]}, ValueError, "column 'z', row 0: found 11529.*2.53"),
    ({"z": [1, "a"] * (N // 2)}, TypeError, "column 'z': found int and str, expected .* mixed"),
    ({"z": [datetime.time(8)] * N}, TypeError, "column 'z': found time, expected numbers"),
    ({"z": pd.period_range("2020", periods=N, freq="M")}, TypeError, "'z': found Period, ex"),
    ({"x": 1e-200 * A[:, 0]}, ValueError, "column 'x': found .* whose square is 0 in float64"),
])  # fmt: skip
def test_what_is_no_column_is_refused_by_its_name(frame, change, kind, line):
    with pytest.raises(kind, match=line):
        ebflow.fit(frame.assign(**change), missing=None, **QUICK)


def test_a_table_without_a_column_that_varies_is_refused():
    with pytest.raises(ValueError, match="x: found no column to model.*a: dropped: always 1"):
        ebflow.fit(pd.DataFrame({"a": [1.0] * N, "b": np.nan}), **QUICK)
    frame = pd.DataFrame({"a": np.arange(N) ** 2, "b": np.arange(N) ** 3})
    with pytest.raises(ValueError, match="x: found no column to model, .* not in context"):
        ebflow.fit(frame, context=["a", "b"], **QUICK)


@pytest.mark.parametrize(("options", "kind", "line"), [
    ({"seed": None}, TypeError, "seed: found None, expected a whole number"),
    ({"dtype": "float64"}, TypeError, "expected a torch.dtype"),
    ({"batch_size": -3}, ValueError, "batch_size: found -3, expected a whole number above 0"),
    ({"steps": 10.5}, ValueError, "steps: found 10.5, expected a whole number above 0"),
    ({"max_seconds": 0}, ValueError, "max_seconds: found 0, expected a number above 0"),
    ({"max_seconds": "5"}, ValueError, "max_seconds: found '5', expected a number above 0"),
    ({"shrinkage": 2.0}, ValueError, "shrinkage: found 2.0, expected at least 0 and below 1"),
    ({"shrinkage": -1.0}, ValueError, "shrinkage: found -1.0, expected"),
    ({"device": "lpu"}, ValueError, "device: found lpu, expected one of this machine"),
    ({"objective": "mle"}, ValueError, "objective: found 'mle', expected one of ml, "),
])  # fmt: skip
def test_options_are_checked_before_anything_is_fitted(options, kind, line, monkeypatch):
    monkeypatch.setattr(ebflow.fitting, "gather", None)
    with pytest.raises(kind, match=line):
        ebflow.fit(np.zeros((N, 2)), **{**QUICK, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_one_line(frame):
    with pytest.raises(ValueError, match="device: found cuda, expected one of .*, as cpu: ") as e:
        ebflow.fit(frame, device="cuda", **QUICK)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
    "pair", [(10, -10), (1.0, 1.0), 0, (0.0, 1.0, 2.0), ("0", "1"), (np.nan, None), {"low": 0}]
)
def test_bounds_that_are_no_pair_or_the_wrong_way_round_are_one_line(frame, pair):
    turned = pair in ((10, -10), (1.0, 1.0))
    words = " the lower one first" if turned else r", expected \(lower, upper\)"
    with pytest.raises(ValueError, match=f"bounds, column x: found .*{words}"):
        ebflow.fit(frame, bounds={"x": pair}, **QUICK)
    with pytest.raises(TypeError, match=r"bounds: found .*, expected \{column: \(lower, upper"):
        ebflow.fit(frame, bounds=[pair], **QUICK)


ARRAYS = {
    "constant": np.c_[A, np.ones((N, 1)), B],
    "copy": np.c_[A, B, A],
    "linear": np.c_[A, B, A + 2 * B],
    "integers": WHOLE,
    "bytes": WHOLE.astype("uint8"),
    "booleans": WHOLE > 4,
    "single": np.c_[A, B].astype("float32"),
    "text": np.array([[k, "uv"[k % 2]] for k in WHOLE[:, 0].tolist()], object),
    "days": np.datetime64("2020-01-01") + WHOLE,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_goes_the_way_of_a_frame(kind):
    x = ARRAYS[kind]
    frame = pd.DataFrame({f"c{k}": column for k, column in enumerate(x.T)})
    flow, other = (ebflow.fit(rows, **QUICK) for rows in (x, frame))
    assert [c.describe() for c in flow.columns] == [
        c.describe().replace("c0", "[0]").replace("c1", "[1]") for c in other.columns
    ]
    assert flow.columns.names == [str(k) for k in range(x.shape[1])]
    samples, of_frame = (
        each.sample((2, 9), generator=torch.Generator().manual_seed(0)) for each in (flow, other)
    )
    assert samples.dtype == x.dtype and samples.shape == (2, 9, x.shape[1])
    assert (samples.reshape(18, -1) == of_frame.to_numpy()).all()
    torch.testing.assert_close(flow.log_prob(x), other.log_prob(frame))


def test_an_array_is_imputed_as_an_array_and_differs_where_a_frame_does():
    x = ARRAYS["linear"]
    flow = ebflow.fit(x, **QUICK)
    rows = x.copy()
    rows[3, 0] = rows[4, 2] = np.nan
    np.testing.assert_allclose(flow.impute(rows), x, atol=1e-6)
    rows = np.where(np.arange(N)[:, None] == 5, x + [0, 0, 1], x)
    assert (flow.log_prob(rows) == -np.inf).nonzero().tolist() == [[5]]


@pytest.mark.parametrize(("x", "line"), [
    ("x.csv", "found str, expected a frame"),
    (sparse.eye(9).tocsr(), "found csr_.*toarray"),
    (3.0, "found float"),
])  # fmt: skip
def test_what_is_no_rows_is_named(x, line):
    with pytest.raises(TypeError, match=f"x: {line}"):
        ebflow.fit(x, **QUICK)


def test_a_value_of_one_row_is_trained_on():
    """If that row was held out, its column was a constant."""
    x = np.c_[A, B, np.arange(N)[:, None] == 7]
    for seed in range(12):
        assert ebflow.fit(x, seed=seed, validation=20, **QUICK).log_prob(x).isfinite().all()


def test_bounds_go_by_the_number_of_a_column():
    x = np.c_[A, np.ones((N, 1)), np.abs(B)]
    samples = ebflow.fit(x, bounds={2: (0, None)}, **QUICK).sample(500)
    assert (samples[:, 2] >= 0).all() and (samples[:, 0] < 0).any()
    with pytest.raises(ValueError, match="bounds: found column 1, expected one of 0, 2"):
        ebflow.fit(x, bounds={1: (0, None)}, **QUICK)


def test_bounds_of_times_are_dates():
    day = pd.Timestamp("2020-03-01") + pd.to_timedelta(WHOLE[:, 0], "D")
    frame = pd.DataFrame({"day": day, "x": A[:, 0]})
    for low in ("2020-03-01", day.min(), day.min().date()):
        flow = ebflow.fit(frame, bounds={"day": (low, None)}, **QUICK)
        assert flow.sample(300)["day"].min() >= day.min()
    with pytest.raises(ValueError, match="bounds, column 'day', row 0: found 'May', expected a"):
        ebflow.fit(frame, bounds={"day": ("May", None)}, **QUICK)


@pytest.mark.parametrize(("change", "options", "line"), [
    (lambda t: t.set_axis(["x", "x", "y"], axis=1), {}, "x: found column x twice"),
    (lambda t: np.zeros(9), {}, r"x\[:, None"),
    (lambda t: t, {"architecture": "dense", "options": {"dept": 4}},
        "options: found 'dept', expected some of depth, "),
    (lambda t: t, {"sample_weight": [-1.0] * N},
        "found 60 weights for 60 rows, 60 of them negative or"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_told(frame, change, options, line):
    with pytest.raises(ValueError, match=line):
        ebflow.fit(change(frame), **options, **QUICK)


def test_small_integers_of_a_table_are_no_grey_levels():
    x = torch.randint(2, (200, 2), generator=torch.Generator().manual_seed(2)).byte()
    drawn = ebflow.fit(x, **QUICK).sample(200, generator=torch.Generator().manual_seed(0))
    assert drawn.abs().max() < 5 and drawn.equal(drawn.round())


@pytest.mark.parametrize("shape", [5, np.int64(5), (5,), [np.int32(5)], torch.Size([5])])
def test_the_shape_of_samples_is_whole_numbers(flow, shape):
    assert flow.sample(shape).shape == (5, 3)
    assert flow.sample_and_log_prob(shape)[1].shape == (5,)


@pytest.mark.parametrize("shape", [-1, 5.0, (2, -1), "5", None])
def test_other_shapes_of_samples_are_one_line(flow, shape):
    with pytest.raises(ValueError, match="shape: found .*, expected a whole number from 0"):
        flow.sample(shape)


def test_a_flow_without_a_training_has_nothing_to_draw(flow, tmp_path):
    ebflow.save(flow, tmp_path / "flow")
    for one in (ebflow.load(tmp_path / "flow"), ebflow.architectures.dense((3,))):
        assert one.history == []
        with pytest.raises(ValueError, match="history: it is empty"):
            one.history.plot()


def test_a_flow_saved_at_home_keeps_its_columns(table, fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ebflow.save(fitted, "~/flow")
    assert [path.name for path in tmp_path.iterdir()] == ["flow"]
    found = ebflow.load("~/flow")
    assert found.columns == fitted.columns
    assert found.log_prob(table).equal(fitted.log_prob(table))


def test_a_checkpoint_replaces_nothing_but_a_checkpoint(flow, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    for target in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="folder: "):
            ebflow.save(flow, target)
    assert (tmp_path / "thesis.txt").read_text() == "years"
    for _ in range(2):
        ebflow.save(flow, tmp_path / "flow")
    (tmp_path / "empty").mkdir()
    ebflow.save(flow, tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere: not found"):
        ebflow.load(tmp_path / "nowhere")


@pytest.fixture
def levels():
    return pd.DataFrame({"y": np.random.default_rng(0).normal(size=N), "c": ["u", "v"] * 30})


def test_levels_of_a_context_are_known(levels):
    """An unknown level was a context of zeros, with an ordinary score."""
    flow = ebflow.fit(levels, context=["c"], **QUICK)
    with pytest.raises(ValueError, match="context, row 1, column 'c': found an unknown level 'U'"):
        flow.log_prob(levels.assign(c=["u", "U", *levels["c"][2:]]))
    with pytest.raises(ValueError, match="expected one of u, v"):
        flow({"c": "w"})
    with pytest.raises(ValueError, match="context, column 'c', row 1: found nan, expected a"):
        flow.log_prob(levels.assign(c=["u", None, *levels["c"][2:]]))


def test_a_date_in_another_order_is_refused_with_the_order_of_the_training_rows():
    days = pd.date_range("2020-01-13", periods=N).strftime("%d.%m.%Y")
    table = pd.DataFrame({"y": np.random.default_rng(0).normal(size=N), "day": days})
    flow = ebflow.fit(table, **QUICK)
    expected = r"row 0: found '2020-01-31', expected a date or a time, as DD\.MM\.YYYY in"
    with pytest.raises(ValueError, match=expected):
        flow.log_prob(table.head(2).assign(day="2020-01-31"))


def test_a_column_without_values_is_imputed_whatever_its_type(levels):
    filled = ebflow.fit(levels, **QUICK).impute(levels.head(3).assign(c=np.nan))
    assert set(filled["c"]) <= {"u", "v"}


def test_bounds_of_categories_are_refused(levels):
    with pytest.raises(ValueError, match="bounds, column 'c': found a category"):
        ebflow.fit(levels, bounds={"c": (0, 1)}, **QUICK)


def test_a_total_follows_from_its_parts():
    """Parts that followed from a total left their range, or broke the formula."""
    rng = np.random.default_rng(0)
    hour, minute = rng.integers(0, 24, 500), rng.integers(0, 60, 500)
    table = pd.DataFrame({"time": 100 * hour + minute, "hour": hour, "minute": minute})
    flow = ebflow.fit(table, **QUICK)
    samples = flow.sample(500)
    assert flow.columns[0].describe() == "dropped: equals 100 hour + minute"
    assert (samples["time"] == 100 * samples["hour"] + samples["minute"]).all()
    assert samples["minute"].between(0, 59).all()
