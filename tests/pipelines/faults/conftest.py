"""Runs that are made once: those that nothing happens to, and one whose driver is killed."""

import pytest

from ..conftest import Store
from .harness import PAIR, end, ends_well, kill, prepared, start, training_of


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    store = Store(tmp_path_factory.mktemp("whole"))
    ends_well(start(store))
    return store


@pytest.fixture(scope="session")
def pair(whole, tmp_path_factory):
    """The same by two workers, which Ray Train launches."""
    store = prepared(whole, tmp_path_factory.mktemp("pair"))
    ends_well(start(store, *PAIR))
    return store


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """A store whose driver was killed, and when; make a copy of it to go on.

    The driver's processes are killed with it: they would end by themselves, but later than so
    short a training, and write until then.
    """
    store = Store(tmp_path_factory.mktemp("killed"))
    process = start(store)
    hit = training_of(store)
    kill(store)
    end(process)
    return store, hit
