"""Figures of a search, of trials that were asked for different parameters."""

import optuna
import pytest

from pipelines.config.recipes import digits
from pipelines.reporting.style import draw
from tuning import records
from tuning.density.config import DensitySearch, DensityTune
from tuning.density.space import SPACE
from tuning.figures import MOST, figures
from tuning.problems import problem
from tuning.records import Record
from tuning.suggest import Suggest

SEARCHED = problem(DensityTune(search=DensitySearch(over=tuple(SPACE)), base=digits()))
TRIALS = 12


@pytest.fixture
def trials():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = []
    for number in range(TRIALS):
        ask = Suggest(study.ask())
        config = SEARCHED.propose(ask).model_dump(mode="json")
        state = records.FINISHED if number % 3 else records.PRUNED
        ended = {"state": state, "scores": {"nll": 50.0 + (5 * number) % 7}, "share": 1.0}
        made.append(Record(number, config, params=ask.params, **ended))
    return made


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
def test_every_parameter_that_mattered_has_its_trials(trials, tmp_path):
    found = {}
    lost = Record(TRIALS, {}, state=records.FAILED)

    def made():
        found.update(figures(SEARCHED, [*trials, lost], []))
        return found

    assert set(draw(made, tmp_path)) == {"settings", "history", "importance", "slices"}
    shown = {axis.get_xlabel(): axis for axis in found["slices"].axes if axis.get_xlabel()}
    assert len(shown) == MOST
    for name, axis in shown.items():
        count = sum(name in trial.params for trial in trials)
        assert len(axis.collections[0].get_offsets()) == count > 0
