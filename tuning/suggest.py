"""Suggestions of Optuna for the parameters of a space.

Parameters are called by the options that they set. Ranges are widened to contain the base's own
value, so that the base is a point of the space.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from optuna.trial import BaseTrial

from pipelines.config import Section
from pipelines.config.files import merge

Overrides = dict[str, Any]
"""Fields, by section where they are in one."""

FIRST = "first"
"""The subject of choices that come before all others, such as that of the objective."""


class Suggest:
    """Values of parameters: those that a trial suggests, or the base's where there is no trial.

    ``params`` has every parameter that was asked for, ``names`` their names by subject.

    Arguments:
        trial: The trial of Optuna.
    """

    def __init__(self, trial: BaseTrial | None = None) -> None:
        self.trial, self.subject = trial, FIRST
        self.params: dict[str, Any] = {}
        self.names: dict[str, list[str]] = {}

    def log(self, name: str, base: float, low: float, high: float) -> float:
        """Returns a number, uniform in its logarithm."""
        low, high = min(low, base), max(high, base)
        return self._take(name, base, "suggest_float", low=low, high=high, log=True)

    def real(self, name: str, base: float, low: float, high: float) -> float:
        """Returns a number."""
        low, high = min(low, base), max(high, base)
        return self._take(name, base, "suggest_float", low=low, high=high)

    def whole(self, name: str, base: int, low: int, high: int) -> int:
        """Returns a whole number, uniform in its logarithm."""
        low, high = min(low, base), max(high, base)
        return self._take(name, base, "suggest_int", low=low, high=high, log=True)

    def choice(self, name: str, base: Any, *others: Any) -> Any:  # noqa: ANN401
        """Returns one of several values."""
        choices = list(dict.fromkeys((base, *others)))
        return self._take(name, base, "suggest_categorical", choices=choices)

    def optional(self, name: str, base: float | None, low: float, high: float) -> float | None:
        """Returns a number, uniform in its logarithm, or nothing; 0 is nothing, too."""
        if not self.choice(f"{name} used", bool(base), True, False):
            return None
        return self.log(name, base or math.sqrt(low * high), low, high)

    def _take(self, name: str, base: Any, ask: str, **range: Any) -> Any:  # noqa: ANN401
        found = base if self.trial is None else getattr(self.trial, ask)(name, **range)
        self.params[name] = found
        self.names.setdefault(self.subject, []).append(name)
        return found


Space = Callable[[Suggest, Any], Overrides]
"""From suggestions and a configuration to what a subject changes of it."""


def propose(
    ask: Suggest, spaces: Mapping[str, Space], over: Iterable[str], base: Section
) -> Section:
    """Returns the configuration of a trial: the base with what each subject changes in turn."""
    over = set(over)
    for subject, space in spaces.items():
        if subject in over:
            ask.subject = subject
            base = type(base).model_validate(merge(base.model_dump(), space(ask, base)))
    return base
