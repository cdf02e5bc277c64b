"""The assertions that pyod makes of each of its detectors, of ours."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

pytest.importorskip("pyod")

from pyod.utils.data import generate_data

from ebflow.pyod import FlowDetector

pytestmark = pytest.mark.usefixtures("single_precision")


@pytest.fixture(scope="module")
def case():
    train, test, labels, test_labels = generate_data(
        n_train=200, n_test=100, n_features=4, contamination=0.1, random_state=42
    )
    return FlowDetector(contamination=0.1).fit(train), train, test, test_labels


def test_scores_labels_and_thresholds(case):
    model, train, test, labels = case
    assert model.decision_scores_.shape == model.labels_.shape == (len(train),)
    assert set(model.labels_) == {0, 1} and model.labels_.mean() == pytest.approx(0.1, abs=0.02)
    assert model._mu == pytest.approx(model.decision_scores_.mean()) and model._sigma > 0
    scores = model.decision_function(test)
    assert scores.shape == (len(test),) and roc_auc_score(labels, scores) >= 0.8
    np.testing.assert_array_equal(model.predict(test), scores > model.threshold_)


@pytest.mark.parametrize("method", ["linear", "unify"])
def test_probabilities_and_confidence(case, method):
    model, _, test, _ = case
    shares, confidence = model.predict_proba(test, method=method, return_confidence=True)
    assert shares.shape == (len(test), 2) and shares.min() >= 0 and shares.max() <= 1
    assert confidence.shape == (len(test),) and 0 <= confidence.min() <= confidence.max() <= 1
    with pytest.raises(ValueError):
        model.predict_proba(test, method="something")


def test_clones_and_bad_contamination(case):
    model = clone(case[0])
    assert model.get_params() == case[0].get_params() and not hasattr(model, "labels_")
    with pytest.raises(ValueError, match="contamination"):
        FlowDetector(contamination=0.9)
