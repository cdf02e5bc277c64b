"""The search problems there are."""

from typing import Any

from tuning.alignment.problem import AlignmentProblem
from tuning.config import SearchConfig
from tuning.density.problem import DensityProblem
from tuning.problem import Problem

PROBLEMS = {found.pipeline: found for found in (DensityProblem, AlignmentProblem)}
"""By the pipelines whose settings are searched."""


def problem(config: SearchConfig) -> Problem[Any, Any, Any]:
    """Returns the problem of a search."""
    return next(found for found in PROBLEMS.values() if type(config) is found.searches)(config)
