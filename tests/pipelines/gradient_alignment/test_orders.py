"""Metrics judged by the order in which they put the models."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipelines.gradient_alignment import attributions, comparisons, verdicts
from pipelines.gradient_alignment.models import penalty_kind
from pipelines.gradient_alignment.over_seeds import lines

from .cases import QUALITY, by_name, study, verdict

PIXELS = "PP/own/raw"

TRAINED = [name for name, model in by_name().items() if model.shift.name == "none"]
"""The models that are trainings of their own."""


def test_the_order_of_these_models_is_judged_over_seeds():
    places = {name: k / 10 for k, name in enumerate(TRAINED) if name != "collapse"}

    def claim(count, sign=1):
        some = {name: {"A3": k, "PP/own/centred": sign * k**2}
                for name, k in list(places.items())[:count]}  # fmt: skip
        found = verdicts.conclude(study(**some), QUALITY)
        return verdict(found, "Among the models of this study pixel")

    assert claim(12).value == pytest.approx(1) and claim(12).verdict == "holds"
    assert claim(12, -1).verdict == "does not hold"
    with pytest.raises(StopIteration):  # not asked of so few
        claim(comparisons.FEWEST - 1)


def orderly(names):
    """Returns lines of trainings with A3 and two metrics in its order, and a class-blind one."""
    found = {
        name: {"A3": k, "A1": -k, PIXELS: k**2, "sensitivity": -k} for k, name in enumerate(names)
    }
    return study(**found, **{"blind-gaussian": {"A1": 1.0, "A3": 0.0, PIXELS: -0.25}})


def test_metrics_are_told_by_their_order_the_better_the_larger():
    entries = attributions.entries(attributions.orders(orderly(TRAINED)))
    assert entries.keys() == {column.metric for column, _ in attributions.METRICS}
    assert entries[PIXELS]["A3"]["value"] == pytest.approx(1)
    assert entries[PIXELS]["A1"]["value"] == pytest.approx(-1)
    assert entries["sensitivity"]["A3"]["value"] == pytest.approx(1)  # less of it is better
    assert entries[PIXELS]["gaussian"]["value"] == pytest.approx(-0.25)
    assert entries["infidelity"]["A3"] is None
    assert attributions.orders(orderly(TRAINED[: comparisons.FEWEST - 1])) == {}


def test_the_order_is_told_on_the_page():
    found, few = orderly(TRAINED), orderly(TRAINED[:3])
    whole, orders = attributions.tables(found, attributions.orders(found))
    assert whole.headings == ("model", "sensitivity")
    assert len(whole.rows) == len(TRAINED) + 1
    assert {len(row) for row in orders.rows} == {len(orders.headings)}
    pixels = next(row for row in orders.rows if row[0] == "pixel perturbation (more is better)")
    assert pixels[1:3] == ("-1.00 ± 0.00", "1.00 ± 0.00")
    assert pixels[4] == "-0.250 ± 0.000"
    assert len(attributions.tables(few, attributions.orders(few))) == 1


def test_a_metric_without_an_order_has_no_correlation():
    """It is 1 of all trainings."""
    found = study(**{name: {"A3": k, "A1": k} for k, name in enumerate(TRAINED)})
    flat = [replace(one, numbers={**one.numbers, PIXELS: 1.0})
            for line in found.values() for one in line.seeds]  # fmt: skip
    assert comparisons.order("A3", PIXELS).found(lines(flat)) is None
    assert comparisons.order("A3", "A1").found(lines(flat)).value == pytest.approx(1)


def test_an_order_has_a_value_a_seed():
    """Two seeds of one order and one of its reverse: 1, 1, −1."""
    found = dict(orderly(TRAINED))
    for name, line in found.items():
        last = line.seeds[-1]
        turned = {**last.numbers, PIXELS: -last.numbers[PIXELS]}
        found[name] = replace(line, seeds=[*line.seeds[:-1], replace(last, numbers=turned)])
    number = comparisons.order("A3", PIXELS)
    assert number.values(found) == pytest.approx([1, 1, -1])
    assert number.found(found).df == 2


def test_an_order_is_the_rank_correlation():
    draws = np.random.default_rng(0).normal(size=(len(TRAINED), 2)).round(1)
    found = study(**{n: {"A3": a, PIXELS: b} for n, (a, b) in zip(TRAINED, draws, strict=True)})
    expected = stats.spearmanr(draws).statistic
    assert comparisons.order("A3", PIXELS).values(found) == pytest.approx([expected] * 3)


def test_shifts_and_collapses_are_not_ordered():
    found = dict(study(**{name: {"A3": k} for k, name in enumerate(by_name())}))
    collapsed = [replace(one, diagnosis="collapse: …") for one in found["collapse"].seeds]
    found["collapse"] = replace(found["collapse"], seeds=collapsed)
    counted = replace(comparisons.order("A3", "A1"), compute=lambda *taken: len(taken))
    assert counted.values(found) == len(TRAINED) - 1


def explaining(off):
    """Returns what off-manifold robustness explains of A3 more than the kind of penalty does."""
    found = by_name()
    kinds = {name: penalty_kind(found[name].classifier.regularizer) for name in TRAINED}
    rank = {name: k for k, name in enumerate(sorted(TRAINED, key=kinds.get))}
    told = study(**{name: {"A3": k, "off-manifold": off(k)} for name, k in rank.items()})
    claim = verdict(verdicts.conclude(told, QUALITY), "Among them robustness off the manifold e")
    a3, kind = np.array([*rank.values()]), np.array([str(kinds[name]) for name in rank])
    inside = sum(len(a3[kind == one]) * a3[kind == one].var() for one in set(kind))
    mean_square = inside / (len(a3) - len(set(kind)))
    return claim, 1 - mean_square / a3.var(ddof=1)


def test_robustness_and_the_kind_of_regularizer_are_compared_by_what_they_explain():
    """By kind A3 is ordered as far as groups go; by robustness wholly, or not at all."""
    claim, by_kind = explaining(lambda rank: rank**3)
    assert 0.8 < by_kind < 1 and claim.value == pytest.approx(1 - by_kind)
    claim, _ = explaining(lambda rank: math.sin(100 * rank))
    assert claim.value < -0.5 and claim.verdict == "does not hold"
