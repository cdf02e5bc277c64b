"""The detector finds anomalies, controls its false alarms and keeps scikit-learn's conventions."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebflow.sklearn import FlowDetector

pytestmark = pytest.mark.usefixtures("single_precision")

QUICK = {"max_seconds": 0}
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"


@parametrize_with_checks(
    [FlowDetector(**QUICK)],
    expected_failed_checks=lambda _: {WEIGHTS: "rows are held out at random, as in forests"},
)
def test_check_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def ring(count, rng):
    """Rows near a circle in three columns, of which the last one is noise."""
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle), rng.normal(size=count)], 1) + rng.normal(
        scale=0.05, size=(count, 3)
    )


@pytest.fixture(scope="module")
def detector():
    return FlowDetector(max_seconds=3).fit(ring(1_500, np.random.default_rng(0)))


def test_finds_rows_inside_a_ring(detector):
    rng = np.random.default_rng(1)
    normal, inside = ring(500, rng), rng.normal(scale=0.3, size=(500, 3))
    scores = -detector.score_samples(np.r_[normal, inside])
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.98
    found = detector.predict(inside)
    assert (found == -1).mean() > 0.9 and set(found) <= {1, -1}


@pytest.mark.parametrize("count", [200, 1_500])
def test_p_values_are_uniform_under_normality(count):
    rng = np.random.default_rng(2)
    fitted = FlowDetector(**QUICK, alpha=0.1).fit(ring(count, rng))
    rows = ring(4_000, rng)
    p = fitted.p_values(rows)
    held = len(fitted.held_out_scores_)
    error = 4.5 * np.sqrt(0.1 * 0.9 * (1 / held + 1 / len(rows)))
    assert abs((p <= 0.1).mean() - 0.1) < error
    np.testing.assert_array_equal(fitted.predict(rows) == -1, p <= 0.1)
    np.testing.assert_array_equal(fitted.decision_function(rows) < 0, p <= 0.1)


def test_another_value_of_a_constant_is_most_anomalous():
    rng = np.random.default_rng(3)
    rows = np.c_[ring(300, rng), np.full(300, 7.0)]
    fitted = FlowDetector(**QUICK).fit(rows)
    far = np.r_[np.full((1, 3), 1e4), [[1.0, 0.0, 0.0]]]
    scores = fitted.score_samples(np.c_[far, [7.0, 7.001]])
    assert scores[1] < scores[0] < fitted.score_samples(rows).min()


def test_wide_small_and_binary_tables():
    rng = np.random.default_rng(4)
    for rows in (rng.normal(size=(30, 80)), rng.integers(0, 2, (60, 5)), np.ones((9, 2))):
        scores = FlowDetector(**QUICK, alpha=0.2).fit(rows).score_samples(rows.astype(float))
        assert np.isfinite(scores).all()


def frame(count, rng):
    shop = rng.choice(["north", "south"], count)
    price = rng.normal(size=count) + 5 * (shop == "north")
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, count), "D")
    return pd.DataFrame({
        "id": np.arange(count), "shop": shop, "price": price, "sold": times, "year": 2026,
        "size": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
    })  # fmt: skip


def test_a_frame_with_text_times_gaps_and_an_identifier():
    rng = np.random.default_rng(5)
    train, test = frame(600, rng), frame(400, rng)
    fitted = FlowDetector(**QUICK).fit(train)
    odd = test.assign(shop=np.where(test["shop"] == "north", "south", "north"))
    labels = np.repeat([0, 1], 400)
    assert roc_auc_score(labels, -fitted.score_samples(pd.concat([test, odd]))) > 0.95
    expected = fitted.score_samples(test)
    np.testing.assert_array_equal(fitted.score_samples(test.assign(id=-5)), expected)
    assert (fitted.score_samples(test.assign(year=2025)) < expected.min()).all()
    assert (fitted.score_samples(test.assign(shop="west")) < expected.min()).all()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(test), expected)


def test_few_references_find_a_cluster_among_the_training_rows():
    rng = np.random.default_rng(6)
    rows = np.r_[rng.normal(size=(900, 3)), rng.normal(scale=0.2, size=(60, 3)) + 3]
    labels = np.repeat([0, 1], [900, 60])
    every, few = (
        roc_auc_score(labels, -FlowDetector(**QUICK, references=n).fit(rows).score_samples(rows))
        for n in (None, 64)
    )
    assert few > every + 0.3


def test_rows_without_weight_have_no_part_in_the_fit():
    rows = ring(300, np.random.default_rng(7))
    weight = np.r_[np.ones(250), np.zeros(50)]
    other = np.r_[rows[:250], 99 + rows[250:]]
    one, two = (FlowDetector(**QUICK).fit(x, sample_weight=weight) for x in (rows, other))
    np.testing.assert_array_equal(one.score_samples(rows), two.score_samples(rows))


def test_alpha_out_of_range():
    with pytest.raises(ValueError, match="alpha: found 1"):
        FlowDetector(alpha=1).fit(np.eye(9))
