"""Who won, and by how much: means over seeds, on rows that the search never saw."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ebflow.inference import Interval, student
from pipelines.reporting.intervals import shown
from tuning.goals import Goal
from tuning.records import BASE

SPLITS = {"select": "selection", "test": "test"}
"""Rows by the prefix of their numbers: the first name the winner, the others compare it."""

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Setting:
    """A trial's configuration, trained again with several seeds.

    Attributes:
        number: Of the trial.
        scores: By split and goal what each seed gave.
        lost: How a training diverged; empty if none did.
    """

    number: int
    scores: Mapping[str, Mapping[str, BySeed]]
    lost: str = ""

    def mean(self, split: str, goal: Goal) -> float:
        """Returns the mean over seeds."""
        return float(np.mean(list(self.scores[split][goal.name].values())))


def settings(found: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Gathers the trainings of each trial's configuration.

    Arguments:
        found: By training ``number``, ``seed`` and either ``scores`` (goals by split) or ``lost``.
    """
    made = []
    for number in dict.fromkeys(row["number"] for row in found):
        group = [row for row in found if row["number"] == number]
        lost = next((row["lost"] for row in group if row.get("lost")), "")
        whole = {row["seed"]: row["scores"] for row in group if not row.get("lost")}
        made.append(Setting(number, _by_seed(whole), lost))
    return made


def _by_seed(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    first = next(iter(found.values()), {})
    return {
        split: {
            goal: {seed: scores[split][goal] for seed, scores in found.items()} for goal in goals
        }
        for split, goals in first.items()
    }


@dataclass(frozen=True)
class Verdict:
    """What the search found.

    Attributes:
        winner: Trial of the best mean of the first goal on the selection rows.
        gains: By goal, by how much its mean on the test rows is better than the base's, paired by
            seed; empty if the base won or diverged.
        line: The same in words.
    """

    winner: int
    line: str
    gains: Mapping[str, Interval] = field(default_factory=dict)


def decide(goals: Sequence[Goal], found: Sequence[Setting]) -> Verdict:
    """Names the winner by the selection rows, and compares it with the base on the test rows.

    The first goal names the winner. A setting of which a training diverged does not win, nor one
    whose mean of another goal is worse than the base's by more than its margin. The gain in a goal
    is the mean over seeds s of base(s) - winner(s), or the other way round if it is to be large,
    with its t interval: neither split was seen by the search, and the test rows had no part in
    naming the winner.

    Raises:
        ValueError: If trainings of all settings diverged.
    """
    whole = [setting for setting in found if not setting.lost]
    if not whole:
        raise ValueError(f"every setting diverged, the first: {found[0].lost}")
    base = next(setting for setting in found if setting.number == BASE)
    fair = whole if base.lost else [one for one in whole if _within(goals, one, base)]
    best = min(fair, key=lambda one: (goals[0].cost(one.mean("select", goals[0])), one.number))
    if best is base:
        return Verdict(BASE, "no setting was better than the default: it stays")
    if base.lost:
        return Verdict(best.number, f"the default diverged ({base.lost})")
    gains = {
        goal.name: student(_gains(goal, base, best)).interval() for goal in goals if goal.held
    }
    return Verdict(best.number, _summary(goals, gains), gains)


def _within(goals: Sequence[Goal], one: Setting, base: Setting) -> bool:
    bound = [goal for goal in goals if goal.margin is not None]
    return all(
        goal.cost(one.mean("select", goal)) - goal.cost(base.mean("select", goal)) <= goal.margin
        for goal in bound
    )


def _gains(goal: Goal, base: Setting, best: Setting) -> list[float]:
    old, new = (setting.scores["test"][goal.name] for setting in (base, best))
    return [goal.cost(old[seed]) - goal.cost(new[seed]) for seed in sorted(new)]


def _summary(goals: Sequence[Goal], gains: Mapping[str, Interval]) -> str:
    """Returns how the winner compares, goal by goal."""
    held = [goal for goal in goals if goal.held]
    return "; ".join(_line(goal, gains[goal.name], several=len(held) > 1) for goal in held)


def _line(goal: Goal, gain: Interval, *, several: bool) -> str:
    name = f"{goal.text}: " if several else ""
    unit = f" {goal.unit}" if goal.unit else ""
    if math.isnan(gain.high):
        value = goal.formatted(gain.value)
        return f"{name}better by {value}{unit} for one seed, which shows no interval"
    if gain.low > 0:
        return f"{name}better than the default by {shown(gain, goal.digits)}{unit}"
    if gain.high < 0:
        worse = Interval(-gain.value, -gain.high, -gain.low)
        return f"{name}worse than the default by {shown(worse, goal.digits)}{unit}"
    return f"{name}no difference from the default shown: {shown(gain, goal.digits)}{unit}"
