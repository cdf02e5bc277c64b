"""The estimator keeps scikit-learn's conventions."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebflow.sklearn import FlowDensity

pytestmark = pytest.mark.usefixtures("single_precision")

X = np.random.default_rng(0).normal(size=(200, 3)) @ np.triu(np.ones((3, 3)))


@parametrize_with_checks([FlowDensity(steps=2, options={"depth": 1})])
def test_check_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_in_pipelines_searches_and_cross_validation():
    model = FlowDensity(steps=5, options={"depth": 1})
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X, cv=2)
    assert np.isfinite(scores).all()
    search = GridSearchCV(model, {"steps": [1, 10]}, cv=2).fit(X)
    assert search.best_params_["steps"] in (1, 10) and np.isfinite(search.score(X))


def test_samples_and_seeds():
    model = FlowDensity(steps=10, random_state=4).fit(X)
    assert model.sample(5, random_state=1).shape == (5, 3)
    np.testing.assert_array_equal(model.sample(5, random_state=1), model.sample(5, random_state=1))
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())


def test_rows_in_any_order_of_memory():
    model = FlowDensity(steps=5).fit(X)
    np.testing.assert_array_equal(model.score_samples(X[::-1]), model.score_samples(X)[::-1])
