"""Signals that end a command: the first in order, those that follow not out of order."""

import ctypes
import signal
import time

import pytest

from pipelines import interruption
from pipelines.engine.runner import _take_back_sigterm
from pipelines.interruption import defer_sigint, interruptible

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(
    "first, second", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,) * 2, BOTH[::-1]]
)
def test_a_second_sigterm_breaks_off_nothing_but_a_second_ctrl_c_does(first, second):
    ended = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(second)
            ended.append(True)
    assert bool(ended) == (second == signal.SIGTERM)


def test_a_second_interruption_of_a_training_does_not_wait():
    after = []
    with pytest.raises(KeyboardInterrupt), defer_sigint() as interrupted:
        signal.raise_signal(signal.SIGINT)
        after.append(interrupted())
        signal.raise_signal(signal.SIGINT)
        after.append(interrupted())
    assert after == [True]


def test_an_interruption_that_is_not_heeded_is_raised(monkeypatch):
    monkeypatch.setattr(interruption, "HELD_S", 0.01)
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        signal.raise_signal(signal.SIGINT)
        for _ in range(100):
            time.sleep(0.01)
        pytest.fail("it was deferred for ever")


def test_a_handler_that_ray_puts_in_its_place_is_taken_back():
    """It does so in C, which Python does not see."""
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    with pytest.raises(KeyboardInterrupt), interruptible():
        library.signal(signal.SIGTERM, int(signal.SIG_IGN))
        _take_back_sigterm()
        signal.raise_signal(signal.SIGTERM)


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in BOTH]
    with interruptible():
        assert [signal.getsignal(number) for number in BOTH] != before
    assert [signal.getsignal(number) for number in BOTH] == before
