"""Figures of a search: how it went, what mattered, which settings were good, who won."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from optuna.distributions import CategoricalDistribution
from optuna.importance import get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from ebflow.inference import student
from pipelines.config import Section
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels, wrapped
from pipelines.training.metrics_log import Row
from tuning import records
from tuning.config import SearchConfig
from tuning.goals import Goal
from tuning.problems import problem
from tuning.records import BASE, Record, unbeaten
from tuning.suggest import Suggest
from tuning.verdict import SPLITS, Setting

Curves = Mapping[int, Sequence[Row]]

COLOURS = {
    records.FINISHED: FLOW,
    records.PRUNED: DATA,
    records.STOPPED: DATA,
    records.FAILED: BASELINE,
}
MOST, ACROSS = 8, 4
"""Parameters shown at most, and beside each other."""


def figures(
    config: SearchConfig,
    goals: Sequence[Goal],
    base: Section,
    trials: Sequence[Record],
    curves: Curves,
    settings: Sequence[Setting],
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        config: The search.
        goals: Its goals.
        base: What trials started from.
        trials: Its trials.
        curves: Their validations, by number.
        settings: The trainings that followed.
    """
    first = goals[0]
    study = [_frozen(config, base, first, record) for record in trials if record.scores]
    importances = _importances(study, first)
    found = {
        "settings": _settings(settings, first),
        "history": _history(trials, first),
        "curves": _curves(trials, curves, first),
    }
    for goal in goals[1:]:
        if goal.held:
            found[f"settings-{goal.name}"] = _settings(settings, goal)
    if importances:
        found["importance"] = _importance(importances, first)
        found["slices"] = _slices(study, list(importances)[:MOST], first)
    if len(goals) > 1:
        found["pareto"] = _pareto(trials, *goals)
    return found


def _frozen(config: SearchConfig, base: Section, goal: Goal, record: Record) -> FrozenTrial:
    """Returns a trial of Optuna as the record says; its space is asked again for the ranges."""
    fixed = FixedTrial(record.params, record.number)
    problem(config).propose(Suggest(fixed), base)
    return create_trial(
        state=TrialState.COMPLETE,
        value=record.values[goal.name],
        params=record.params,
        distributions=fixed.distributions,
        user_attrs={"number": record.number, "state": record.state},
    )


def _importances(found: Sequence[FrozenTrial], goal: Goal) -> dict[str, float]:
    """Returns the share of each parameter in the variation of a goal, the largest first.

    PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces (Watanabe,
    Bansal, Hutter, 2023), arXiv:2304.10255. It needs trials that differ.
    """
    if len({trial.value for trial in found}) < 4:
        return {}
    study = optuna.create_study(direction="maximize" if goal.largest else "minimize")
    study.add_trials(found)
    return get_param_importances(study)


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


