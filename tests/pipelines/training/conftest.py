"""Trainings of flows on real prepared data, in float64 and on one thread."""

from tests.library.conftest import (  # noqa: F401
    diabetes,
    digits,
    double_precision,
    few_digits,
    single_precision,
    turn,
)
