"""Signals that end a command: the first in order, those that follow not out of order."""

import ctypes
import signal

import pytest

from pipelines.engine.runner import _take_back_sigterm
from pipelines.interruption import interruptible

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("first", BOTH)
def test_a_second_sigterm_breaks_off_nothing(first):
    ended = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(signal.SIGTERM)
            ended.append(True)
    assert ended


def test_a_second_ctrl_c_does():
    ended = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            ended.append(True)
    assert not ended


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