def _history(trials: Sequence[Record], goal: Goal) -> Figure:
    """Shows a goal of every trial, by its number, and the best so far."""
    scored = [record for record in trials if record.scores]
    figure, axis = panels(height=3)
    _best_so_far(axis, [record for record in scored if record.state == records.FINISHED], goal)
    for state, colour in COLOURS.items():
        some = [record for record in scored if record.state == state]
        if some:
            axis.scatter([r.number for r in some], [r.values[goal.name] for r in some],
                         color=colour, s=22, label=state)  # fmt: skip
    axis.set_ylim(*_limits([record.values[goal.name] for record in scored], goal))
    axis.set_xlabel("trial (0 is the default)")
    axis.set_ylabel(f"validation {goal.axis}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return figure


def _best_so_far(axis: Axes, whole: Sequence[Record], goal: Goal) -> None:
    if whole:
        best = np.minimum.accumulate([goal.of(record.values) for record in whole])
        axis.step([record.number for record in whole], [goal.cost(value) for value in best],
                  where="post", color=FLOW, lw=1, label="best so far")  # fmt: skip


def _limits(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Returns limits that show the better half whole; what is far worse may leave."""
    costs = [goal.cost(value) for value in values]
    low, high = min(costs), float(np.median(costs))
    room = high - low + 10.0**-goal.digits * 10
    ends = goal.cost(low - 0.1 * room), goal.cost(high + 0.5 * room)
    return min(ends), max(ends)


def _curves(trials: Sequence[Record], curves: Curves, goal: Goal) -> Figure:
    """Shows how a goal of every trial changed, over the share of its training."""
    figure, axis = panels()
    shown = [record for record in trials if curves.get(record.number)]
    metric = f"val/{goal.name}"
    for record in shown:
        rows = curves[record.number]
        values = [row["metrics"][metric] for row in rows]
        base = record.number == BASE
        axis.plot([100 * row["share"] for row in rows], values, lw=2 if base else 1,
                  color=BASELINE if base else COLOURS.get(record.state, DATA),
                  alpha=1 if base else 0.7)  # fmt: skip
    last = [curves[record.number][-1]["metrics"][metric] for record in shown]
    if last:
        axis.set_ylim(*_limits(last, goal))
    axis.legend(handles=[
        Line2D([], [], color=BASELINE, lw=2, label="default"),
        Line2D([], [], color=FLOW, label="finished"),
        Line2D([], [], color=DATA, label="stopped early"),
    ])  # fmt: skip
    axis.set_xlabel("share of the training (%)")
    axis.set_ylabel(f"validation {goal.axis}")
    return figure


def _importance(found: Mapping[str, float], goal: Goal) -> Figure:
    names = list(found)[:MOST][::-1]
    figure, axis = panels(height=0.9 + 0.32 * len(names))
    axis.barh(names, [100 * found[name] for name in names], color=FLOW, height=0.6)
    axis.set_xlabel(f"share of the variation in {goal.text} that goes with it (PED-ANOVA, %)")
    axis.grid(axis="y", visible=False)
    return figure


def _slices(found: Sequence[FrozenTrial], names: Sequence[str], goal: Goal) -> Figure:
    """Shows a goal of every trial against the parameters, of those that were asked for one."""
    down = -(-len(names) // ACROSS)
    figure, axes = panels(ACROSS, height=2.3 * down, down=down, sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        some = [trial for trial in found if name in trial.params]
        law, values = some[0].distributions[name], [trial.params[name] for trial in some]
        choice = isinstance(law, CategoricalDistribution)
        colours = [BASELINE if t.user_attrs["number"] == BASE else FLOW for t in some]
        axis.scatter([str(value) for value in values] if choice else values,
                     [trial.value for trial in some], s=14, color=colours)  # fmt: skip
        axis.set_xlabel(wrapped(name, 28), fontsize=8)
        if not choice:
            ends = (law.low, law.high)
            axis.set_xscale("log" if law.log else "linear")
            axis.set_xticks(ends, [f"{end:.3g}" for end in ends])
            axis.xaxis.set_minor_locator(NullLocator())
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    axes[0, 0].set_ylim(*_limits([trial.value for trial in found], goal))
    figure.supylabel(f"validation {goal.axis}; red: the default", fontsize=9)
    return figure


def _pareto(trials: Sequence[Record], first: Goal, second: Goal) -> Figure:
    """Shows two goals of every finished trial; a line joins those that none beats in both."""
    figure, axis = panels()
    whole = [record for record in trials if record.state == records.FINISHED]
    best = sorted(map(_point(first, second), unbeaten(whole, (first, second))))
    axis.plot(*np.array(best).reshape(-1, 2).T, color=FLOW, lw=0.8, alpha=0.6)
    for record in whole:
        colour, point = BASELINE if record.number == BASE else FLOW, _point(first, second)(record)
        axis.scatter(*point, color=colour, s=22)
        axis.annotate(str(record.number), point, fontsize=7, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip
    axis.set_xlabel(second.axis)
    axis.set_ylabel(f"validation {first.axis}")
    axis.set_title("trials by number; red: the default; line: beaten by none in both", fontsize=9)
    return figure


def _point(first: Goal, second: Goal) -> Callable[[Record], tuple[float, float]]:
    return lambda record: (record.values[second.name], record.values[first.name])
