"""Ctrl-C and SIGTERM stop a command in order; a hung worker ends itself.

A training that is interrupted finishes its step, after which it can be saved.
"""

import _thread
import faulthandler
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)

HELD_S = 10.0
"""Seconds for which an interruption is deferred; Ray kills a stage after ``GRACE_S``."""

HUNG = "hung-*.txt"
"""Files with the stacks of hung workers."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first signal.

    A later SIGTERM is ignored: `timeout` sends one to the command, and another one to its group.
    A later Ctrl-C interrupts the clean-up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_sigint() -> Iterator[Callable[[], bool]]:
    """Defers a SIGINT of Ray to a stage; yields a function that is True if there was one.

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


@contextmanager
def watchdog(work: Path, rank: int, seconds: float) -> Iterator[Callable[[], None]]:
    """Ends this process, without waiting for its threads, if it is not fed for a while.

    Yields the function that feeds it. Before the end it writes the stacks of all threads into
    ``stacks-RANK.txt``. It does not need the interpreter, which a hung call may hold.

    Arguments:
        work: Folder of that file.
        rank: Rank of this worker.
        seconds: Seconds until the first feeding, and from one to the next.
    """
    path = work / f"stacks-{rank}.txt"
    with path.open("w") as file:

        def feed() -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)

        feed()
        try:
            yield feed
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink(missing_ok=True)


def hung(work: Path, rank: int) -> str:
    """Returns a line on a worker that its watchdog ended; empty if there was none.

    The file of stacks is renamed to ``hung-N-rank-RANK.txt``, so that it is reported once.
    """
    path = work / f"stacks-{rank}.txt"
    if not path.exists() or not path.stat().st_size:
        return ""
    kept = work / f"hung-{len(list(work.glob(HUNG))) + 1}-rank-{rank}.txt"
    path.rename(kept)
    return f"hung, and was ended; {kept.name} says where its threads were"
