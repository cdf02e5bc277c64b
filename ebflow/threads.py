"""The number of threads of torch, by the size of the work.

The threads of a small matrix product wait for each other at its end. On a machine with other work,
one of them is often not running, and all wait. So small products are left to one thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

#: Elements of a row from which several threads share a step; below, one thread is as fast
WIDE = 400


@contextmanager
def limited_threads() -> Iterator[Callable[[int], None]]:
    """Limits torch to one thread, and restores the process's number at the end.

    Yields a function of the elements D of a row. It gives torch its own threads back if a step is
    large enough to share. The number is one of the whole process: other threads of it see it, too.

    Example:
        >>> with ebflow.threads.limited_threads() as choose_threads:
        ...     choose_threads(10)
        ...     torch.get_num_threads()
        1
    """
    own = torch.get_num_threads()

    def choose_threads(width: int) -> None:
        torch.set_num_threads(own if width >= WIDE else 1)

    choose_threads(0)
    try:
        yield choose_threads
    finally:
        torch.set_num_threads(own)
