"""The stage that reports a search: its verdict, figures and tables.

Source of the importances: PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces (Watanabe, Bansal, Hutter, 2023), arXiv:2304.10255.
"""

import json
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib import pyplot
from optuna.exceptions import ExperimentalWarning
from optuna.importance import get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from optuna.visualization import matplotlib as plotting
from pandas import DataFrame, Series

from ebflow.errors import NonFinite
from pipelines.config import DensityConfig, Training
from pipelines.config.files import dump
from pipelines.data.manifest import Manifest
from pipelines.density.evaluate import LENGTH
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.result import Plot, Result, Table, plus_minus, unequal_steps
from pipelines.reporting.statistics import Interval, student
from pipelines.tracking.run import StageRun
from tuning.config import TuneConfig
from tuning.space import Suggest, space
from tuning.trials import DEFAULT, FILE, FINISHED, Outcome, load, retraining, trainings

# Splits of the rows that no trial sees: the first decides the winner, the other compares it.
SPLITS = {"select": "selection", "test": "test"}

SHOWN = 4  # Number of parameters whose values are shown

NLL = "NLL (nats)"

# Marks a trial that ended early: for Optuna it is infeasible, gray and never the best.
EARLY = {"constraints": (1.0,)}


def report(
    config: TuneConfig,
    data: Path,
    searched: Path,
    evaluations: Sequence[Path | str],
    *,
    run: StageRun,
) -> None:
    """Writes the result of a search, ``best.yaml`` and ``trials.json``.

    ``evaluations``: for each training after it the folder of its evaluation, or how it diverged.
    """
    trials = load(searched)
    pairs = zip(trainings(config, trials), evaluations, strict=True)
    scores = DataFrame({"number": n, "seed": seed, **_score(one)} for (n, seed), one in pairs)
    verdict = decide(scores)
    best = best_config(config.base, trials[verdict.winner])
    (run.output / "best.yaml").write_text(dump(best))
    shutil.copy(searched / FILE, run.output)
    result(config, trials, scores, verdict, Manifest.load(data).counts).save(config, run)


def _score(evaluation: Path | str) -> dict[str, Any]:
    if isinstance(evaluation, str):
        return {"diverged": evaluation, **dict.fromkeys((*SPLITS, *LENGTH))}
    numbers = json.loads((evaluation / "evaluation.json").read_text())
    nll = {split: numbers[f"{split}/nll"] for split in SPLITS}
    return {"diverged": "", **nll, **{name: numbers[name] for name in LENGTH}}


def best_config(base: DensityConfig, winner: Outcome) -> DensityConfig:
    """Returns the user's configuration with the winner's options; it holds out no selection."""
    names = set(Training.model_fields) - {"seed", "cluster"}
    options = {name: getattr(retraining(base, winner), name) for name in names}
    return base.changed(**options, data={"selection": None}, name=f"{base.name[:195]}-best")


@dataclass(frozen=True)
class Verdict:
    """The verdict of a search."""

    winner: int  #: The trial with the lowest mean NLL of the selection rows
    line: str  #: The comparison with the default, in words
    #: Mean difference of the NLLs of the test rows, default minus winner, in nats; None if the
    #: default won or diverged
    gain: Interval | None = None


def decide(scores: DataFrame) -> Verdict:
    """Names the winner by the selection rows, and compares it with the default on the test rows.

    A setting of which a training diverged does not win. The gain is the mean over seeds s of
    NLL_default(s) - NLL_winner(s), with Student's interval.

    Arguments:
        scores: A row per training: ``number`` of the trial, ``seed``, NLL by split, and how it
            ``diverged``, which is empty if it did not.

    Raises:
        NonFinite: If trainings of all settings diverged.
    """
    diverged = scores[scores.diverged != ""].groupby("number").diverged.first()
    sound = _sound(scores)
    if sound.empty:
        raise NonFinite(f"trainings of every setting diverged, the first: {diverged.iloc[0]}")
    winner = int(sound.groupby("number").select.mean().idxmin())
    if winner == DEFAULT:
        return Verdict(DEFAULT, "no setting was better than the default")
    if DEFAULT in diverged:
        return Verdict(winner, f"the default diverged ({diverged[DEFAULT]})")
    test = sound.pivot(index="seed", columns="number", values="test")
    gain = student(test[DEFAULT] - test[winner]).interval()
    return Verdict(winner, _line(gain), gain)


def _sound(scores: DataFrame) -> DataFrame:
    """Returns the rows of the settings of which no training diverged."""
    return scores.groupby("number").filter(lambda rows: (rows.diverged == "").all())


def _line(gain: Interval) -> str:
    text = f"{plus_minus(gain, 2)} nats"
    if math.isnan(gain.high):
        return f"better by {text} with one seed, which gives no interval"
    if gain.low > 0:
        return f"better than the default by {text}"
    if gain.high < 0:
        return f"worse than the default: {text}"
    return f"no difference from the default shown: {text}"


