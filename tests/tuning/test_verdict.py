"""What is trained again, who wins, and when a difference counts."""

import math

import pytest

from ebflow.errors import NonFinite
from pipelines.config import DensityConfig, TrainConfig
from pipelines.reporting.result import plus_minus
from tuning.density.config import DensitySearch, DensityTune
from tuning.density.problem import NLL
from tuning.problem import Goal
from tuning.problems import problem
from tuning.records import FAILED, FINISHED, PRUNED, Record, read, write
from tuning.verdict import chosen, decide, settings, trainings, unbeaten

UP = Goal("A3", "A3", "", -1.0, largest=True, digits=3)
MARGIN = Goal("accuracy", "accuracy", "", 0.0, largest=True, digits=3, margin=0.05)

WHOLE = DensityConfig(train=TrainConfig(validate_every=1000))
BASE = WHOLE.training


def searched(**options):
    return problem(DensityTune(search=DensitySearch(**options), base=WHOLE))


def record(number, state=FINISHED, **scores):
    config = BASE.changed(train={"validate_every": 250}).model_dump(mode="json")
    return Record(number, config, scores=scores, state=state)


FOUND = [
    record(0, nll=1.0),
    record(1, nll=5.0),
    record(2, nll=3.0),
    record(3, PRUNED, nll=2.0),
    record(4, nll=4.0),
    record(5, FAILED),
]


def test_the_best_that_finished_besides_the_base():
    assert [r.number for r in chosen(2, [NLL], FOUND)] == [2, 4]


def test_of_two_goals_what_none_beats_in_both():
    found = [record(1, A3=0.5, accuracy=0.96), record(2, A3=0.7, accuracy=0.9),
             record(3, A3=0.6, accuracy=0.9)]  # fmt: skip
    assert [r.number for r in chosen(3, [UP, MARGIN], found)] == [2, 1]


def test_equal_trials_do_not_beat_each_other():
    twins = [record(1, nll=5.0), record(2, nll=5.0), record(3, nll=6.0)]
    assert [r.number for r in unbeaten(twins, [NLL])] == [1, 2]


def test_the_base_and_each_setting_with_every_fresh_seed():
    found = trainings(searched(top=1, seeds=2), FOUND)
    assert [(one.number, one.config.seed) for one in found] == [(0, 1), (0, 2), (2, 1), (2, 2)]
    assert [one.title for one in found[1:3]] == ["base, seed 2", "trial 002, seed 1"]


def test_trials_are_validated_at_least_as_often_as_the_base_and_the_winner_as_often():
    assert searched().base.train.validate_every == 250
    assert searched(validate_every=None).base == BASE
    assert searched(validate_every=5000).base == BASE
    assert searched().settled(searched().base) == WHOLE


def test_records_are_kept_in_order_of_their_numbers(tmp_path):
    for one in reversed(FOUND):
        write(tmp_path, one)
    assert read(tmp_path) == FOUND


def rows(number, select, test, goal="nll"):
    pairs = zip(select, test, strict=True)
    return [(number, s, {"select": {goal: a}, "test": {goal: b}})
            for s, (a, b) in enumerate(pairs, 1)]  # fmt: skip


DEFAULT = rows(0, [10.0, 11.0, 12.0], [20.0, 21.0, 22.0])


def decided(*others):
    return decide([NLL], settings([*DEFAULT, *(row for some in others for row in some)]))


def test_an_interval_as_text():
    assert plus_minus((1016.46, 1015.0, 1017.92), 1) == "1016.5 ± 1.5"
    assert plus_minus((0.5, None, None), 3) == plus_minus((0.5, math.nan, math.nan), 3) == "0.500"


def test_the_selection_rows_name_the_winner_and_the_test_rows_compare_it():
    good = rows(3, [5.0, 6.0, 7.0], [18.0, 19.1, 19.9])
    best_on_test = rows(4, [8.0, 9.0, 10.0], [1.0, 1.0, 1.0])
    found = decided(good, best_on_test)
    assert found.winner == 3
    value, low, _ = found.gains["nll"]
    assert value == pytest.approx(2.0) and value - low == pytest.approx(0.2484, 1e-3)
    assert found.line == "better than the default by 2.00 ± 0.25 nats"


def test_differences_are_paired_by_seed():
    shifted = rows(3, [5.0, 6.0, 7.0], [19.0, 20.0, 21.0])
    assert decided(shifted).gains["nll"] == pytest.approx((1.0, 1.0, 1.0))


LINES = {
    "no difference from the default shown: 0.33 ± ": [20.0, 22.0, 20.0],
    "worse than the default by 1.00 ± 0.25 nats": [21.0, 22.1, 22.9],
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
    lost = [*rows(3, [1.0, 1.0], [1.0, 1.0]), (3, 3, "step 3: nan")]
    assert decided(lost).winner == 0
    nothing = [(0, 1, "step 1: nan")]
    assert decide([NLL], settings([*nothing, *rows(3, [1.0], [1.0])])).line.startswith(
        "the default diverged (step 1: nan)"
    )
    with pytest.raises(NonFinite, match="every setting diverged, the first: step 1"):
        decide([NLL], settings(nothing))


def two(number, a3, accuracy):
    """Returns rows of two goals that are alike on both splits."""
    scores = [{"A3": a, "accuracy": b} for a, b in zip(a3, accuracy, strict=True)]
    return [(number, s, {"select": one, "test": one}) for s, one in enumerate(scores, 1)]


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
