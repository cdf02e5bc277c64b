"""Arguments at the boundary of the library: contexts, types and empty data."""

import numpy as np
import pandas as pd
import pytest
import torch

import ebflow
from ebflow import checkpoint, files

QUICK = dict(steps=2, architecture="dense", progress=False)


@pytest.fixture(scope="module")
def given():
    """Returns a flow of three columns given a category, and its rows."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(80, 3)), columns=list("xyz"))
    frame["c"] = random.choice(["p", "q"], 80)
    return ebflow.fit(frame, context=["c"], **QUICK), frame


def test_a_frame_of_contexts_beside_a_tensor_keeps_its_columns(tmp_path):
    x = torch.randn(80, 2).double()
    context = pd.DataFrame({"g": ["u", "v"] * 40, "q": np.arange(80.0)})
    flow = ebflow.fit(x, context=context, **QUICK)
    expected = flow.log_prob(x[:2], context=context[:2])
    ebflow.save(flow, tmp_path / "flow")
    loaded = ebflow.load(tmp_path / "flow")
    assert torch.equal(loaded.log_prob(x[:2], context=context[:2]), expected)
    assert loaded.sample(3, context={"g": "u", "q": 0.0}).shape == (3, 2)


def test_one_context_holds_for_all_rows(given):
    flow, frame = given
    rows = frame[["x", "y", "z"]][:4].copy()
    rows.iloc[0, 0] = np.nan
    context = flow.as_context({"c": "p"})
    for one in ({"c": "p"}, context):
        assert flow.log_prob(rows, context=one).shape == (4,)
        assert flow.impute(rows, context=one)["x"].notna().all()
        assert flow.explain(rows, context=one).columns[:3] == ("x", "y", "z")


def test_likelihoods_of_impossible_rows_are_zero():
    x, y = np.random.default_rng(0).normal(size=(2, 80))
    flow = ebflow.fit(pd.DataFrame({"x": x, "y": y, "k": 1.0}), **QUICK)
    rows = pd.DataFrame({"x": [0.1, 0.2], "y": [0.3, 0.4], "k": [2.0, 1.0]})
    found = ebflow.log_probs(flow, rows)
    assert found.isinf().tolist() == [True, False]
    torch.testing.assert_close(found, flow.log_prob(rows).double())


def test_scalars_of_numpy_are_saved(tmp_path):
    x = torch.randn(60, 2)
    flow = ebflow.fit(x, batch_size=np.int64(32), lr=np.float32(1e-3), **QUICK)
    ebflow.save(flow, tmp_path / "flow")
    assert ebflow.load(tmp_path / "flow").report.recipe["batch_size"] == 32


def test_a_crash_between_two_renames_leaves_the_previous_checkpoint(tmp_path):
    flow = ebflow.fit(torch.randn(60, 2), **QUICK)
    ebflow.save(flow, tmp_path / "flow")
    (tmp_path / "flow").rename(files.previous(tmp_path / "flow"))
    assert ebflow.load(tmp_path / "flow").event_shape == (2,)
    assert checkpoint.check(tmp_path / "flow")["sha256"]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_images_of_more_bits(dtype):
    images = np.random.default_rng(0).integers(0, 300, (60, 1, 4, 4)).astype(dtype)
    assert ebflow.fit(images, **QUICK).event_shape == (1, 4, 4)


def test_images_without_a_context_are_dropped():
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 4, 4)).astype("uint8")
    context = np.arange(60.0)[:, None]
    context[3] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 60 rows have missing values and were dropped"):
        ebflow.fit(images, context=context, missing="drop", **QUICK)


def test_a_refined_flow_of_no_rows():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    refined = ebflow.refine(ebflow.fit(x, **QUICK), x)
    assert refined.sample(0).shape == (0, 2) and refined.log_prob(x[:0]).shape == (0,)


def test_a_dtype_is_one_of_real_numbers():
    with pytest.raises(TypeError, match="dtype: found torch.int64, expected a torch.dtype of re"):
        ebflow.fit(torch.randn(60, 2), dtype=torch.int64)


def test_a_latent_has_the_size_of_the_flow(given):
    with pytest.raises(ValueError, match=r"u: found shape \(2, 4\), expected \(\*, 3\)"):
        given[0].from_latent(np.zeros((2, 4)))
