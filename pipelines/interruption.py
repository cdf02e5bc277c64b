"""Ctrl-C and SIGTERM stop a command in order.

A training that is interrupted finishes its step, after which it can be saved.
"""

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HELD_S = 10.0  # Seconds for which an interruption is deferred; Ray kills a stage after ``GRACE_S``


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first signal.

    A later SIGTERM is ignored: `timeout` sends one to the command, and another one to its group.
    A later Ctrl-C interrupts the clean-up.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def defer_sigint() -> Iterator[Callable[[], bool]]:
    """Defers a SIGINT of Ray to a stage; yields a function that is True if there was one.

    KeyboardInterrupt is raised at the end of the block, after ``HELD_S``, or at the next
    interruption, whichever is first.
    """
    came, last = threading.Event(), threading.Timer(HELD_S, _thread.interrupt_main)
    last.daemon = True

    def interrupt(*_: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()
        last.start()

    try:
        with _handled(interrupt, signal.SIGINT):
            yield came.is_set
    finally:
        last.cancel()
    if came.is_set():
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: Callable[..., None], *signals: int) -> Iterator[None]:
    """Handles signals by a function; only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
