"""Monte Carlo means with standard errors."""

__all__ = ["Estimate"]

import math
from dataclasses import dataclass

from torch import Tensor

from .errors import NonFinite


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean.

    Attributes:
        value: The mean.
        se: Its standard error over examples; NaN for a single one.
        count: The number of examples.
    """

    value: float
    se: float
    count: int

    @classmethod
    def of(cls, terms: Tensor, *, name: str) -> "Estimate":
        """Averages ``terms`` with shape (N,), in float64.

        Raises:
            NonFinite: if one of them is infinite or NaN, with its number.
        """
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            raise NonFinite(f"{name}: found {terms[bad[0, 0]]} at example {bad[0, 0]}")
        terms, count = terms.double(), len(terms)
        spread = float(terms.std()) if count > 1 else math.nan
        return cls(float(terms.mean()), spread / math.sqrt(count), count)
