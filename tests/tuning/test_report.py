"""The result of a search: its tables, and Optuna's figures of trials with unlike parameters."""

from types import SimpleNamespace

import optuna
import pytest
from pandas import DataFrame

from pipelines.config.recipes import digits
from pipelines.reporting.result import unequal_steps
from tuning.config import SearchConfig, TuneConfig
from tuning.report import decide, plots, result
from tuning.space import SUBJECTS
from tuning.trials import FAILED, FINISHED, PRUNED, outcome, propose

CONFIG = TuneConfig(search=SearchConfig(over=tuple(SUBJECTS)), base=digits())
TRIALS = 12


@pytest.fixture(scope="module")
def trials():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for number in range(TRIALS):
        asked = study.ask()
        proposal = propose(asked, CONFIG.start, CONFIG.search)
        share = 1.0 if number % 3 else 0.5
        metrics = {"nll": 50.0 + (5 * number) % 7, "share": share, "done": True}
        found.append(ended(asked.params | proposal, metrics))
    failed = propose(study.ask(), CONFIG.start, CONFIG.search)
    found.append(ended(failed | {"number": TRIALS}, {"reason": "out of memory"}))
    return {one.number: one for one in found}


def ended(config, metrics):
    trial = SimpleNamespace(config=config, last_result=metrics, status="TERMINATED")
    return outcome(CONFIG.start, trial)


def test_the_states_of_trials(trials):
    assert [trial.state for trial in trials.values()] == [PRUNED, FINISHED, FINISHED] * 4 + [
        FAILED
    ]


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
def test_figures_show_every_trial_with_an_nll(trials):
    found = {plot.name: plot.figure for plot in plots(CONFIG, trials.values())}
    assert set(found) == {"history", "importance", "slices"}
    finished, early = found["history"].axes[0].collections[:2]
    assert early.get_offsets()[:, 0].tolist() == [0, 3, 6, 9]
    assert finished.get_offsets()[:, 0].tolist() == [1, 2, 4, 5, 7, 8, 10, 11]


def test_a_search_without_any_validation_has_no_figures(trials):
    assert not list(plots(CONFIG, [trials[TRIALS]]))


def test_the_tables_have_every_trial_and_every_setting(trials):
    lost = {"number": 0, "seed": 1, "diverged": "step 3: nan", "select": None, "test": None}
    sound = [
        {"number": n, "seed": seed, "diverged": "", "select": float(n), "test": 5.0 + seed,
         "train/steps": 300.0 + 10 * n + seed, "train/time_limited": float(n == 1)}
        for n in (1, 2)
        for seed in (1, 2)
    ]  # fmt: skip
    scores = DataFrame([lost, *sound])
    counts = {"train": 100, "selection": 20, "test": 30}
    found = result(CONFIG, trials, scores, decide(scores), counts)
    assert [row[0] for row in found.headline.rows] == ["default", "trial 1 *", "trial 2"]
    assert found.headline.rows[0][1] == "diverged"
    assert found.facts["states"] == "4 pruned, 8 finished, 1 failed"
    table = found.sections[-1]
    assert len(table.rows) == TRIALS + 1 and table.rows[-1][2] == "failed: out of memory"
    spread = "time limits ended the trainings after 311 to 322 steps: they are compared at equal"
    assert found.warnings == [f"{spread} seconds"]
    assert unequal_steps([{**one, "train/time_limited": 0.0} for one in sound]) == []
    assert found.values["winner"] == 1 and found.metrics["test/nll/winner"] == 6.5
