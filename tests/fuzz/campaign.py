"""The number of cases of a check, and their outcomes: an answer, or one line for the user."""

from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ebflow.errors import BadInput

SHARE = 25  # By default one in so many cases is run; all of them when slow tests are

WIDEST = 1000  # Characters of a line that a person can still read

PHASES = (Phase.generate, Phase.shrink)
settings.register_profile("explore", derandomize=False)


def cases(full):
    """Parametrizes a check by the number of its cases."""
    some, every = full // SHARE, pytest.param(full, id=f"{full}", marks=pytest.mark.slow)
    return pytest.mark.parametrize("count", [pytest.param(some, id=f"{some}"), every])


def hunt(check, strategy, count):
    """Checks ``count`` drawn cases: the same in every run.

    With ``pytest --hypothesis-profile explore`` they are others each time. Prints how many ended
    in a line, and fails where fewer than ``count`` were run.
    """
    ends = []

    @settings(
        max_examples=count,
        derandomize=settings.get_current_profile_name() != "explore",
        database=None,
        phases=PHASES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def every(case):
        ends.append(check(case))

    every()
    print(f"\n{check.__name__}: {len(ends)} cases, {sum(end is not None for end in ends)} refused")
    assert len(ends) >= count


def one_line(text, name):
    """Asserts that a message is a line that a person can read and that names the file."""
    assert name in text and text.isprintable() and len(text) <= WIDEST, text[:WIDEST]


@contextmanager
def refused(name, messages):
    """Appends the line of what is refused to ``messages``; lets every other error through."""
    try:
        yield
    except BadInput as error:
        one_line(str(error), name)
        messages.append(str(error))
