"""The estimator keeps scikit-learn's conventions."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebflow.fitting import fit
from ebflow.sklearn import FlowDensity

pytestmark = pytest.mark.usefixtures("single_precision")

X = np.random.default_rng(0).normal(size=(200, 3)) @ np.triu(np.ones((3, 3)))


@parametrize_with_checks([FlowDensity(steps=2, options={"depth": 1})])
def test_check_estimator(estimator, check, monkeypatch):
    """Without a look at the columns' tails, which takes longer than the rest."""
    monkeypatch.setattr("ebflow.sklearn.fit", partial(fit, marginals=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_in_pipelines_searches_and_cross_validation():
    model = make_pipeline(StandardScaler(), FlowDensity(options={"depth": 1}))
    search = GridSearchCV(model, {"flowdensity__steps": [1, 10]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["flowdensity__steps"] in (1, 10) and np.isfinite(search.score(X))


@pytest.fixture(scope="module")
def model():
    return FlowDensity(steps=10, options={"depth": 1}, random_state=4).fit(X)


def test_samples_and_seeds(model):
    one, same, other = (model.sample(np.int64(5), random_state=seed) for seed in (1, 1, 2))
    assert one.shape == (5, 3) and (one != other).all()
    np.testing.assert_array_equal(one, same)
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())


def test_rows_in_any_order_of_memory(model):
    np.testing.assert_array_equal(model.score_samples(X[::-1]), model.score_samples(X)[::-1])
