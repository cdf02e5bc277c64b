"""Logs of Ray, MLflow and redun: into a file, not to the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TALKERS = ("ray", "redun")
"""Loggers with handlers of their own, which write to the terminal."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Appends all logs and warnings to a file, at level INFO.

    If the disk is full, logs are lost, and nothing else fails.
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
