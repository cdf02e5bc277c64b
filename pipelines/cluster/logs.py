"""Where what Ray, MLflow and redun have to say goes: into a file, not to the user."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TALKERS = ("ray", "redun")
"""Loggers with handlers of their own, which write to the terminal."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Sends all logs and warnings to a file, at level INFO; appends to it.

    What a full disk does not take is lost, and stops nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.handleError = lambda record: None  # no traceback on the user's terminal
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in TALKERS:
        talker = logging.getLogger(name)
        talker.handlers.clear()
        talker.propagate = True
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
