"""Ctrl-C and SIGTERM end a command in order: once, and with no second try of what that breaks."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_interrupted = threading.Event()


def interrupted() -> bool:
    """Whether the command is ending because it was told to."""
    return _interrupted.is_set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets the first signal raise KeyboardInterrupt in the main thread.

    Of those that follow, SIGTERM is passed over: `timeout` sends it to a command and again to all
    of its group. Ctrl-C ends what has not ended yet.
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
