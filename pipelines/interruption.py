"""Ctrl-C and SIGTERM stop a command in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_interrupted = threading.Event()


def interrupted() -> bool:
    """True if the command is stopping because of a signal."""
    return _interrupted.is_set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first signal.

    A later SIGTERM is ignored: `timeout` sends one to the command, and another one to its group.
    A later Ctrl-C interrupts the clean-up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        _interrupted.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    if number == signal.SIGTERM and interrupted():
        return
    _interrupted.set()
    raise KeyboardInterrupt
