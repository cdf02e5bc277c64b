"""The search problems there are."""

from tuning.config import TuneConfig
from tuning.density.config import DensityTune
from tuning.density.problem import DensityProblem
from tuning.problem import Problem

PROBLEMS: dict[type[TuneConfig], type[Problem]] = {
    DensityTune: DensityProblem,
}


def problem(config: TuneConfig) -> Problem:
    """Returns the problem of a search."""
    return PROBLEMS[type(config)](config)
