"""The estimator keeps scikit-learn's conventions."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebflow.sklearn import FlowDensity

pytestmark = pytest.mark.usefixtures("single_precision")

X = np.random.default_rng(0).normal(size=(200, 3)) @ np.triu(np.ones((3, 3)))
QUICK = {"steps": 3, "architecture": "dense", "options": {"depth": 1}}


@parametrize_with_checks([FlowDensity(**QUICK)])
def test_check_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_in_pipelines_searches_and_cross_validation():
    model = make_pipeline(StandardScaler(), FlowDensity(**QUICK))
    search = GridSearchCV(model, {"flowdensity__steps": [1, 10]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["flowdensity__steps"] in (1, 10) and np.isfinite(search.score(X))


@pytest.fixture(scope="module")
def model():
    return FlowDensity(**QUICK, random_state=4).fit(X)


def test_samples_and_seeds(model):
    one, same, other = (model.sample(np.int64(5), random_state=seed) for seed in (1, 1, 2))
    assert one.shape == (5, 3) and (one != other).all()
    np.testing.assert_array_equal(one, same)
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())


def test_rows_in_any_order_of_memory(model):
    np.testing.assert_array_equal(model.score_samples(X[::-1]), model.score_samples(X)[::-1])


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {"x": X[:, 0], "count": rng.integers(0, 9, 200), "cut": rng.choice(["u", "v"], 200)}
    )


def test_a_frame_with_text(frame):
    model = FlowDensity(**QUICK).fit(frame)
    assert model.feature_names_in_.tolist() == ["x", "count", "cut"] and model.n_features_in_ == 3
    drawn = model.sample(7, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes) and set(drawn["cut"]) <= {"u", "v"}
    order = np.random.default_rng(0).permutation(200)
    expected = model.score_samples(frame)
    np.testing.assert_allclose(model.score_samples(frame.iloc[order]), expected[order], rtol=1e-9)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(frame), expected)
    assert np.isfinite(cross_val_score(clone(model), frame, cv=2)).all()


def test_columns_may_be_the_context(frame):
    model = FlowDensity(**QUICK, context=["cut"]).fit(frame)
    assert model.flow_.columns.names == ["x", "count"]
    assert np.isfinite(model.score_samples(frame)).all()
    assert [*model.sample(3, context={"cut": "u"})] == ["x", "count", "cut"]


def test_missing_values_and_bounds(frame):
    rows = frame.assign(x=frame["x"].where(frame.index % 9 != 0))
    with pytest.raises(ValueError, match="column 'x', row 0: found nan"):
        FlowDensity(**QUICK, missing=None).fit(rows)
    bounds = {"x": (-50.0, 50.0)}
    model = FlowDensity(**QUICK, bounds=bounds).fit(rows)
    array = rows[["x", "count"]].to_numpy()
    for one, data in ((model, rows), (FlowDensity(**QUICK).fit(array), array)):
        assert np.isfinite(one.score_samples(data)).all()


def test_rows_without_weight_have_no_part_in_the_fit():
    weight = np.r_[np.ones(150), np.zeros(50)]
    other = np.r_[X[:150], 99 + X[150:]]
    one, two = (FlowDensity(**QUICK).fit(rows, sample_weight=weight) for rows in (X, other))
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))
