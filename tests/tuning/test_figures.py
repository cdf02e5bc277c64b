"""Figures of a search, of trials that were asked for different parameters."""

import optuna
import pytest

from pipelines.config.recipes import digits
from pipelines.reporting.style import draw
from tuning import records
from tuning.density.config import DensitySearch
from tuning.density.problem import GOALS
from tuning.density.space import SPACES, propose
from tuning.figures import figures
from tuning.records import Record
from tuning.suggest import Suggest

SEARCH = DensitySearch(over=tuple(SPACES))
TRIALS = 12


@pytest.fixture
def trials():
    base = digits().training
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = []
    for number in range(TRIALS):
        ask = Suggest(study.ask())
        config = propose(ask, SEARCH, base).model_dump(mode="json")
        state = records.FINISHED if number % 3 else records.PRUNED
        ended = {"state": state, "scores": {"nll": 50.0 + (5 * number) % 7}, "share": 1.0}
        made.append(Record(number, config, params=ask.params, **ended))
    return made


def test_every_parameter_that_mattered_has_its_trials(trials, tmp_path):
    found = {}

    def made():
        found.update(figures(SEARCH, (GOALS["nll"],), digits().training, trials, {}, []))
        return found

    files = draw(made, tmp_path)
    assert set(files) == {"settings", "history", "curves", "importance", "slices"}
    drawn = [axis for axis in found["slices"].axes if axis.has_data()]
    names = [axis.get_xlabel().replace("\n", " ") for axis in drawn]
    assert len(set(names)) == len(names) == 8
    for name, axis in zip(names, drawn, strict=True):
        count = sum(name in trial.params for trial in trials)
        assert len(axis.collections[0].get_offsets()) == count > 0
