"""Frames, arrays and lists in the place of tensors: what is read, and what is refused."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import ebflow

QUICK = {"steps": 3, "progress": False}
N = 60


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


def test_booleans_and_nullable_integers_are_numbers_and_drawn_as_such(frame, flow):
    assert flow.log_prob(frame).isfinite().all()
    drawn = flow.sample(50, generator=torch.Generator().manual_seed(0))[:, 1:]
    assert drawn.equal(drawn.round())


def test_a_number_that_the_flows_type_lacks_is_named(frame, flow):
    rows = frame.astype(float)
    rows.loc[7, "x"] = 1e39
    for given in (rows, rows.to_numpy()):
        with pytest.raises(ValueError, match=r"x, row 7, column x: found 1e\+39, .*float32"):
            flow.log_prob(given)
        assert copy.deepcopy(flow).double().log_prob(given).isfinite().all()
    with pytest.raises(ValueError, match=r"x, row 7, column x: found 1e\+39, .*float32"):
        ebflow.fit(rows, **QUICK)


def test_names_that_are_numbers_are_found_again(frame):
    plain = pd.DataFrame(np.random.default_rng(1).normal(size=(N, 2)))
    flow = ebflow.fit(plain, **QUICK)
    assert flow.log_prob(plain[[1, 0]]).equal(flow.log_prob(plain))


def test_every_method_takes_what_fit_takes(frame, flow):
    rows = torch.tensor(frame.astype(float).to_numpy())
    for name in ("log_prob", "energy", "score", "to_latent"):
        expected = getattr(flow, name)(rows)
        for given in (frame[["count", "yes", "x"]], rows.numpy(), rows.tolist()):
            torch.testing.assert_close(getattr(flow, name)(given), expected)
    latent = np.zeros((2, 3))
    assert flow.from_latent(latent).equal(flow.from_latent(torch.tensor(latent).float()))


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        ({"z": ["u"] * N}, TypeError, "x, column z: found .*, expected numbers: leave it out"),
        ({"z": pd.date_range("2020", periods=N)}, TypeError, "x, column z: found datetime64"),
        ({"z": pd.Categorical(["u", "v"] * (N // 2))}, TypeError, "column z: found category"),
        ({"z": [1.5, "?"] * (N // 2)}, TypeError, r"x, row 1, column z: found '\?', .*to_numeric"),
        ({"z": np.array([1.5, None] * (N // 2))}, ValueError, "x, row 1, column z: found nan"),
        ({"z": ["1", "2"] * (N // 2)}, TypeError, "x, row 0, column z: found '1', .*to_numeric"),
        ({"x": [np.nan] * N}, ValueError, "x, row 0, column x: found nan, .*missing='drop'"),
        ({"x": [np.inf] * N}, ValueError, "x, row 0, column x: found inf, expected a finite"),
        ({"x": [1.0] * N}, ValueError, "found column x constant on the training split"),
    ],
)
def test_what_is_no_number_is_refused_by_its_name(frame, change, kind, line):
    with pytest.raises(kind, match=line):
        ebflow.fit(frame.assign(**change), **QUICK)


@pytest.mark.parametrize("missing", ["drop", "impute"])
def test_a_column_without_a_value_is_named(frame, missing):
    with pytest.raises(ValueError, match="x, column x: found no value, expected some"):
        ebflow.fit(frame.assign(x=np.nan), missing=missing, **QUICK)


def test_two_columns_of_one_name_are_refused(frame):
    with pytest.raises(ValueError, match="x: found column x twice"):
        ebflow.fit(frame.set_axis(["x", "x", "y"], axis=1), **QUICK)


@pytest.mark.parametrize(
    ("options", "kind", "line"),
    [
        ({"generator": np.random.default_rng(0)}, TypeError, "expected a torch.Generator"),
        ({"seed": None}, TypeError, "seed: found None, expected a whole number"),
        ({"dtype": "float64"}, TypeError, "expected a torch.dtype"),
        ({"batch_size": -3}, ValueError, "batch_size: found -3, expected a whole number above 0"),
        ({"steps": 10.5}, ValueError, "steps: found 10.5, expected a whole number above 0"),
        ({"max_seconds": 0}, ValueError, "max_seconds: found 0, expected above 0"),
        ({"shrinkage": 2.0}, ValueError, "shrinkage: found 2.0, expected at least 0 and below 1"),
        ({"shrinkage": -1.0}, ValueError, "shrinkage: found -1.0, expected"),
        ({"device": "lpu"}, ValueError, "device: found lpu, expected one of this machine"),
        ({"objective": "mle"}, ValueError, "objective: found 'mle', expected one of ml, "),
    ],
)
def test_options_are_checked_before_anything_is_fitted(options, kind, line, monkeypatch):
    monkeypatch.setattr(ebflow.fitting, "gathered", None)
    with pytest.raises(kind, match=line):
        ebflow.fit(np.zeros((N, 2)), **{**QUICK, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_one_line(frame):
    with pytest.raises(ValueError, match="device: found cuda, expected one of .*, as cpu: ") as e:
        ebflow.fit(frame, device="cuda", **QUICK)
    assert len(str(e.value).splitlines()) == 1


def test_options_that_an_architecture_lacks_are_told_the_others(frame):
    with pytest.raises(ValueError, match="options: found 'dept', expected some of depth, linear"):
        ebflow.fit(frame, architecture="dense", options={"dept": 4}, **QUICK)


@pytest.mark.parametrize("pair", [(10, -10), (1.0, 1.0)])
def test_bounds_the_wrong_way_round_are_named(frame, pair):
    with pytest.raises(
        ValueError, match="bounds, column x: found .* expected the lower one first"
    ):
        ebflow.fit(frame, bounds={"x": pair}, **QUICK)


@pytest.mark.parametrize("pair", [0, (0.0, 1.0, 2.0), ("0", "1"), (np.nan, None), {"low": 0}])
def test_bounds_that_are_no_pair_are_one_line(frame, pair):
    with pytest.raises(ValueError, match=r"bounds, column x: found .*, expected \(lower, upper\)"):
        ebflow.fit(frame, bounds={"x": pair}, **QUICK)
    with pytest.raises(TypeError, match=r"bounds: found .*, expected \{column: \(lower, upper"):
        ebflow.fit(frame, bounds=[pair], **QUICK)


def test_single_columns_are_told_what_to_do():
    with pytest.raises(ValueError, match=r"x\[:, None"):
        ebflow.fit(np.zeros(9), **QUICK)


def test_small_integers_of_a_table_are_no_grey_levels():
    x = np.random.default_rng(2).integers(0, 2, (200, 2)).astype("uint8")
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


def test_home_is_home(flow, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ebflow.save(flow, "~/flow")
    assert [path.name for path in tmp_path.iterdir()] == ["flow"]
    assert ebflow.load("~/flow").columns == flow.columns


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
