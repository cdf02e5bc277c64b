"""The verdict of a search: the best trials, trained again with fresh seeds, and the default."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pandas import DataFrame

from ebflow.errors import NonFinite
from pipelines.config import DensityConfig, Training
from pipelines.reporting.result import plus_minus
from pipelines.reporting.statistics import Interval, student
from tuning.config import TuneConfig
from tuning.trials import DEFAULT, FINISHED, Outcome

SPLITS = {"select": "selection", "test": "test"}
"""Splits of the rows that no trial sees: the first decides the winner, the other compares it."""


def trainings(config: TuneConfig, trials: Sequence[Outcome]) -> dict[tuple[int, int], Training]:
    """Returns the trainings after the search, by the number of a trial and a fresh seed."""
    finished = [trial for trial in trials if trial.state == FINISHED and trial.number != DEFAULT]
    best = sorted(finished, key=lambda trial: (trial.nll, trial.number))[: config.search.top]
    chosen = {DEFAULT: config.base.training}
    chosen |= {trial.number: whole(config.base, trial) for trial in best}
    first = config.base.seed + 1
    return {
        (number, seed): training.changed(seed=seed).once
        for number, training in chosen.items()
        for seed in range(first, first + config.search.seeds)
    }


def whole(base: DensityConfig, trial: Outcome) -> Training:
    """Returns the training of a trial, validated as often as the user's own."""
    training = Training.model_validate(trial.training)
    return training.changed(train={"validate_every": base.train.validate_every})


def best_config(base: DensityConfig, winner: Outcome) -> DensityConfig:
    """Returns the user's configuration with the winner's options; it holds out no selection."""
    names = set(Training.model_fields) - {"seed", "cluster"}
    options = {name: getattr(whole(base, winner), name) for name in names}
    return base.changed(**options, data={"selection": None}, name=f"{base.name}-best")


@dataclass(frozen=True)
class Verdict:
    """The verdict of a search.

    Attributes:
        winner: The trial with the lowest mean NLL of the selection rows.
        line: The comparison with the default, in words.
        gain: Mean difference of the NLLs of the test rows, default minus winner, in nats; None if
            the default won or diverged.
    """

    winner: int
    line: str
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
    sound = scores[~scores.number.isin(diverged.index)]
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


def _line(gain: Interval) -> str:
    if math.isnan(gain.high):
        return f"better by {gain.value:.2f} nats with one seed, which gives no interval"
    if gain.low > 0:
        return f"better than the default by {plus_minus(gain, 2)} nats"
    if gain.high < 0:
        worse = Interval(-gain.value, -gain.high, -gain.low)
        return f"worse than the default by {plus_minus(worse, 2)} nats"
    return f"no difference from the default shown: {plus_minus(gain, 2)} nats"
