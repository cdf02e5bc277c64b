"""Retries of stages: their number, and the failures that may pass."""

import math
from dataclasses import dataclass

from ebflow.errors import BadInput
from pipelines.errors import innermost
from pipelines.tracking.backend import is_permanent


@dataclass(frozen=True)
class Retries:
    """The retries of a stage.

    Arguments:
        count: The number at most.
        pause: Seconds before the first; each pause is twice the one before.

    Raises:
        BadInput: If one of them is negative or not finite.
    """

    count: int = 2
    pause: float = 5.0

    def __post_init__(self) -> None:
        for option, value in (("--retries", self.count), ("--retry-pause", self.pause)):
            if not 0 <= value < math.inf:
                raise BadInput(option=option, found=value, expected="a number of at least 0")

    def before(self, number: int) -> float:
        """Returns the pause before a retry, in seconds; the first has the number 0."""
        return self.pause * 2**number


def is_transient(error: BaseException) -> bool:
    """True if a failure may pass: of a disk, of the network, of MLflow, or a lost node.

    Bad input and divergence do not pass, nor a training whose workers were restarted in vain.
    """
    from mlflow.exceptions import MlflowException
    from ray.exceptions import RayError, RayTaskError, TaskCancelledError

    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return not isinstance(error, TaskCancelledError)
    cause = innermost(error)
    if isinstance(cause, MlflowException):
        return not is_permanent(cause)
    return isinstance(cause, OSError)
