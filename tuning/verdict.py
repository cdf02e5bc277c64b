"""Who won, and by how much: means over seeds, on rows that the search never saw."""

__all__ = ["Interval", "Setting", "Verdict", "decide", "interval", "settings"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from tuning.records import BASE

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of Student's 95 % interval for it; None from one value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        half = "" if self.half is None else f" ± {self.half:.1f}"
        return f"{self.mean:.1f}{half}"


def interval(values: Sequence[float]) -> Interval:
    """Returns mean and half-width t_{0.975, n - 1} s / √n of n independent values."""
    count = len(values)
    if count < 2:
        return Interval(float(values[0]), None)
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * stats.sem(values)
    return Interval(float(np.mean(values)), float(half))


@dataclass(frozen=True)
class Setting:
    """A trial's configuration, trained again with several seeds.

    Attributes:
        number: Of the trial.
        select: NLL on the selection rows by seed (nats).
        test: NLL on the test rows by seed (nats).
        lost: How a training diverged; empty if none did.
    """

    number: int
    select: Mapping[int, float]
    test: Mapping[int, float]
    lost: str = ""


def settings(found: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Gathers the trainings of each trial's configuration.

    Arguments:
        found: By training ``number``, ``seed`` and either ``select`` and ``test`` or ``lost``.
    """
    made = []
    for number in dict.fromkeys(row["number"] for row in found):
        group = [row for row in found if row["number"] == number]
        lost = next((row["lost"] for row in group if row.get("lost")), "")
        whole = [row for row in group if not row.get("lost")]
        select, test = ({row["seed"]: row[key] for row in whole} for key in ("select", "test"))
        made.append(Setting(number, select, test, lost))
    return made


@dataclass(frozen=True)
class Verdict:
    """What the search found.

    Attributes:
        winner: Trial of the least mean NLL on the selection rows.
        gain: By how much its test NLL is below the base's, paired by seed (nats); None if the
            base won or diverged.
        line: The same in words.
    """

    winner: int
    gain: Interval | None
    line: str


def decide(found: Sequence[Setting]) -> Verdict:
    """Names the winner by the selection rows, and compares it with the base on the test rows.

    A setting of which a training diverged does not win. The gain is the mean over seeds s of
    NLL_base(s) - NLL_winner(s), with its t interval: neither split was seen by the search, and
    the test rows had no part in naming the winner.

    Raises:
        ValueError: If trainings of all settings diverged.
    """
    whole = [setting for setting in found if not setting.lost]
    if not whole:
        raise ValueError(f"every setting diverged, the first: {found[0].lost}")
    best = min(whole, key=lambda setting: (_mean(setting), setting.number))
    base = next(setting for setting in found if setting.number == BASE)
    if best is base:
        return Verdict(BASE, None, "no setting was better than the default: it stays")
    if base.lost:
        return Verdict(best.number, None, f"the default diverged ({base.lost})")
    gain = interval([base.test[seed] - best.test[seed] for seed in sorted(best.test)])
    return Verdict(best.number, gain, _told(gain))


def _mean(setting: Setting) -> float:
    return float(np.mean(list(setting.select.values())))


def _told(gain: Interval) -> str:
    if gain.half is None:
        return f"better by {gain.mean:.1f} nats for one seed, which shows no interval"
    if gain.mean > gain.half:
        return f"better than the default by {gain} nats"
    if gain.mean < -gain.half:
        return f"worse than the default by {Interval(-gain.mean, gain.half)} nats"
    return f"no difference from the default shown: {gain} nats"
