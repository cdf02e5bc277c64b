"""Figures of a search: who won; how it went and what mattered, as Optuna draws it."""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import get_param_importances
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from optuna.visualization import matplotlib as drawn

from pipelines.reporting.statistics import student
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels
from tuning import records
from tuning.config import SPLITS
from tuning.problem import Goal, Problem
from tuning.records import BASE, Record
from tuning.suggest import Suggest
from tuning.verdict import Setting

MOST = 4
"""Parameters whose values are shown."""

EARLY = {"constraints": (1.0,)}
"""Of a trial that did not finish: to Optuna it is infeasible, drawn in grey and never the best."""


def figures(
    problem: Problem, trials: Sequence[Record], settings: Sequence[Setting]
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        problem: What was searched.
        trials: Its trials.
        settings: The trainings that followed.
    """
    first, *others = problem.goals
    found = {"settings": _settings(settings, first)}
    found |= {f"settings-{goal.name}": _settings(settings, goal) for goal in others}
    roomy = pyplot.rc_context({"figure.constrained_layout.use": True})
    with roomy, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return found | _by_optuna(problem, trials)


def _by_optuna(problem: Problem, trials: Sequence[Record]) -> dict[str, Figure]:
    """Returns history and, of trials that differ, importance and slices; of two goals their front.

    PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces (Watanabe,
    Bansal, Hutter, 2023), arXiv:2304.10255.
    """
    first, study = problem.goals[0], _study(problem, problem.goals[:1], trials)
    values = [trial.value for trial in study.get_trials() if trial.value is not None]
    if not values:
        return {}
    axes = {"history": drawn.plot_optimization_history(study, target_name=first.axis)}
    axes["history"].set_ylim(*_limits(values, first))
    base = study.get_trials()[BASE]
    _mark(axes["history"], base, BASE)
    axes["history"].legend(bbox_to_anchor=(1.05, 1.0), loc="upper left")
    if len(set(values)) >= 4:
        axes["importance"] = drawn.plot_param_importances(study, target_name=first.axis)
        names = [*get_param_importances(study)][:MOST]
        axes["slices"] = drawn.plot_slice(study, names, target_name=first.axis)
        for axis in np.atleast_1d(axes["slices"]):
            _mark(axis, base, _place(base, axis.get_xlabel()))
    if len(problem.goals) > 1:
        whole = [record for record in trials if record.state == records.FINISHED]
        both = _study(problem, problem.goals, whole)
        names = [goal.axis for goal in problem.goals]
        axes["pareto"] = drawn.plot_pareto_front(both, target_names=names)
    made = {name: np.atleast_1d(axis)[0].figure for name, axis in axes.items()}
    for figure in made.values():
        pyplot.close(figure)
    return made


def _mark(axis: Axes, base: FrozenTrial, x: float | str | None) -> None:
    """Marks the default, if it has a value at some x, and names what Optuna has in grey."""
    _, early, *_ = axis.collections
    early.set(color=DATA, label="ended early")
    if base.value is not None and x is not None:
        axis.plot(x, base.value, "D", color=BASELINE, label=records.label(BASE))


def _place(trial: FrozenTrial, name: str) -> float | str | None:
    """Returns where a trial stands on the axis of a parameter; None without it."""
    value, law = trial.params.get(name), trial.distributions.get(name)
    return repr(value) if isinstance(law, CategoricalDistribution) else value


def _study(problem: Problem, goals: Sequence[Goal], trials: Sequence[Record]) -> Study:
    modes = ["maximize" if goal.largest else "minimize" for goal in goals]
    study = optuna.create_study(directions=modes)
    study.add_trials([_frozen(problem, goals, record) for record in trials])
    return study


def _frozen(problem: Problem, goals: Sequence[Goal], record: Record) -> FrozenTrial:
    """Returns a trial of Optuna as the record says; its space is asked again for the ranges."""
    if not record.scores:
        return create_trial(state=TrialState.FAIL)
    fixed = FixedTrial(record.params, record.number)
    problem.propose(Suggest(fixed))
    return create_trial(
        values=[record.scores[goal.name] for goal in goals],
        params=record.params,
        distributions=fixed.distributions,
        system_attrs={} if record.state == records.FINISHED else EARLY,
    )


def _limits(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Returns limits that show the better half whole; what is far worse may leave."""
    costs = [goal.cost(value) for value in values]
    low, high = min(costs), float(np.median(costs))
    room = high - low + 10.0**-goal.digits * 10
    ends = goal.cost(low - 0.1 * room), goal.cost(high + 0.5 * room)
    return min(ends), max(ends)


def _settings(settings: Sequence[Setting], goal: Goal) -> Figure:
    """Shows every training of the best settings, on the selection rows and on the test rows."""
    whole = [setting for setting in settings if not setting.lost]
    figure, axes = panels(2, height=1.2 + 0.5 * len(whole), sharey=True)
    titles = (f"{rows} rows" for rows in SPLITS.values())
    for axis, split, title in zip(axes, SPLITS, titles, strict=True):
        for place, setting in enumerate(whole):
            values = list(setting.scores[split][goal.name].values())
            _trainings(axis, place, values, setting.number)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(f"{goal.axis}; mean and 95 % interval")
        axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(whole)), [records.label(setting.number) for setting in whole])
    axis.set_ylim(len(whole) - 0.5, -0.5)
    return figure


def _trainings(axis: Axes, place: int, values: Sequence[float], number: int) -> None:
    colour = BASELINE if number == BASE else FLOW
    found = student(values).interval()
    half = np.nan_to_num(found.high - found.value)
    axis.scatter(values, np.full(len(values), place), s=14, color=colour, alpha=0.5, lw=0)
    axis.errorbar(found.value, place, xerr=half, fmt="D", ms=5, color=colour, capsize=3)
