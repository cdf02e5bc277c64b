"""A training worker that comes no further ends itself, so that it is replaced.

A process that is stopped as a whole cannot; Ray Train sees that it answers no more.
"""

import faulthandler
from pathlib import Path
from typing import Self

HUNG = "hung-*.txt"
"""Files that say where the threads of hung workers were."""


class Watchdog:
    """Ends this process, without waiting for its threads, if it is not fed for a while.

    Before that it writes where every thread is into ``stacks-RANK.txt``. It needs nothing of the
    interpreter, which a hung call may hold.

    Arguments:
        work: Folder of that file.
        rank: Which worker this is.
        seconds: How long it waits for the first food, and for the next.
    """

    def __init__(self, work: Path, rank: int, seconds: float) -> None:
        self.seconds = seconds
        self.file = (work / f"stacks-{rank}.txt").open("w")

    def __enter__(self) -> Self:
        self.feed()
        return self

    def __exit__(self, *error: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.file.close()

    def feed(self) -> None:
        """Begins to wait anew."""
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=self.file)


def hung(work: Path, rank: int) -> str:
    """Returns what a watchdog did to a worker, in one line; empty if it did nothing.

    What it wrote is kept as ``hung-N-rank-RANK.txt``, and told once.
    """
    path = work / f"stacks-{rank}.txt"
    if not path.exists() or not path.stat().st_size:
        return ""
    kept = work / f"hung-{len(list(work.glob(HUNG))) + 1}-rank-{rank}.txt"
    path.rename(kept)
    return f"hung, and was ended; {kept.name} says where its threads were"
