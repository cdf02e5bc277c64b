"""The search problems there are."""

from tuning.alignment.problem import ALIGNMENT
from tuning.config import SearchConfig
from tuning.density.problem import DENSITY
from tuning.problem import Problem

PROBLEMS = {found.pipeline: found for found in (DENSITY, ALIGNMENT)}
"""By the pipelines whose settings are searched."""


def problem(config: SearchConfig) -> Problem:
    """Returns the problem of a search."""
    return next(found for found in PROBLEMS.values() if type(config) is found.search)
