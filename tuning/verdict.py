"""What is trained again with fresh seeds, and who won, on rows that the search never saw."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ebflow.errors import NonFinite
from pipelines.config import Section
from pipelines.reporting.result import plus_minus
from pipelines.reporting.statistics import Interval, student
from tuning.problem import Goal, Problem
from tuning.records import BASE, FINISHED, Record


@dataclass(frozen=True)
class Retraining:
    """One training: of which trial's configuration, and its configuration with its seed."""

    number: int
    config: Section

    @property
    def title(self) -> str:
        """What tells its runs from those of the others."""
        name = "base" if self.number == BASE else f"trial {self.number:03d}"
        return f"{name}, seed {self.config.seed}"


def chosen(top: int, goals: Sequence[Goal], found: Sequence[Record]) -> list[Record]:
    """Returns the best trials besides the base; of several goals, of those that none beats."""
    done = [record for record in found if record.state == FINISHED and record.number != BASE]
    others = sorted(done, key=lambda record: (goals[0].of(record.scores), record.number))
    return (unbeaten(others, goals) if len(goals) > 1 else others)[:top]


def trainings(problem: Problem, found: Sequence[Record]) -> list[Retraining]:
    """Returns the trainings that follow trials, setting by setting; the base's come first."""
    base = problem.base
    best = chosen(problem.search.top, problem.goals, found)
    settings = {BASE: base, **{record.number: problem.of(record) for record in best}}
    seeds = range(base.seed + 1, base.seed + 1 + problem.seeds)
    return [
        Retraining(number, setting.changed(seed=seed))
        for number, setting in settings.items()
        for seed in seeds
    ]


def unbeaten(records: Sequence[Record], goals: Sequence[Goal]) -> list[Record]:
    """Returns the trials than which no other is as good in all goals and better in one."""
    costs = {id(record): [goal.of(record.scores) for goal in goals] for record in records}
    return [
        record for record in records
        if not any(_beats(costs[id(other)], costs[id(record)]) for other in records)
    ]  # fmt: skip


def _beats(one: list[float], other: list[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@dataclass
class Setting:
    """A trial's configuration, trained again with several seeds.

    Attributes:
        number: Of the trial.
        scores: By split and goal what each seed gave.
        lost: How a training diverged; empty if none did.
    """

    number: int
    scores: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    lost: str = ""

    def mean(self, split: str, goal: Goal) -> float:
        """Returns the mean over seeds."""
        return float(np.mean(list(self.scores[split][goal.name].values())))


Outcome = Mapping[str, Mapping[str, float]] | str
"""Of a training: its numbers by split and goal, or how it diverged."""


def settings(found: Iterable[tuple[int, int, Outcome]]) -> list[Setting]:
    """Gathers the trainings of each trial's configuration: its number, a seed, the outcome."""
    made: dict[int, Setting] = {}
    for number, seed, outcome in found:
        setting = made.setdefault(number, Setting(number))
        if isinstance(outcome, str):
            setting.lost = setting.lost or outcome
            continue
        for split, goals in outcome.items():
            for goal, value in goals.items():
                setting.scores.setdefault(split, {}).setdefault(goal, {})[seed] = value
    return [*made.values()]


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
        NonFinite: If trainings of all settings diverged.
    """
    whole = [setting for setting in found if not setting.lost]
    if not whole:
        raise NonFinite(f"trainings of every setting diverged, the first: {found[0].lost}")
    base = next(setting for setting in found if setting.number == BASE)
    fair = whole if base.lost else [one for one in whole if _within(goals, one, base)]
    best = min(fair, key=lambda one: (goals[0].cost(one.mean("select", goals[0])), one.number))
    if best is base:
        return Verdict(BASE, "no setting was better than the default: it stays")
    if base.lost:
        return Verdict(best.number, f"the default diverged ({base.lost})")
    gains = {goal.name: student(_gains(goal, base, best)).interval() for goal in goals}
    lines = [_line(goal, gains[goal.name], several=len(goals) > 1) for goal in goals]
    return Verdict(best.number, "; ".join(lines), gains)


def _within(goals: Sequence[Goal], one: Setting, base: Setting) -> bool:
    """Whether a setting is worse than the base by no more than the margins."""
    means = [(goal, one.mean("select", goal), base.mean("select", goal))
             for goal in goals if goal.margin is not None]  # fmt: skip
    return all(goal.cost(new) - goal.cost(old) <= goal.margin for goal, new, old in means)


def _gains(goal: Goal, base: Setting, best: Setting) -> list[float]:
    old, new = (setting.scores["test"][goal.name] for setting in (base, best))
    return [goal.cost(old[seed]) - goal.cost(new[seed]) for seed in sorted(new)]


def _line(goal: Goal, gain: Interval, *, several: bool) -> str:
    name = f"{goal.text}: " if several else ""
    unit = f" {goal.unit}" if goal.unit else ""
    if math.isnan(gain.high):
        value = goal.formatted(gain.value)
        return f"{name}better by {value}{unit} for one seed, which shows no interval"
    if gain.low > 0:
        return f"{name}better than the default by {plus_minus(gain, goal.digits)}{unit}"
    if gain.high < 0:
        worse = Interval(-gain.value, -gain.high, -gain.low)
        return f"{name}worse than the default by {plus_minus(worse, goal.digits)}{unit}"
    return f"{name}no difference from the default shown: {plus_minus(gain, goal.digits)}{unit}"
