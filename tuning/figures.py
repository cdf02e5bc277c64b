"""Figures of a search: how it went, what mattered, which settings were good, who won."""

__all__ = ["figures"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from optuna.distributions import CategoricalDistribution
from optuna.importance import get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from pipelines.config import Training
from pipelines.report import BASELINE, DATA, FLOW
from pipelines.rows import Row
from tuning import records
from tuning.config import TuneConfig
from tuning.records import BASE, Record
from tuning.retraining import of_trials
from tuning.spaces import Suggest, propose
from tuning.verdict import Setting, interval

Curves = Mapping[int, Sequence[Row]]

COLOURS = {
    records.FINISHED: FLOW,
    records.PRUNED: DATA,
    records.STOPPED: DATA,
    records.FAILED: BASELINE,
}
MOST = 8
"""Parameters shown at most."""


def figures(
    config: TuneConfig,
    trials: Sequence[Record],
    curves: Curves,
    settings: Sequence[Setting],
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        config: The search and its base.
        trials: Its trials.
        curves: Their validations, by number.
        settings: The trainings that followed.
    """
    study = [_frozen(config, record) for record in trials if record.nll is not None]
    importances = _importances(study)
    found = {
        "settings": _settings(settings),
        "history": _history(trials),
        "curves": _curves(trials, curves),
    }
    if importances:
        found["importance"] = _importance(importances)
        found["parallel"] = _parallel(study, list(importances)[:MOST])
    if len(config.search.goals) > 1:
        found["pareto"] = _pareto(trials)
    return found


def _frozen(config: TuneConfig, record: Record) -> FrozenTrial:
    """Returns a trial of Optuna as the record says; its space is asked again for the ranges."""
    base: Training = of_trials(config.search, config.base.training)
    fixed = FixedTrial(record.params, record.number)
    propose(Suggest(fixed), config.search, base)
    return create_trial(
        state=TrialState.COMPLETE,
        value=record.nll,
        params=record.params,
        distributions=fixed.distributions,
        user_attrs={"number": record.number, "state": record.state},
    )


def _importances(found: Sequence[FrozenTrial]) -> dict[str, float]:
    """Returns the share of each parameter in the variation of the NLL, the largest first.

    PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces (Watanabe,
    Bansal, Hutter, 2023), arXiv:2304.10255. It needs trials that differ.
    """
    if len({trial.value for trial in found}) < 4:
        return {}
    study = optuna.create_study()
    study.add_trials(found)
    return get_param_importances(study)


def _settings(settings: Sequence[Setting]) -> Figure:
    """Shows every training of the best settings, on the selection rows and on the test rows."""
    whole = [setting for setting in settings if not setting.lost]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(whole)), layout="constrained")
    for axis, split, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("select", "test"),
        ("selection rows: these name the winner", "test rows: these compare it"),
        strict=True,
    ):
        for place, setting in enumerate(whole):
            _trainings(axis, place, list(getattr(setting, split).values()), setting.number)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("NLL (nats); mean and 95 % interval")
        axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(whole)), [_label(setting.number) for setting in whole])
    axis.set_ylim(len(whole) - 0.5, -0.5)
    return figure


def _trainings(axis: Axes, place: int, values: Sequence[float], number: int) -> None:
    colour = BASELINE if number == BASE else FLOW
    found = interval(values)
    axis.scatter(values, np.full(len(values), place), s=14, color=colour, alpha=0.5, lw=0)
    axis.errorbar(found.mean, place, xerr=found.half or 0.0, fmt="D", ms=5,
                  color=colour, capsize=3)  # fmt: skip


def _label(number: int) -> str:
    return "default" if number == BASE else f"trial {number}"


def _history(trials: Sequence[Record]) -> Figure:
    """Shows the NLL of every trial, by its number, and the best so far."""
    told = [record for record in trials if record.nll is not None]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    whole = [record for record in told if record.state == records.FINISHED]
    if whole:
        best = np.minimum.accumulate([record.nll for record in whole])
        numbers = [record.number for record in whole]
        axis.step(numbers, best, where="post", color=FLOW, lw=1, label="best so far")
    for state, colour in COLOURS.items():
        some = [record for record in told if record.state == state]
        if some:
            axis.scatter([r.number for r in some], [r.nll for r in some], color=colour, s=22,
                         label=state)  # fmt: skip
    axis.set_ylim(*_limits([record.nll for record in told]))
    axis.set_xlabel("trial (0 is the default)")
    axis.set_ylabel("least validation NLL (nats)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="upper right")
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show the better half whole; what is far worse may leave."""
    low, high = min(values), float(np.median(values))
    return low - 0.1 * (high - low + 1), high + 0.5 * (high - low + 1)


def _curves(trials: Sequence[Record], curves: Curves) -> Figure:
    """Shows how the NLL of every trial fell, over the share of its training."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    shown = [record for record in trials if curves.get(record.number)]
    for record in shown:
        rows = curves[record.number]
        nll = [row["metrics"]["val/nll"] for row in rows]
        base = record.number == BASE
        axis.plot([100 * row["share"] for row in rows], nll, lw=2 if base else 1,
                  color=BASELINE if base else COLOURS.get(record.state, DATA),
                  alpha=1 if base else 0.7)  # fmt: skip
    last = [curves[record.number][-1]["metrics"]["val/nll"] for record in shown]
    if last:
        axis.set_ylim(*_limits(last))
    axis.legend(handles=[
        Line2D([], [], color=BASELINE, lw=2, label="default"),
        Line2D([], [], color=FLOW, label="finished"),
        Line2D([], [], color=DATA, label="stopped early"),
    ])  # fmt: skip
    axis.set_xlabel("share of the training (%)")
    axis.set_ylabel("validation NLL (nats)")
    return figure


def _importance(found: Mapping[str, float]) -> Figure:
    names = list(found)[:MOST][::-1]
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.barh(names, [100 * found[name] for name in names], color=FLOW, height=0.6)
    axis.set_xlabel("share of the variation in NLL that goes with it (PED-ANOVA, %)")
    axis.grid(axis="y", visible=False)
    return figure


def _parallel(found: Sequence[FrozenTrial], names: Sequence[str]) -> Figure:
    """Shows every trial as a line over its parameters, the better the darker.

    A line leaves out the parameters that its trial was not asked for.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    scales = [_scale(found, name) for name in names]
    nll = np.array([trial.value for trial in found])
    rank = nll.argsort().argsort() / max(1, len(nll) - 1)
    for trial, place in sorted(zip(found, rank, strict=True), key=lambda pair: -pair[1]):
        base = trial.user_attrs["number"] == BASE
        heights = [
            scale(trial.params[name]) if name in trial.params else np.nan
            for scale, name in zip(scales, names, strict=True)
        ]
        style = (
            {"color": BASELINE, "lw": 2} if base else {"color": FLOW, "alpha": 0.9 - 0.75 * place}
        )
        axis.plot(heights, marker=".", **style)
    for place, name in enumerate(names):
        _ticks(axis, place, found, name, scales[place])
    labels = [name.replace(".", ".\n").replace(" ", "\n") for name in names]
    axis.set_xticks(range(len(names)), labels)
    axis.set_yticks([])
    axis.set_ylim(-0.06, 1.06)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_title("darker: lower NLL; red: the default", fontsize=9)
    return figure


def _scale(found: Sequence[FrozenTrial], name: str) -> Callable[[Any], float]:
    """Returns the map from a parameter's values to heights from 0 to 1."""
    law = next(trial.distributions[name] for trial in found if name in trial.distributions)
    if isinstance(law, CategoricalDistribution):
        last = max(1, len(law.choices) - 1)
        return lambda value: law.choices.index(value) / last
    low, high = law.low, law.high
    if law.log:
        return lambda value: float(np.log(value / low) / np.log(high / low))
    return lambda value: (value - low) / (high - low)


def _ticks(
    axis: Axes, place: int, found: Sequence[FrozenTrial], name: str, scale: Callable[[Any], float]
) -> None:
    law = next(trial.distributions[name] for trial in found if name in trial.distributions)
    choice = isinstance(law, CategoricalDistribution)
    values = law.choices if choice else (law.low, law.high)
    axis.axvline(place, color="black", lw=0.6)
    for value in values:
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        axis.text(place + 0.04, scale(value), text, fontsize=7, va="center")


def _pareto(trials: Sequence[Record]) -> Figure:
    """Shows training time against NLL."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    for record in trials:
        if record.state == records.FINISHED:
            colour = BASELINE if record.number == BASE else FLOW
            axis.scatter(record.seconds, record.nll, color=colour, s=22)
            axis.annotate(str(record.number), (record.seconds, record.nll), fontsize=7,
                          xytext=(3, 3), textcoords="offset points")  # fmt: skip
    axis.set_xlabel("training time (s)")
    axis.set_ylabel("least validation NLL (nats)")
    axis.set_title("trials by number; red: the default", fontsize=9)
    return figure
