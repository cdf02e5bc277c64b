"""An interrupted training goes on to the end of its step, after which it can be saved."""

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HELD_S = 10.0
"""Less than an interrupted stage is given to end (``cluster/connection.py``)."""


@contextmanager
def defer_sigint() -> Iterator[Callable[[], bool]]:
    """Defers an interruption (SIGINT); yields a function that returns whether there was one.

    KeyboardInterrupt is raised at the end of the block, after ``HELD_S``, or at the next
    interruption, whichever is first. Only the main thread gets signals: others defer nothing.
    """
    came, last = threading.Event(), threading.Timer(HELD_S, _thread.interrupt_main)
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def interrupt(*_: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()
        last.start()

    last.daemon = True
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield came.is_set
    finally:
        last.cancel()
        signal.signal(signal.SIGINT, before)
    if came.is_set():
        raise KeyboardInterrupt
