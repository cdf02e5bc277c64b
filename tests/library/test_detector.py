"""The detector finds anomalies, controls its false alarms and keeps scikit-learn's conventions."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebflow import detector as detector_module
from ebflow.encoder import Encoder
from ebflow.sklearn import FlowDetector

pytestmark = pytest.mark.usefixtures("single_precision")

NORMAL = np.random.default_rng(13).normal(size=(80, 2))
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"


@parametrize_with_checks(
    [FlowDetector(references=20)],
    expected_failed_checks=lambda _: {WEIGHTS: "rows are held out at random, as in forests"},
)
def test_check_estimator(estimator, check, monkeypatch):
    monkeypatch.setattr(detector_module, "FOLDS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def ring(count, rng):
    """Rows near a circle in three columns, of which the last one is noise."""
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle), rng.normal(size=count)], 1) + rng.normal(
        scale=0.05, size=(count, 3)
    )


def test_finds_rows_inside_a_ring():
    rng = np.random.default_rng(1)
    detector = FlowDetector().fit(ring(1_000, rng))
    normal, inside = ring(500, rng), rng.normal(scale=0.3, size=(500, 3))
    scores = -detector.score_samples(np.r_[normal, inside])
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.98
    found = detector.predict(inside)
    assert (found == -1).mean() > 0.9 and set(found) <= {1, -1}


@pytest.mark.parametrize("count", [200, 1_500])
def test_p_values_are_uniform_under_normality(count):
    rng = np.random.default_rng(2)
    fitted = FlowDetector(alpha=0.1).fit(ring(count, rng))
    rows = ring(2_000, rng)
    p = fitted.p_values(rows)
    held = len(fitted.held_out_scores_)
    error = 4.5 * np.sqrt(0.1 * 0.9 * (1 / held + 1 / len(rows)))
    assert abs((p <= 0.1).mean() - 0.1) < error
    np.testing.assert_array_equal(fitted.predict(rows) == -1, p <= 0.1)
    np.testing.assert_array_equal(fitted.decision_function(rows) < 0, p <= 0.1)


def test_another_value_of_a_constant_is_most_anomalous():
    rng = np.random.default_rng(3)
    rows = np.c_[ring(300, rng), np.full(300, 7.0)]
    fitted = FlowDetector().fit(rows)
    far = np.r_[np.full((1, 3), 1e4), [[1.0, 0.0, 0.0]]]
    scores = fitted.score_samples(np.c_[far, [7.0, 7.001]])
    assert scores[1] < scores[0] < fitted.score_samples(rows).min()


def test_another_value_is_anomalous_where_every_value_is_repeated():
    rng = np.random.default_rng(3)
    rows = np.c_[ring(300, rng), rng.choice([36.0, 60.0], 300), rng.poisson(5, 300)]
    between, rare = [*ring(1, rng)[0], 48.0, 5.0], [*ring(1, rng)[0], 36.0, 40.0]
    fitted = FlowDetector().fit(rows)
    scores = fitted.score_samples(np.array([between, rare]))
    assert scores[0] <= -1e5 < scores[1]


def test_a_new_level_outweighs_new_numbers_also_if_every_level_is_repeated():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({
        "shop": random.choice(["north", "south"], 600),
        "months": random.choice([36, 60], 600),
        "price": random.normal(size=600),
    })  # fmt: skip
    new = pd.DataFrame({"shop": ["west", "north", None], "months": [36.0, 48, 36], "price": 0.0})
    scores = FlowDetector().fit(frame).score_samples(new)
    assert scores[0] < -9e5 and scores[2] < -9e5 and -5e5 < scores[1] < -1e4


def test_wide_small_and_binary_tables():
    rng = np.random.default_rng(4)
    for rows in (rng.normal(size=(30, 80)), rng.integers(0, 2, (60, 5)), np.ones((9, 2))):
        scores = FlowDetector(alpha=0.2).fit(rows).score_samples(rows.astype(float))
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
    fitted = FlowDetector().fit(train)
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
        roc_auc_score(labels, -FlowDetector(references=n).fit(rows).score_samples(rows))
        for n in (None, 64)
    )
    assert few > every + 0.3


def test_few_references_find_a_broad_cluster_of_a_quarter_of_the_rows():
    rng = np.random.default_rng(6)
    rows = np.r_[rng.normal(size=(600, 8)), rng.normal(size=(200, 8)) + 2.5]
    scores = FlowDetector(references=64).fit(rows).score_samples(rows)
    assert roc_auc_score(np.repeat([1, 0], [600, 200]), scores) > 0.75


def test_rows_without_weight_have_no_part_in_the_fit():
    rows = ring(300, np.random.default_rng(7))
    weight = np.r_[np.ones(250), np.zeros(50)]
    other = np.r_[rows[:250], 99 + rows[250:]]
    one, two = (FlowDetector().fit(x, sample_weight=weight) for x in (rows, other))
    np.testing.assert_array_equal(one.score_samples(rows), two.score_samples(rows))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_five_rows_are_enough():
    for count in (5, 6):
        fitted = FlowDetector().fit(NORMAL, sample_weight=np.arange(80) < count)
        assert np.isfinite(fitted.score_samples(NORMAL)).all()


def test_mappings_are_refused():
    with pytest.raises(TypeError, match="found a mapping"):
        FlowDetector().fit({"a": NORMAL[:, 0]})


def test_parameters_out_of_their_range():
    with pytest.raises(ValueError, match="alpha: found 1"):
        FlowDetector(alpha=1).fit(NORMAL)
    with pytest.raises(ValueError, match="references: found 1"):
        FlowDetector(references=1).fit(NORMAL)


def test_one_missing_value_per_column_does_not_hide_anomalies():
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(300, 30))
    rows[rng.choice(300, 30, replace=False), np.arange(30)] = np.nan
    fitted = FlowDetector().fit(rows)
    assert fitted.offset_ > -1_000
    assert (fitted.predict(50 * rng.normal(size=(20, 30))) == -1).all()


def test_the_first_missing_value_is_an_anomaly():
    rows = np.random.default_rng(9).normal(size=(200, 3))
    fitted = FlowDetector().fit(rows)
    scores = fitted.score_samples([[np.nan] * 3, [0, 0, np.nan], [1e200, 0, 0]])
    assert scores[0] < scores[1] < scores[2] < fitted.offset_
    assert fitted.p_values([[np.nan] * 3]) < 0.01


def test_scores_of_a_binary_table_are_ordered():
    rng = np.random.default_rng(10)
    rows = np.c_[rng.integers(0, 2, (600, 3)), np.full(600, 7.0)]
    fitted = FlowDetector().fit(rows)
    odd = np.array([[0, 1, 1, 8.0], [1e6, 0, 0, 7], [9, 0, 0, 7], [2, 0, 0, 7], [1, 0, 0, 7]])
    scores = fitted.score_samples(odd)
    assert (np.diff(scores) > 0).all() and scores[0] == pytest.approx(-1e6, rel=0.1)
    assert scores[-1] >= fitted.offset_ > scores[-2]


@pytest.mark.parametrize(("start", "span"), [(1e12, 90), (1.7e18, 1e8)])
def test_large_numbers_that_hardly_vary_are_compared(start, span):
    rng = np.random.default_rng(11)
    column = start + rng.integers(0, span, 200)
    rows = np.c_[column, np.full(200, 0.3)]
    fitted = FlowDetector().fit(rows)
    assert (fitted.predict(rows) == 1).mean() > 0.9
    np.testing.assert_array_equal(fitted.predict(rows + [9 * span, 0]), -1)
    np.testing.assert_array_equal(fitted.predict(rows + [0, 1e-12]), -1)
    same = np.c_[column, np.full(200, 0.1 + 0.2)]
    np.testing.assert_array_equal(fitted.score_samples(same), fitted.score_samples(rows))


def test_an_array_with_text_is_read_as_a_table():
    rng = np.random.default_rng(12)
    train = frame(300, rng)[["shop", "price"]]
    one, two = (FlowDetector().fit(x) for x in (train, train.to_numpy()))
    np.testing.assert_array_equal(one.score_samples(train), two.score_samples(train.to_numpy()))


BAD = {
    "x: found 3 rows, expected 5": (pd.DataFrame(NORMAL[:3], columns=["a", "b"]), {}),
    "only identifiers and rare text .id.": (pd.DataFrame({"id": np.arange(99)}), {}),
    "2 rows .* weight": (NORMAL, {"sample_weight": np.arange(80) < 2}),
    "column 'b', row 1: found inf": (pd.DataFrame({"a": [1, 2] * 9, "b": [1, np.inf] * 9}), {}),
    "column 'b', row 1: found 1e": (pd.DataFrame({"a": [1, 2] * 9, "b": [1, 1e200] * 9}), {}),
    "column '1', row 0: found -inf": (np.where(np.arange(2) == 1, -np.inf, NORMAL), {}),
    "column '1': found numbers within .*e-170": (NORMAL * [1, 1e-170], {}),
}


@pytest.mark.parametrize("message", BAD)
def test_rows_that_cannot_be_compared(message):
    rows, options = BAD[message]
    with pytest.raises(ValueError, match=message):
        FlowDetector().fit(rows, **options)


def test_levels_are_encoded_for_few_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(14)
    codes, shapes, elements = rng.integers(0, 12, (900, 4)), [], Encoder.elements
    monkeypatch.setattr(detector_module, "PART", 100)
    monkeypatch.setattr(
        Encoder, "elements", lambda *xs: shapes.append(elements(*xs).shape) or elements(*xs)
    )
    table = pd.DataFrame(codes, columns=[*"abcd"]).astype(str).add("x")
    table["price"] = np.where(rng.random(900) < 0.1, np.nan, rng.normal(size=900))
    table.loc[rng.random(900) < 0.1, "a"] = None
    fitted = FlowDetector(references=150).fit(table)
    rows = table[table["price"].notna()][:200]
    normal = fitted.score_samples(rows).mean()
    assert max(count for count, _ in shapes) <= 180
    assert 4 * 11 < max(width for _, width in shapes) <= 4 * 12 + 3  # levels of each part's rows
    assert fitted.score_samples(rows.assign(price=-60.0)).mean() < normal - 1


def with_rare_levels(count, random):
    """Normal numbers, a category of 300 levels of which many are rare, rarely missing values."""
    shares = 1 / np.arange(1, 301)
    table = pd.DataFrame(random.normal(size=(count, 2)), columns=["a", "b"])
    levels = random.choice(300, count, p=shares / shares.sum())
    table["town"] = pd.Series(levels).astype(str).add("x")
    table.loc[random.random(count) < 0.002, "a"] = np.nan
    return table


@pytest.mark.parametrize("rows", [1_500, 500])
def test_rare_levels_raise_no_false_alarms(rows):
    """About 5 % of new rows have a level or a missing value that no training row had.

    False alarms of this test: 1e-4 for each rate (20 seeds, normal approximation).
    """
    seeds, new = 20, 1_000
    found = {0.01: [], 0.05: []}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        fitted = FlowDetector(random_state=seed).fit(with_rare_levels(rows, random))
        p = fitted.p_values(with_rare_levels(new, random))
        for alpha, rates in found.items():
            rates.append(float((p <= alpha).mean()))
    held = len(fitted.held_out_scores_)
    for alpha, rates in found.items():
        error = (alpha * (1 - alpha) * (1 / held + 1 / new) / seeds) ** 0.5
        assert np.mean(rates) < alpha + 4 * error, (alpha, np.mean(rates))


@pytest.mark.parametrize("count", [2, 300])
def test_levels_of_no_meaning_hide_no_anomaly(count):
    """Sizes that belong to another kind, beside towns at random."""
    random = np.random.default_rng(0)
    kinds, towns = random.integers(3, size=1_500), random.integers(count, size=1_500)
    sizes = 5.0**kinds * np.exp(0.1 * random.normal(size=1_500))
    names = np.array(list("xyz"))[kinds]
    frame = pd.DataFrame({"kind": names, "town": [f"t{k}" for k in towns], "size": sizes})
    odd = pd.DataFrame(
        {"kind": list("xzy"), "town": ["t0", "t1", "t0"], "size": [25.0, 1.0, 25.0]}
    )
    assert (FlowDetector().fit(frame).p_values(odd) < 0.01).all()
