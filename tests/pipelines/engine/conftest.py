"""The engine on small stages in this process, without Ray."""

import pytest

from tests.pipelines.stages import CALLS, ERRORS

from .cases import NOTES, Engine


@pytest.fixture(autouse=True)
def fresh():
    for kept in (CALLS, ERRORS, NOTES):
        kept.clear()


@pytest.fixture
def engine(tracking_home, without_ray):
    def make(**options):
        return Engine(**options)

    return make
