"""The trainings after a search, the winner, and the verdict."""

import math

import pytest
from pandas import DataFrame

from ebflow.errors import NonFinite
from pipelines.config import DensityConfig, TrainConfig
from pipelines.reporting.result import plus_minus
from tuning.config import SearchConfig, TuneConfig
from tuning.report import best_config, decide
from tuning.trials import FAILED, FINISHED, PRUNED, Outcome, load, save, trainings

BASE = DensityConfig(train=TrainConfig(validate_every=1000))


def config(**options):
    return TuneConfig(search=SearchConfig(**options), base=BASE)


def trial(number, state=FINISHED, nll=None, **changes):
    return Outcome(
        number=number, state=state, nll=nll, step=60, seconds=1.0, share=1.0, reason="",
        changes=changes, params={}, training=config().start.changed(**changes),
    )  # fmt: skip


OUTCOMES = [
    trial(0, nll=1.0),
    trial(1, nll=5.0),
    trial(2, nll=3.0, train={"lr": 1e-3}),
    trial(3, PRUNED, nll=2.0),
    trial(4, nll=4.0),
    trial(5, FAILED),
]
TRIALS = {one.number: one for one in OUTCOMES}


def test_the_default_and_the_best_finished_trials_are_trained_with_every_fresh_seed():
    found = trainings(config(top=2, seeds=2), TRIALS)
    assert list(found) == [(0, 1), (0, 2), (2, 1), (2, 2), (4, 1), (4, 2)]
    assert {training.train.validate_every for training in found.values()} == {1000}
    assert (found[2, 1].seed, found[2, 1].train.lr, found[2, 1].train.retry) == (1, 1e-3, False)


def test_trials_are_validated_at_least_as_often_as_the_default():
    assert config().start.train.validate_every == 250
    often = BASE.changed(train={"validate_every": 20})
    assert TuneConfig(base=often).start == often.training


def test_the_best_configuration_is_the_users_with_the_winners_options():
    found = best_config(BASE.changed(seed=7), TRIALS[2])
    assert (found.train.lr, found.train.validate_every) == (1e-3, 1000)
    assert (found.seed, found.data.selection, found.name) == (7, None, f"{BASE.name}-best")
    long = best_config(BASE.changed(name=200 * "n"), TRIALS[2])
    assert DensityConfig.model_validate(long.model_dump()).name == 195 * "n" + "-best"


def test_outcomes_are_read_as_they_were_written(tmp_path):
    save(tmp_path, OUTCOMES)
    assert load(tmp_path) == TRIALS


def scores(number, select, test):
    pairs = zip(select, test, strict=True)
    return [{"number": number, "seed": seed, "diverged": "", "select": a, "test": b}
            for seed, (a, b) in enumerate(pairs, 1)]  # fmt: skip


def lost(number, seed, why):
    return {"number": number, "seed": seed, "diverged": why, "select": None, "test": None}


DEFAULT = scores(0, [10.0, 11.0, 12.0], [20.0, 21.0, 22.0])


def decided(*others):
    return decide(DataFrame(DEFAULT + [row for rows in others for row in rows]))


def test_the_selection_rows_decide_the_winner_and_the_test_rows_compare_it():
    good = scores(3, [5.0, 6.0, 7.0], [18.0, 19.1, 19.9])
    found = decided(good, scores(4, [8.0, 9.0, 10.0], [1.0, 1.0, 1.0]))
    value, low, _ = found.gain
    assert found.winner == 3
    assert value == pytest.approx(2.0) and value - low == pytest.approx(0.2484, 1e-3)
    assert found.line == "better than the default by 2.00 ± 0.25 nats"


def test_differences_are_paired_by_seed():
    found = decided(scores(3, [5.0, 6.0, 7.0], [19.0, 20.0, 21.0]))
    assert found.gain == pytest.approx((1.0, 1.0, 1.0))


LINES = {
    "no difference from the default shown: 0.33 ± ": [20.0, 22.0, 20.0],
    "worse than the default: -1.00 ± 0.25 nats": [21.0, 22.1, 22.9],
}


@pytest.mark.parametrize("line, test", LINES.items(), ids=LINES)
def test_a_setting_that_is_not_better_is_not_called_so(line, test):
    assert decided(scores(3, [5.0, 6.0, 7.0], test)).line.startswith(line)


def test_the_default_may_win():
    found = decided(scores(3, [50.0, 60.0, 70.0], [1.0, 1.0, 1.0]))
    assert (found.winner, found.gain) == (0, None) and "no setting was better" in found.line


def test_one_seed_gives_no_interval():
    found = decide(DataFrame(scores(0, [10.0], [20.0]) + scores(3, [5.0], [15.0])))
    assert "with one seed, which gives no interval" in found.line
    assert plus_minus((0.5, math.nan, math.nan), 3) == "0.500"


def test_a_setting_that_diverged_does_not_win():
    assert decided([*scores(3, [1.0, 1.0], [1.0, 1.0]), lost(3, 3, "step 3: nan")]).winner == 0
    nothing = [lost(0, 1, "step 1: nan")]
    found = decide(DataFrame(nothing + scores(3, [1.0], [1.0])))
    assert found.line.startswith("the default diverged (step 1: nan)")
    with pytest.raises(NonFinite, match="every setting diverged, the first: step 1"):
        decide(DataFrame(nothing))
