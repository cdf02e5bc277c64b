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
    lost = Record(TRIALS, {}, state=records.FAILED)
    found = figures(SEARCHED, [*trials, lost], [])
    assert set(draw(found, tmp_path)) == {"settings", "history", "importance", "slices"}
    shown = {axis.get_xlabel(): axis for axis in found["slices"].axes if axis.get_xlabel()}
    assert len(shown) == MOST
    for name, axis in shown.items():
        states = [trial.state for trial in trials if name in trial.params]
        counts = [len(points.get_offsets()) for points in axis.collections[:2]]
        assert counts == [states.count(records.FINISHED), states.count(records.PRUNED)]
        assert len(axis.lines) == (name in trials[records.BASE].params)


def test_a_search_that_was_stopped_before_any_number_has_no_history():
    stopped = Record(0, {}, state=records.STOPPED)
    assert set(figures(SEARCHED, [stopped], [])) == {"settings"}


def test_the_default_and_what_ended_early_are_marked_and_the_best_has_finished(trials, tmp_path):
    found = figures(SEARCHED, trials, [])
    draw(found, tmp_path)
    (axis,) = found["history"].axes
    finished, early = (points.get_offsets()[:, 0].tolist() for points in axis.collections[:2])
    assert early == [0, 3, 6, 9] and finished == [1, 2, 4, 5, 7, 8, 10, 11]
    best, default = axis.lines
    assert default.get_label() == "default" and default.get_xydata().tolist() == [[0, 50.0]]
    scores = [trial.scores["nll"] for trial in trials if trial.state == records.FINISHED]
    assert best.get_ydata()[-1] == min(scores)
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert {"default", "ended early"} <= set(names)