def result(
    config: TuneConfig,
    trials: Mapping[int, Outcome],
    scores: DataFrame,
    verdict: Verdict,
    counts: Mapping[str, int],
) -> Result:
    """Returns the result of a search, given the NLLs after it and the rows of each split."""
    winner, changed = trials[verdict.winner], [trials[n] for n in scores.number.unique()]
    differing = {one.name: f"differs in {one.difference}" for one in changed if one.changes}
    states = Counter(trial.state for trial in trials.values())
    settings = dict(iter(_sound(scores).groupby("number")))
    compared = {"default": DEFAULT, "winner": verdict.winner}
    return Result(
        title=f"Search of {len(trials)} trials",
        intro=_intro(config, counts),
        conclusion=Conclusion((f"{winner.name} wins: {verdict.line}.",)),
        warnings=unequal_steps(_sound(scores).to_dict("records")),
        headline=_retrained(trials, scores, verdict.winner),
        facts={**differing, "states": ", ".join(f"{n} {state}" for state, n in states.items())},
        sections=[*plots(config, trials.values()), _all_trials(trials.values())],
        metrics={
            f"{split}/nll/{name}": student(settings[number][split]).value
            for name, number in compared.items()
            if number in settings
            for split in SPLITS
        },
        values={
            "verdict": verdict.line,
            "winner": verdict.winner,
            "gain": None if verdict.gain is None else verdict.gain._asdict(),
            "scores": scores.to_dict("records"),
            "tried": [one.model_dump(exclude={"params", "training"}) for one in trials.values()],
            "rows": dict(counts),
        },
    )


def _intro(config: TuneConfig, counts: Mapping[str, int]) -> str:
    options = config.search
    return (
        f"A search over {', '.join(options.over)} from {config.start.short_loss}. The default "
        f"and the best {options.top} finished trials were trained again with {options.seeds} "
        f"fresh seeds each. The winner has the lowest mean NLL of the {counts['selection']} "
        f"selection rows. Winner and default are compared on the {counts['test']} test rows, "
        "paired by seed. No trial saw these rows."
    )


def _retrained(trials: Mapping[int, Outcome], scores: DataFrame, winner: int) -> Table:
    """Returns the settings that were trained again; a star marks the winner."""
    rows = []
    for number, one in scores.groupby("number", sort=False):
        lost = (one.diverged != "").any()
        means = ["diverged", ""] if lost else [_mean(one[split]) for split in SPLITS]
        rows.append((trials[number].name + (" *" if number == winner else ""), *means))
    note = "Mean over seeds in nats per row, ± half its 95 % interval. *: the winner."
    headings = ("", *(f"{rows} NLL" for rows in SPLITS.values()))
    return Table("Trained again", headings, rows, note)


def _mean(values: Series) -> str:
    return plus_minus(student(values).interval(), 2)


def _all_trials(trials: Collection[Outcome]) -> Table:
    rows = [
        (
            trial.name,
            "" if trial.nll is None else f"{trial.nll:.2f}",
            trial.state + (f": {trial.reason}" if trial.reason else ""),
            f"{trial.share:.0%}",
            f"{trial.seconds:.0f}",
            trial.difference,
        )
        for trial in sorted(trials, key=lambda trial: (trial.nll is None, trial.nll))
    ]
    return Table("Trials", ("", "validation NLL", "state", "done", "s", "differs in"), rows)


def plots(config: TuneConfig, trials: Collection[Outcome]) -> Iterator[Plot]:
    """Yields Optuna's history and, if trials differ, importances and slices."""
    study = optuna.create_study()
    study.add_trials([_frozen(config, trial) for trial in trials])
    values = {trial.nll for trial in trials} - {None}
    layout = pyplot.rc_context({"figure.constrained_layout.use": True})
    with layout, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if values:
            axes = plotting.plot_optimization_history(study, target_name=NLL)
            yield _plot("history", axes, "Validation NLL by trial; gray trials ended early.")
        if len(values) >= SHOWN:
            axes = plotting.plot_param_importances(study, target_name=NLL)
            yield _plot("importance", axes, "Shares of the variance of the NLL (PED-ANOVA).")
            names = [*get_param_importances(study)][:SHOWN]
            axes = plotting.plot_slice(study, names, target_name=NLL)
            yield _plot("slices", axes, "Validation NLL by the values of parameters.")


def _plot(name: str, axes: Any, caption: str) -> Plot:  # noqa: ANN401
    figure = np.atleast_1d(axes)[0].figure
    pyplot.close(figure)
    return Plot(name, figure, caption, name)


def _frozen(config: TuneConfig, trial: Outcome) -> FrozenTrial:
    """Returns a trial of Optuna; :func:`space` asks it for its parameters, and so for ranges."""
    if trial.nll is None:
        return create_trial(state=TrialState.FAIL)
    fixed = FixedTrial(trial.params, trial.number)
    space(Suggest(config.start, fixed), config.search)
    return create_trial(
        value=trial.nll,
        params=trial.params,
        distributions=fixed.distributions,
        system_attrs={} if trial.state == FINISHED else EARLY,
    )
