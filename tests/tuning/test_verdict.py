"""Who wins, and when a difference counts."""

import math

import pytest

from tuning.density.problem import GOALS
from tuning.goals import Goal
from tuning.verdict import decide, settings, shown

NLL = GOALS["nll"]
UP = Goal("A3", "A3", "", -1.0, largest=True, digits=3)
MARGIN = Goal("accuracy", "accuracy", "", 0.0, largest=True, digits=3, margin=0.05)


def rows(number, select, test, goal="nll"):
    pairs = zip(select, test, strict=True)
    return [{"number": number, "seed": s, "scores": {"select": {goal: a}, "test": {goal: b}}}
            for s, (a, b) in enumerate(pairs, 1)]  # fmt: skip


BASE = rows(0, [10.0, 11.0, 12.0], [20.0, 21.0, 22.0])


def decided(*others):
    return decide([NLL], settings([*BASE, *(row for some in others for row in some)]))


def test_an_interval_as_text():
    assert shown((1016.46, 1015.0, 1017.92), 1) == "1016.5 ± 1.5"
    assert shown((0.5, None, None), 3) == shown((0.5, math.nan, math.nan), 3) == "0.500"


def test_the_selection_rows_name_the_winner_and_the_test_rows_compare_it():
    good = rows(3, [5.0, 6.0, 7.0], [18.0, 19.1, 19.9])
    best_on_test = rows(4, [8.0, 9.0, 10.0], [1.0, 1.0, 1.0])
    found = decided(good, best_on_test)
    assert found.winner == 3
    value, low, _ = found.gains["nll"]
    assert value == pytest.approx(2.0) and value - low == pytest.approx(0.2484, 1e-3)
    assert found.line == "better than the default by 2.0 ± 0.2 nats"


def test_differences_are_paired_by_seed():
    shifted = rows(3, [5.0, 6.0, 7.0], [19.0, 20.0, 21.0])
    assert decided(shifted).gains["nll"] == pytest.approx((1.0, 1.0, 1.0))


LINES = {
    "no difference from the default shown: 0.3 ± ": [20.0, 22.0, 20.0],
    "worse than the default by 1.0 ± 0.2 nats": [21.0, 22.1, 22.9],
}


@pytest.mark.parametrize("line, test", LINES.items(), ids=LINES)
def test_what_is_not_better_is_not_called_so(line, test):
    assert decided(rows(3, [5.0, 6.0, 7.0], test)).line.startswith(line)


def test_the_default_may_win():
    found = decided(rows(3, [50.0, 60.0, 70.0], [1.0, 1.0, 1.0]))
    assert (found.winner, found.gains) == (0, {}) and "it stays" in found.line


def test_one_seed_shows_no_interval():
    scores = [*rows(0, [10.0], [20.0]), *rows(3, [5.0], [15.0])]
    assert "for one seed, which shows no interval" in decide([NLL], settings(scores)).line


def test_a_setting_that_diverged_does_not_win():
    lost = [*rows(3, [1.0, 1.0], [1.0, 1.0]), {"number": 3, "seed": 3, "lost": "step 3: nan"}]
    assert decided(lost).winner == 0
    nothing = [{"number": 0, "seed": 1, "lost": "step 1: nan"}]
    assert decide([NLL], settings([*nothing, *rows(3, [1.0], [1.0])])).line.startswith(
        "the default diverged (step 1: nan)"
    )
    with pytest.raises(ValueError, match="every setting diverged, the first: step 1"):
        decide([NLL], settings(nothing))


def two(number, a3, accuracy):
    """Returns rows of two goals that are alike on both splits."""
    scores = [{"A3": a, "accuracy": b} for a, b in zip(a3, accuracy, strict=True)]
    return [{"number": number, "seed": s, "scores": {"select": one, "test": one}}
            for s, one in enumerate(scores, 1)]  # fmt: skip


def test_of_goals_that_are_to_be_large_the_greatest_wins_and_a_gain_is_a_rise():
    base, good = two(0, [0.5, 0.6], [0.96, 0.96]), two(1, [0.7, 0.8], [0.93, 0.92])
    found = decide([UP, MARGIN], settings([*base, *good]))
    assert found.winner == 1 and found.gains["A3"].value == pytest.approx(0.2)
    assert found.line == (
        "A3: better than the default by 0.200 ± 0.000; "
        "accuracy: no difference from the default shown: -0.035 ± 0.064"
    )


def test_a_setting_beyond_the_margin_of_another_goal_does_not_win():
    far = two(1, [0.9, 0.9], [0.90, 0.90])
    near = two(2, [0.7, 0.7], [0.92, 0.92])
    base = two(0, [0.5, 0.5], [0.96, 0.96])
    assert decide([UP, MARGIN], settings([*base, *far, *near])).winner == 2
    assert decide([UP, MARGIN], settings([*base, *far])).winner == 0
