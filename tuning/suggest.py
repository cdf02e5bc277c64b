"""Spaces of parameters as tables, and what Optuna suggests for them.

Parameters are called by the options that they set. Ranges are widened to contain the base's own
value, so that the base is a point of the space.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, partialmethod
from operator import attrgetter
from typing import Any, Literal

from optuna.trial import BaseTrial

from pipelines.config import Section

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

    def _number(
        self, ask: str, log: bool, name: str, base: float, low: float, high: float
    ) -> float:
        """Returns a number; where ``log``, uniform in its logarithm."""
        return self._take(name, base, ask, low=min(low, base), high=max(high, base), log=log)

    log = partialmethod(_number, "suggest_float", True)
    real = partialmethod(_number, "suggest_float", False)
    whole = partialmethod(_number, "suggest_int", True)

    def choice(self, name: str, base: Any, *others: Any) -> Any:  # noqa: ANN401
        """Returns one of several values."""
        choices = list(dict.fromkeys((base, *others)))
        return self._take(name, base, "suggest_categorical", choices=choices)

    def optional(
        self, name: str, base: float | None, low: float, high: float, unused: float | None = None
    ) -> float | None:
        """Returns a number, uniform in its logarithm, or ``unused``; a base of 0 is unused."""
        if not self.choice(f"{name} used", bool(base), True, False):
            return unused
        return self.log(name, base or math.sqrt(low * high), low, high)

    def _take(self, name: str, base: Any, ask: str, **range: Any) -> Any:  # noqa: ANN401
        found = base if self.trial is None else getattr(self.trial, ask)(name, **range)
        self.params[name] = found
        self.names.setdefault(self.subject, []).append(name)
        return found


@dataclass(frozen=True)
class Parameter:
    """An option that is searched, or a choice from which options follow.

    Attributes:
        kind: How it is drawn: the method of :class:`Suggest`.
        option: The dotted name of the option, such as ``train.lr``.
        range: Further arguments of that: the ends of a range, or values besides the base's.
        when: Whether it has a meaning, by the configuration as it is by then.
        of: What tells it from other parameters of the same option.
        start: Returns the base's own value, of what the subject began with; None: the option's.
        sets: Returns the configuration with a value; None: the option is set to it.
    """

    kind: Literal["log", "real", "whole", "choice", "optional"]
    option: str
    range: Sequence[Any] | Callable[[Any], Sequence[Any]]
    when: Callable[[Any], object] = lambda config: True
    of: str = ""
    start: Callable[[Any], Any] | None = None
    sets: Callable[[Any, Any], Section] | None = None

    def asked(self, ask: Suggest, began: Section, config: Section) -> Section:
        """Returns a configuration with a suggested value of this parameter."""
        range = self.range(began) if callable(self.range) else self.range
        start = (self.start or attrgetter(self.option))(began)
        value = getattr(ask, self.kind)(f"{self.option} {self.of}".strip(), start, *range)
        if self.sets is not None:
            return self.sets(config, value)
        section, _, field = self.option.rpartition(".")
        return config.changed(**({section: {field: value}} if section else {field: value}))


log, real, whole = (partial(Parameter, kind) for kind in ("log", "real", "whole"))
choice, optional = partial(Parameter, "choice"), partial(Parameter, "optional")

Space = Mapping[str, Sequence[Parameter]]
"""Parameters by subject, in the order in which they are asked for."""


def propose(ask: Suggest, space: Space, over: Iterable[str], base: Section) -> Section:
    """Returns the configuration of a trial: the base with the parameters of some subjects."""
    config = base
    for subject in [name for name in space if name in (FIRST, *over)]:
        ask.subject, began = subject, config
        for parameter in space[subject]:
            if parameter.when(config):
                config = parameter.asked(ask, began, config)
    return type(base).model_validate(config.model_dump())
