"""Which trials are trained again."""

import json
from dataclasses import asdict

from pipelines.config import DensityConfig, TrainConfig
from tuning.density.config import DensitySearch
from tuning.density.problem import GOALS, DensityProblem
from tuning.records import FAILED, FINISHED, PRUNED, Record, read, unbeaten, write
from tuning.retraining import chosen, trainings

WHOLE = DensityConfig(train=TrainConfig(validate_every=1000))
BASE = WHOLE.training
NLL, SECONDS = GOALS.values()


def record(number, nll, state=FINISHED, seconds=1.0, lr=1e-3):
    train = BASE.train.model_copy(update={"lr": lr, "validate_every": 250})
    config = BASE.model_copy(update={"train": train}).model_dump(mode="json")
    scores = {} if nll is None else {"nll": nll}
    return Record(number, config, scores=scores, state=state, seconds=seconds)


FOUND = [
    record(0, 1.0),
    record(1, 5.0),
    record(2, 3.0, seconds=9.0),
    record(3, 2.0, PRUNED),
    record(4, 4.0, seconds=9.5),
    record(5, None, FAILED),
]


def test_the_best_that_finished_besides_the_base():
    assert [r.number for r in chosen(2, [NLL], FOUND)] == [2, 4]


def test_of_two_goals_what_none_beats_in_both():
    assert [r.number for r in chosen(3, [NLL, SECONDS], FOUND)] == [2, 1]


def test_equal_trials_do_not_beat_each_other():
    twins = [record(1, 5.0), record(2, 5.0), record(3, 6.0)]
    assert [r.number for r in unbeaten(twins, [NLL, SECONDS])] == [1, 2]


def test_the_base_and_each_setting_with_every_fresh_seed(tmp_path):
    (tmp_path / "trials.json").write_text(json.dumps([asdict(r) for r in FOUND]))
    found = trainings(DensitySearch(top=1, seeds=2), WHOLE, tmp_path)
    assert [(one.number, one.config.seed) for one in found] == [(0, 1), (0, 2), (2, 1), (2, 2)]
    assert found[0].config == BASE.model_copy(update={"seed": 1})
    assert found[2].config.train.validate_every == 1000
    assert [one.title for one in found[1:3]] == ["base, seed 2", "trial 002, seed 1"]


def test_trials_are_validated_at_least_as_often_as_the_base():
    assert DensityProblem(DensitySearch()).base(WHOLE).train.validate_every == 250
    assert DensityProblem(DensitySearch(validate_every=None)).base(WHOLE) == BASE
    assert DensityProblem(DensitySearch(validate_every=5000)).base(WHOLE) == BASE


def test_records_are_kept_in_order_of_their_numbers(tmp_path):
    for one in reversed(FOUND):
        write(tmp_path, one)
    assert read(tmp_path) == FOUND
